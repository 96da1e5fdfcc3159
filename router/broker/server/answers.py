"""Error answers of a Redis server: which of them are temporary, and which need an operator; floor 4.

The first word of an error answer, its code, decides that. redis-py cuts the code off the answers that it has a class
for. Servers before 7.0 wrap the error of a command inside a script in text of their own. This module undoes both.
"""

from __future__ import annotations

import re

from redis import exceptions as failures

TEMPORARY = frozenset(
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
"""The codes of temporary answers: the same command may succeed later."""

_CROWDED = "max number of clients"
"""The text, under the general code ERR, of a server that has too many connections."""


def error_text(error: BaseException) -> str:
    """Return the server's error text with the code that redis-py cut off."""
    text = str(error).strip()
    code = getattr(error, "status_code", None)
    return text if code in {None, "ERR"} or text.startswith(code) else f"{code} {text}"


def is_temporary(answer: BaseException | str) -> bool:
    """Return whether an error answer is temporary: the same command may succeed later."""
    text = answer if isinstance(answer, str) else error_text(answer)
    return text.partition(" ")[0] in TEMPORARY or text.removeprefix("ERR ").startswith(_CROWDED)


def is_denial(text: str) -> bool:
    """Return whether an answer refuses a command for lack of permission. Inside scripts, the text depends on the server."""
    return any(words in text for words in ("NOPERM", "ACL failure in script", "The user executing the script can't"))


def unwrapped_text(text: str) -> str:
    """Return the error of a command inside a script, without the text that servers add, which differs by version."""
    text = re.sub(r"^(ERR )?Error running script .*?@user_script: ?\d+: -?", "", text)
    return re.sub(r"^@user_script: ?\d+: -?|,? script: [0-9a-f]{40}.*$", "", text).rstrip(". ")


def unwrapped(error: failures.ResponseError) -> failures.ResponseError:
    """Return the error of a script as redis-py would raise it for the failed command alone."""
    text = error_text(error)
    bare = unwrapped_text(text)
    if bare == text.rstrip(". "):
        return error
    return _KINDS.get(bare.partition(" ")[0], failures.ResponseError)(bare)


_KINDS: dict[str, type[failures.ResponseError]] = {
    "NOPERM": failures.NoPermissionError,
    "READONLY": failures.ReadOnlyError,
}
"""The classes of redis-py that callers distinguish, by the code of the answer."""
