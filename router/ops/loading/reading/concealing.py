"""Keeping values that may be secret out of what is said of a configuration; floor 4, pure.

A secret is put into the wrong place more often than one thinks: `timeout: "${SLACK_TOKEN}"`. The message about the wrong
place would show it to whoever may ask for a reload or read a log. So what comes from outside the file is shown as it is
written there (`${SLACK_TOKEN}`), and what a secret field holds as `***`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import unquote

from router.errors import Problem
from router.ops.loading.reading.nodes import Scalar
from router.ops.redaction import HIDDEN, SHORT, expressions, forms_of

_PART = 12  # characters of a value that are hidden wherever they stand; messages cut values and take them apart
_SEARCHED = 65_536  # characters of a value in which parts are looked for
_WORD = re.compile(rf"[\w~+-]{{{SHORT},}}")
_SECRET_KEY = re.compile(
    r"([\w-]*(?:passw(?:or)?d|secret|token|credential|api_?key)[\w-]*[\"']?\s*[:=]\s*)([^\s].*?)(?=\s*(?:[,}]|$))",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"passw(or)?d|secret|token|credential|api_?key|url", re.IGNORECASE)
_USERINFO = re.compile(r"(://)[^/\s@\"']+@")
_PATH = re.compile(r"(https?://[^/\s\"']+/)([^\s\"'{}]*)")
_CREDENTIAL = re.compile(r"[\w-]{16,}")
_MIXED = re.compile(r"(?=[\w-]*[0-9])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{16,}")


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that is not to be shown, what stands for it, and the scalar that holds it."""

    text: str
    shown: str
    at: Scalar | None


@dataclass(slots=True)
class Concealment:
    """The values that must not be shown."""

    _values: list[_Value] = field(default_factory=list)

    def add(self, text: str, shown: str = HIDDEN, at: Scalar | None = None) -> None:
        """Hide a value; `at` holds it, and a short value is hidden in problems of that place alone (None: everywhere)."""
        if text.strip():
            self._values.append(_Value(text, shown, at))

    def problem(self, problem: Problem) -> Problem:
        """Return the problem without the values."""
        near = [value for value in self._values if _concerns(value, problem.path)]
        near.sort(key=lambda value: len(value.text), reverse=True)
        return replace(
            problem,
            message=_without(problem.message, near),
            file=None if problem.file is None else _without(problem.file, near),
            excerpt=None if problem.excerpt is None else _without(problem.excerpt, near),
        )


def _concerns(value: _Value, path: str) -> bool:
    """Return whether the value is to be hidden in a problem at this path: everywhere when it is long, else near its place."""
    if value.at is None or len(value.text) >= SHORT:
        return True
    own = value.at.path
    return bool(path) and (own.startswith(path) or path.startswith(own))


def _without(text: str, values: Iterable[_Value]) -> str:
    for value in values:
        text = _expression(value.text).sub(value.shown.replace("\\", r"\\"), text)
        if len(value.text) > _PART:
            text = _without_parts(text, value.text[:_SEARCHED], value.shown)
    return text


@lru_cache(maxsize=32)
def _expression(secret: str) -> re.Pattern[str]:
    """Return what finds a value in every form, decoded too, and the longer words of a long one."""
    words = _WORD.findall(secret[:_SEARCHED]) if len(secret) >= SHORT else ()
    return re.compile("|".join(expressions({*forms_of(secret), *forms_of(unquote(secret)), *words})))


def _without_parts(text: str, secret: str, shown: str) -> str:
    """Return the text without the longer runs of characters that it has in common with the secret."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        end = at + _PART
        if end > len(text) or text[at:end] not in secret:
            parts.append(text[at])
            at += 1
            continue
        while end < len(text) and text[at : end + 1] in secret:
            end += 1
        parts.append(shown)
        at = end
    return "".join(parts)


def without_credentials(line: str) -> str:
    """Return a line of YAML that could not be read without what looks like a credential in it; `${…}` and templates stay."""
    line = _USERINFO.sub(rf"\1{HIDDEN}@", line)
    line = _PATH.sub(lambda found: found[1] + _CREDENTIAL.sub(HIDDEN, found[2]), line)
    line = _MIXED.sub(HIDDEN, line)
    return _SECRET_KEY.sub(lambda found: found[0] if "{" in found[2] else f"{found[1]}{HIDDEN}", line)


def may_be_secret(path: str) -> bool:
    """Return whether the name of the key that a path ends with is one that secrets have."""
    return _SECRET_NAME.search(path.rpartition(".")[2]) is not None
