"""Hiding of values that may be secret in messages about a configuration; floor 4, pure.

An operator may put a secret into the wrong field: `timeout: "${SLACK_TOKEN}"`. The message about this field would show
the secret to everybody who can read a log or request a reload. So messages show a value from outside the file as its
expression (`${SLACK_TOKEN}`), and the value of a secret field as `***`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from unicodedata import combining, east_asian_width
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from router.errors import Problem
from router.ops.loading.reading.nodes import Mark, Node, Scalar, scalars
from router.ops.redaction import HIDDEN, SHORT, expressions, forms_of

# A message may show only a part of a value. A part is hidden if it has at least this number of characters.
_PART = 12
_SEARCHED = 65_536  # only parts of the first 65,536 characters of a value are hidden
_WORD = re.compile(rf"[\w~+-]{{{SHORT},}}")
_SECRET_KEY = re.compile(
    r"([\w-]*(?:passw(?:or)?d|secret|token|credential|api[-_]?key|authorization)[\w-]*[\"']?\s*[:=]\s*)"
    r"""("(?:[^"\\]|\\.)*"?|'(?:[^']|'')*'?|\[[^\]]*\]?|[^\s].*?(?=\s*(?:[,}]|$)))""",
    re.IGNORECASE,
)
_SECRET_PART = re.compile(r"passw(or)?d|secret|token|credential|api[-_]?key|authorization", re.IGNORECASE)
_CREDENTIAL_ENTRIES = {
    "headers": re.compile(r"cookie|(^|-)auth(-|$)|access-?key", re.IGNORECASE),
    "env": re.compile(r"(^|_)(pass|pwd|auth)(_|$)|access_?key", re.IGNORECASE),
}
_HARMLESS = re.compile(r"\$\{(?:\w+|(?:file|cred):[^{}]*)\}")  # values that only name a secret
_FRAME = 72  # the maximum number of characters of a faulty line that are shown
_LEFT = 40  # the maximum number of these characters before the fault
_SECRET_NAME = re.compile(r"passw(or)?d|secret|token|credential|api[-_]?key|url", re.IGNORECASE)
# The match ends at the last `@`, because by mistake a password may contain any character. A quoted Redis URL may even
# contain a space.
_USERINFO = re.compile(r"((?<=[\"'])(?:rediss?|unix)[\w+]*://)[^\"']+@|(://)[^\s\"']+@")
_PATH = re.compile(r"(https?://[^/\s\"']+/)([^\s\"'{}]*)")
_CREDENTIAL = re.compile(r"[\w-]{16,}")
_MIXED = re.compile(r"(?<![\w-])(?=[\w-]{16})(?=[\w-]*[0-9])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]+")


class _Value(msgspec.Struct, frozen=True):
    """A value to hide, its replacement, and the scalar that contains the value."""

    text: str
    shown: str
    at: Scalar | None


