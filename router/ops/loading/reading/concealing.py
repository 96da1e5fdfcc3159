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
from pathlib import Path
from unicodedata import combining, east_asian_width
from urllib.parse import unquote

from router.errors import Problem
from router.ops.loading.reading.nodes import Mark, Node, Scalar, scalars
from router.ops.redaction import HIDDEN, SHORT, expressions, forms_of

_PART = 12  # characters of a value that are hidden wherever they stand; messages cut values and take them apart
_SEARCHED = 65_536  # characters of a value in which parts are looked for
_WORD = re.compile(rf"[\w~+-]{{{SHORT},}}")
_SECRET_KEY = re.compile(
    r"([\w-]*(?:passw(?:or)?d|secret|token|credential|api_?key|authorization)[\w-]*[\"']?\s*[:=]\s*)"
    r"""("(?:[^"\\]|\\.)*"?|'(?:[^']|'')*'?|\[[^\]]*\]?|[^\s].*?(?=\s*(?:[,}]|$)))""",
    re.IGNORECASE,
)
_SECRET_PART = re.compile(r"passw(or)?d|secret|token|credential|api_?key|authorization", re.IGNORECASE)
_HARMLESS = re.compile(r"\$\{(?:\w+|(?:file|cred):[^{}]*)\}")  # what stands there names the secret and is none
_FRAME = 72  # characters of a faulty line that are shown
_LEFT = 40  # of those, the ones before its place
_SECRET_NAME = re.compile(r"passw(or)?d|secret|token|credential|api_?key|url", re.IGNORECASE)
# Up to the last `@`, for a password may hold any sign by mistake: a space too, in a URL of Redis in quotes.
_USERINFO = re.compile(r"((?<=[\"'])(?:rediss?|unix)[\w+]*://)[^\"']+@|(://)[^\s\"']+@")
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
    secrets: list[Scalar] = field(default_factory=list)
    """Those in fields of secrets."""
    root: Node | None = None
    """The whole configuration, once it was read."""
    _hidden: dict[tuple[Path, int], list[tuple[int, int]]] | None = None
    """By file and line, the columns of secrets: where each begins and where it has ended."""

    def add(self, text: str, shown: str = HIDDEN, at: Scalar | None = None) -> None:
        """Hide a value; `at` holds it, and a short value is hidden in problems of that place alone (None: everywhere)."""
        if text.strip():
            self._values.append(_Value(text, shown, at))

    def problem(self, problem: Problem, mark: Mark | None = None) -> Problem:
        """Return the problem without the values, and with the line of its place where it has no excerpt yet."""
        near = [value for value in self._values if _concerns(value, problem.path)]
        near.sort(key=lambda value: len(value.text), reverse=True)
        excerpt = None if problem.excerpt is None else _without(problem.excerpt, near)
        if excerpt is None and mark is not None:
            excerpt = self._excerpt(mark, near)
        return replace(
            problem,
            message=_without(problem.message, near),
            file=None if problem.file is None else _without(problem.file, near),
            excerpt=excerpt,
            brief=None if problem.brief is None else _without(problem.brief, near),
        )

    def _excerpt(self, mark: Mark, near: Iterable[_Value]) -> str | None:
        """Return the line of a mark without secrets, and below it a line with a caret; None where the file has none."""
        line, caret = mark.file.line(mark.line), mark.column - 1
        if not line.strip() or caret > len(line):
            return None
        for begin, end in sorted(self._columns(mark), reverse=True):
            line = f"{line[:begin]}{HIDDEN}{line[end:]}"
            if caret > begin:
                caret = max(begin, caret - (end - begin) + len(HIDDEN))
        hidden = _without(without_credentials(line), near)
        if hidden[:caret] != line[:caret]:  # what was hidden stands before it: count from the end, if that is as it was
            same = hidden.endswith(line[caret:])
            caret = len(hidden) - len(line) + caret if same else len(hidden) - len(hidden.lstrip())
        return _framed(hidden, caret)

    def _columns(self, mark: Mark) -> list[tuple[int, int]]:
        """Return the columns in which secrets stand in the line of a mark, counted from 0."""
        if self._hidden is None:
            below = scalars(self.root) if self.root is not None else ()
            found = {
                id(scalar): scalar for scalar in (*self.secrets, *(s for s in below if _SECRET_PART.search(s.path)))
            }
            self._hidden = {}
            for scalar in found.values():
                if not _HARMLESS.fullmatch(scalar.text):
                    self._hide(scalar, self._hidden)
        return self._hidden.get((mark.file.path, mark.line), [])

    def _hide(self, scalar: Scalar, hidden: dict[tuple[Path, int], list[tuple[int, int]]]) -> None:
        """Note the columns of a scalar in each of its lines."""
        file = scalar.mark.file
        place = scalar.end or Mark(file, scalar.mark.line, len(file.line(scalar.mark.line)) + 1)
        last, behind = place.line, place.column
        for number in range(scalar.mark.line, last + 1):
            begin = scalar.mark.column - 1 if number == scalar.mark.line else 0
            end = behind - 1 if number == last else len(file.line(number))
            if end > begin:
                hidden.setdefault((file.path, number), []).append((begin, end))


def _framed(line: str, caret: int) -> str:
    """Return a part of the line around a place, and below it a line with a caret there."""
    line = "".join(sign if sign.isprintable() else " " if sign == "\t" else "?" for sign in line.rstrip())
    begin = max(0, min(caret - _LEFT, len(line) - _FRAME)) if len(line) > _FRAME else 0
    shown = line[begin : begin + _FRAME]
    if begin:
        shown = f"…{shown[1:]}"
    if begin + _FRAME < len(line):
        shown = f"{shown[:-1]}…"
    # A character of Chinese is as wide as two of the caret's line.
    before = sum(
        2 if east_asian_width(sign) in {"W", "F"} else 0 if combining(sign) else 1 for sign in shown[: caret - begin]
    )
    return f"{shown}\n{' ' * before}^"


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
    line = _USERINFO.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", line)
    line = _PATH.sub(lambda found: found[1] + _CREDENTIAL.sub(HIDDEN, found[2]), line)
    line = _MIXED.sub(HIDDEN, line)
    return _SECRET_KEY.sub(lambda found: found[0] if "{" in found[2] else f"{found[1]}{HIDDEN}", line)


def may_be_secret(path: str) -> bool:
    """Return whether the name of the key that a path ends with is one that secrets have."""
    return _SECRET_NAME.search(path.rpartition(".")[2]) is not None
