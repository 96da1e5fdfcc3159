"""Error answers of a Redis server: their first word decides whether to wait or to ask for a person; floor 4.

redis-py cuts the first word off the answers that it has a class for, and older servers wrap the answer to a command of a
script in words of their own. Both are undone here, so that every part of the router reads the same answer.
"""

from __future__ import annotations

import re

from redis import exceptions as failures

PASSING = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    }
)
"""The first words of answers that say `not now`."""

_CROWDED = "max number of clients"
"""What the answer says, under the general code ERR, when the server has too many connections."""


def said(error: BaseException) -> str:
    """Return what the server said, with the first word that redis-py cut off."""
    text = str(error).strip()
    code = getattr(error, "status_code", None)
    return text if code in {None, "ERR"} or text.startswith(code) else f"{code} {text}"


def passes(answer: BaseException | str) -> bool:
    """Return whether an error answer says `not now`: the same command may be allowed in a while."""
    text = answer if isinstance(answer, str) else said(answer)
    return text.partition(" ")[0] in PASSING or text.removeprefix("ERR ").startswith(_CROWDED)


def inner(text: str) -> str:
    """Return the answer to a command of a script without what the server puts around it, the same from every version."""
    text = re.sub(r"^(ERR )?Error running script .*?@user_script: ?\d+: -?", "", text)
    return re.sub(r"^@user_script: ?\d+: -?|,? script: [0-9a-f]{40}.*$", "", text).rstrip(". ")


def plain(error: failures.ResponseError) -> failures.ResponseError:
    """Return the error as the command itself would have raised it, where a script has sent that command."""
    text = said(error)
    bare = inner(text)
    if bare == text.rstrip(". "):
        return error
    return _KINDS.get(bare.partition(" ")[0], failures.ResponseError)(bare)


_KINDS: dict[str, type[failures.ResponseError]] = {
    "NOPERM": failures.NoPermissionError,
    "READONLY": failures.ReadOnlyError,
}
"""Classes that somebody asks for."""