class Concealment(msgspec.Struct):
    """The values to hide in messages."""

    _values: list[_Value] = msgspec.field(default_factory=list)
    secrets: list[Scalar] = msgspec.field(default_factory=list)
    """The values of secret fields."""
    root: Node | None = None
    """The whole configuration, after it is read."""
    _hidden: dict[tuple[Path, int], list[tuple[int, int]]] | None = None
    """The start and end columns of each secret, by file and line."""
    _searched: tuple[str, str] = ("", "")
    """The line that was searched for credentials last, and the line without them."""

    def add(self, text: str, shown: str = HIDDEN, at: Scalar | None = None) -> None:
        """Hide a value.

        `at` is the scalar that contains the value. A short value is hidden only in problems at this place (None:
        everywhere).
        """
        if text.strip():
            self._values.append(_Value(text, shown, at))

    def problem(self, problem: Problem, mark: Mark | None = None) -> Problem:
        """Return the problem without the values to hide. If the problem has no excerpt yet, add the line at `mark`."""
        hidden = {(value.text, value.shown): value for value in self._values if _concerns(value, problem.path)}
        near = sorted(hidden.values(), key=lambda value: len(value.text), reverse=True)
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
        """Return the line at a mark, and a second line with a caret below the mark. Secrets are replaced in the line.

        Returns None if the file has no such line, or if the line is blank.
        """
        line, caret = mark.file.line(mark.line), mark.column - 1
        if not line.strip() or caret > len(line):
            return None
        for begin, end in sorted(self._columns(mark), reverse=True):
            line = f"{line[:begin]}{HIDDEN}{line[end:]}"
            if caret > begin:
                caret = max(begin, caret - (end - begin) + len(HIDDEN))
        hidden = _without(self._without_credentials(line), near)
        # A replaced secret before the caret moves the text, so the caret must move too. If the text from the caret on
        # is unchanged, the caret keeps its distance from the end of the line. Otherwise it points to the first
        # character.
        if hidden[:caret] != line[:caret]:
            same = hidden.endswith(line[caret:])
            caret = len(hidden) - len(line) + caret if same else len(hidden) - len(hidden.lstrip())
        return _framed(hidden, caret)

    def _without_credentials(self, line: str) -> str:
        """Return `without_credentials(line)`, cached: a file of one line may have a thousand problems."""
        if self._searched[0] != line:
            self._searched = line, without_credentials(line)
        return self._searched[1]

    def _columns(self, mark: Mark) -> list[tuple[int, int]]:
        """Return the columns of the secrets in the line of a mark, counted from 0."""
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
        """Record the columns of a scalar in each of its lines."""
        file = scalar.mark.file
        place = scalar.end or Mark(file, scalar.mark.line, len(file.line(scalar.mark.line)) + 1)
        last, behind = place.line, place.column
        for number in range(scalar.mark.line, last + 1):
            begin = scalar.mark.column - 1 if number == scalar.mark.line else 0
            end = behind - 1 if number == last else len(file.line(number))
            if end > begin:
                hidden.setdefault((file.path, number), []).append((begin, end))


def _framed(line: str, caret: int) -> str:
    """Return the part of a line around the column `caret`, and a second line with a caret below this column."""
    line = line.rstrip()
    begin = max(0, min(caret - _LEFT, len(line) - _FRAME)) if len(line) > _FRAME else 0
    part = line[begin : begin + _FRAME]
    shown = "".join(sign if sign.isprintable() else " " if sign == "\t" else "?" for sign in part)
    if begin:
        shown = f"…{shown[1:]}"
    if begin + _FRAME < len(line):
        shown = f"{shown[:-1]}…"
    # A Chinese character is two columns wide, so the caret needs two spaces.
    before = sum(
        2 if east_asian_width(sign) in {"W", "F"} else 0 if combining(sign) else 1 for sign in shown[: caret - begin]
    )
    return f"{shown}\n{' ' * before}^"


def _concerns(value: _Value, path: str) -> bool:
    """Return whether a value is hidden in a problem at this path.

    A short value is hidden only in problems at, above or below its own path.
    """
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
    """Return a pattern that finds a secret in every encoding.

    If the secret is long, the pattern also finds its long words.
    """
    words = _WORD.findall(secret[:_SEARCHED]) if len(secret) >= SHORT else ()
    return re.compile("|".join(expressions({*forms_of(secret), *forms_of(unquote(secret)), *words})))


def _without_parts(text: str, secret: str, shown: str) -> str:
    """Return the text with `shown` in place of each substring of the secret with at least `_PART` characters."""
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
    """Return a line of YAML that can't be parsed, without anything that looks like a credential.

    `${…}` and templates stay.
    """
    line = _USERINFO.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", line)
    line = _PATH.sub(lambda found: found[1] + _CREDENTIAL.sub(HIDDEN, found[2]), line)
    line = _MIXED.sub(HIDDEN, line)
    if not _SECRET_PART.search(line):  # a quicker search, for long lines
        return line
    return _SECRET_KEY.sub(lambda found: found[0] if "{" in found[2] else f"{found[1]}{HIDDEN}", line)


def holds_a_secret(path: str) -> bool:
    """Return whether the last key of a path has the name of a secret, such as `X-Api-Key`."""
    return _SECRET_PART.search(path.rpartition(".")[2]) is not None


def is_credential_entry(path: str) -> bool:
    """Return whether a path leads to an HTTP header or a variable of `env` with the name of a credential."""
    above, _, name = path.rpartition(".")
    names = _CREDENTIAL_ENTRIES.get(above.rpartition(".")[2])
    return names is not None and (holds_a_secret(path) or names.search(name) is not None)


def may_be_secret(path: str) -> bool:
    """Return whether the last key of a path has the name of a possible secret. A URL may contain a secret too."""
    return _SECRET_NAME.search(path.rpartition(".")[2]) is not None
