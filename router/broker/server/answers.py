"""Error answers of a Redis server: which of them are temporary, and which need an operator; floor 4.

The first word of an error answer is its code, which decides whether the error is temporary. redis-py removes the code
if it has an exception class for this code. Servers before 7.0 add text around the error of a command inside a script.
This module restores the original error text in both cases.
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
"""The text of the error for too many connections. The code of this error is ERR, which is not specific."""


def error_text(error: BaseException) -> str:
    """Return the error text as the server sent it, with the code that redis-py has removed."""
    text = str(error).strip()
    code = getattr(error, "status_code", None)
    return text if code in {None, "ERR"} or text.startswith(code) else f"{code} {text}"


def is_temporary(answer: BaseException | str) -> bool:
    """Return whether an error answer is temporary: the same command may succeed later."""
    text = answer if isinstance(answer, str) else error_text(answer)
    return text.partition(" ")[0] in TEMPORARY or text.removeprefix("ERR ").startswith(_CROWDED)


def is_denial(text: str) -> bool:
    """Return whether an error answer means that the user lacks a permission.

    Inside scripts, the text of this answer depends on the server.
    """
    return any(words in text for words in ("NOPERM", "ACL failure in script", "The user executing the script can't"))


def unwrapped_text(text: str) -> str:
    """Return the error text of a command inside a script, without the text that the server adds around the error."""
    text = re.sub(r"^(ERR )?Error running script .*?@user_script: ?\d+: -?", "", text)
    return re.sub(r"^@user_script: ?\d+: -?|,? script: [0-9a-f]{40}.*$", "", text).rstrip(". ")


def unwrapped(error: failures.ResponseError) -> failures.ResponseError:
    """Return the error of a script as redis-py would raise it if the failed command had been sent alone."""
    text = error_text(error)
    bare = unwrapped_text(text)
    if bare == text.rstrip(". "):
        return error
    return _KINDS.get(bare.partition(" ")[0], failures.ResponseError)(bare)


_KINDS: dict[str, type[failures.ResponseError]] = {
    "NOPERM": failures.NoPermissionError,
    "READONLY": failures.ReadOnlyError,
}
"""The exception classes of redis-py that callers distinguish, by the code of the error answer."""
