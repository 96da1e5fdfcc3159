"""Common YAML mistakes on one line, and their corrections; floor 4.

In YAML, some characters have a meaning, although people write them as text: `{{`, `*`, `@`, `!`, `: `, ` #`. These
functions find the intended value, and return the line with this value in quotes. `yaml_errors` uses the functions if
the parser fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from router.ops.loading.reading.concealing import without_credentials
from router.ops.loading.reading.nodes import child_path

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'')
_KEY = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'|[^\s\[\]{}"\'#&*!|>%@`,][^#:]*?)\s*:(?=[ \t]|$)')
_DASHES = re.compile(r"\s*(?:-\s+)*")
_COMMENT = re.compile(r"\s+#.*$")
_ATOM = re.compile(r"\{\{.*?\}\}|\$\{[^}]*\}")
_NO_SPACE = re.compile(r"(\s*(?:- +)*)([A-Za-z_][\w.-]*):([^\s:/][^:]*|[^\s:/].*)$")
_NO_DASH_SPACE = re.compile(r"(\s*)-([A-Za-z_{\[\"'][^\n]*)$")
_ALIAS = re.compile(r"\*[A-Za-z0-9_-]+$")
_ANCHOR = re.compile(r"&[A-Za-z0-9_-]+(\s|$)")

_STARTS = {
    "*": "a value that starts with `*` is an alias in YAML; quote it",
    "&": "a value that starts with `&` is an anchor in YAML; quote it",
    "!": "a value that starts with `!` is a tag in YAML; quote it",
    "@": "a value can't start with `@` in YAML; quote it",
    "`": "a value can't start with a backtick in YAML; quote it",
    "%": "a value can't start with `%` in YAML; quote it",
    ",": "a value can't start with `,` in YAML; quote it",
    "]": "a value can't start with `]` in YAML; quote it",
    "}": "a value can't start with `}` in YAML; quote it",
}
QUESTION = "`? ` begins a key in YAML; quote the value"
BRACES = "an unquoted `{{` begins a mapping in YAML; put the template in quotes"
EXPRESSION = "`${…}` must be quoted if it stands inside `{…}` or `[…]`"
COLON = "`: ` inside an unquoted value begins a mapping in YAML; quote the value"
BRACKETS = "a value that starts with `[` or `{` is a list or a mapping in YAML; quote it"
LIST = "a list can't begin on the line of its key; write each `- ` on its own line below the key, and indent it"
COMMENT = "` #` begins a comment in YAML, so the value ends before it; quote the value"
NO_SPACE = "a space is missing after `:`"
NO_DASH_SPACE = "a space is missing after `-`"


class Slip(msgspec.Struct, frozen=True):
    """A common mistake: its place (from 1), explanation, and corrected line.

    `sure` is True if the correction is certain, so that parsing can continue with the corrected line.
    """

    line: int
    column: int
    message: str
    corrected: str | None = None
    sure: bool = False


class SlipError(Exception):
    """Raised for a slip for which the parser has an unclear message."""

    def __init__(self, mark: Any, message: str, fixed: str) -> None:
        super().__init__(message)
        self.slip = Slip(mark.line + 1, mark.column + 1, message, fixed, sure=True)


class Value(msgspec.Struct, frozen=True):
    """An unquoted value on one line: its start and end (from 0), and whether it is inside `{…}` or `[…]`."""

    start: int
    end: int
    text: str
    flow: bool


def content_start(line: str) -> int:
    """Return the column after the indentation and dashes of a line."""
    return len(_DASHES.match(line)[0])  # type: ignore[index]  # the pattern also matches an empty string


def key_of(line: str) -> re.Match[str] | None:
    """Return the key at the beginning of a line, with its colon."""
    return _KEY.match(line, content_start(line))


def value_start(line: str) -> int:
    """Return the column of the value of a line."""
    key = key_of(line)
    start = key.end() if key else content_start(line)
    return start + len(line[start:]) - len(line[start:].lstrip())


def indent_of(line: str) -> str:
    """Return the spaces and tabs at the beginning of a line."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def without_comment(line: str) -> str:
    """Return a line without its comment and the white space at its end."""
    return _COMMENT.sub("", line).rstrip()


def quote(text: str) -> str:
    """Return the text as a quoted YAML scalar."""
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def values(line: str, flow: str = "") -> Iterator[Value]:
    """Yield the unquoted values of a line as the author meant them. A template is never split.

    `flow` are the brackets that are open at the beginning of the line.
    """
    if flow:
        yield from _flow(line, 0, flow)
        return
    start = value_start(line)
    if start >= len(line) or line[start] in "\"'|>":
        return
    if line[start] in "[{" and not line.startswith("{{", start):
        yield from _flow(line, start + 1, line[start])
        return
    text = line[start:].rstrip() if line[start] == "#" else without_comment(line[start:])
    yield Value(start, start + len(text), text, flow=False)


def _flow(line: str, at: int, stack: str) -> Iterator[Value]:
    """Yield the values inside brackets. `stack` has the open brackets."""
    value = not stack.endswith("{")  # in a mapping, a key comes first
    while at < len(line) and stack:
        sign = line[at]
        if sign in " \t":
            at += 1
        elif sign == ",":
            at, value = at + 1, not stack.endswith("{")
        elif sign in "]}":
            at, stack, value = at + 1, stack[:-1], True
        elif sign in "\"'":
            found = QUOTED.match(line, at)
            if not found:
                return
            at = found.end()
            if line[at : at + 1] == ":":
                at, value = at + 1, True
        elif sign in "[{" and not line.startswith("{{", at):
            at, stack = at + 1, stack + sign
            value = sign != "{"
        elif sign == "#" and line[at + 1 : at + 2] in {" ", ""}:
            return
        else:
            end, is_key = _piece(line, at, key=not value)
            if not is_key:
                text = line[at:end].rstrip()
                yield Value(at, at + len(text), text, flow=True)
            at, value = end + is_key, value or is_key


def _piece(line: str, at: int, *, key: bool) -> tuple[int, bool]:
    """Return the end of an unquoted piece inside brackets, and whether it is a key (it ends with `:`)."""
    while at < len(line):
        atom = _ATOM.match(line, at)
        if atom:
            at = atom.end()
        elif line[at] in ",]}":
            break
        elif key and line[at] == ":" and line[at + 1 : at + 2] in {" ", ""}:
            return at, True
        else:
            at += 1
    return at, False


def after_brackets(line: str, column: int) -> str | None:
    """Return the line with the whole value in quotes, if text follows the brackets that begin at `column` (from 0),
    else None.

    An example is `subject: [{{ event.channel }}] {{ payload.message }}`: YAML reads the beginning of the value as a
    list.
    """
    if line[column : column + 1] not in {"[", "{"}:  # after an anchor or a tag
        return None
    depth, at = 0, column
    while at < len(line):
        skipped = QUOTED.match(line, at) or _ATOM.match(line, at)
        if skipped and at > column:
            at = skipped.end()
            continue
        depth += (line[at] in "[{") - (line[at] in "]}")
        at += 1
        if depth == 0:
            break
    rest = line[at:]
    if depth or not rest.strip(" \t]}") or rest.lstrip()[0] in "#:" or line.startswith("{{", column):
        return None
    return corrected(line, column, len(without_comment(line)))


def explain(value: Value) -> str | None:
    """Return the reason why YAML misreads an unquoted value; None if YAML reads the value correctly."""
    text = value.text
    if text.startswith("{{") or (value.flow and "{{" in text):
        return BRACES
    if value.flow and "${" in text:
        return EXPRESSION
    if _ALIAS.match(text) or _ANCHOR.match(text):
        return None
    if text.startswith("- ") and not value.flow:
        return LIST
    if text[:1] in _STARTS:
        return _STARTS[text[0]]
    if text == "?" or text.startswith("? "):
        return QUESTION
    if ": " in text or text.endswith(":"):
        return COLON
    if text.startswith("#") or re.search(r"\s#\S", text):
        return COMMENT
    return None


def shown(line: str | None, *, indented: bool = False) -> str | None:
    """Return a corrected line for a message."""
    return None if line is None else f"write: {without_credentials(line if indented else line.strip())[:300]}"


def corrected(line: str, start: int, end: int) -> str:
    """Return the line with the part from `start` to `end` quoted."""
    return line[:start] + quote(line[start:end]) + line[end:]


def value_at(line: str, column: int, flow: str = "") -> Value | None:
    """Return the unquoted value that begins at a column (from 0)."""
    for opened in ("", flow or "{", "[") if "{" in line[:column] or "[" in line[:column] else (flow, "", "{", "["):
        found = next((value for value in values(line, opened) if value.start == column), None)
        if found:
            return found
    return None


def space_after_colon(line: str) -> str | None:
    """Return the line with the missing space after its `:`, or None."""
    found = _NO_SPACE.match(line)
    return f"{found[1]}{found[2]}: {found[3]}" if found else None


def space_after_key(line: str, column: int, key: str) -> str:
    """Return the line with the missing space after `:` of the key that begins at a column (from 0)."""
    return f"{line[:column]}{key}: {line[column + len(key) + 1 :]}"


def space_after_dash(line: str) -> str | None:
    """Return the line with the missing space after its `-`, or None."""
    found = _NO_DASH_SPACE.match(line)
    return f"{found[1]}- {found[2]}" if found else None


def says(text: str) -> bool:
    """Return whether a line contains anything except white space and a comment."""
    return text.lstrip()[:1] not in {"", "#"}


def line_above(lines: Sequence[str], line: int) -> int | None:
    """Return the nearest line above that is neither empty nor a comment; None if there is no such line."""
    return next((number for number in range(line - 1, -1, -1) if says(lines[number])), None)


def has_open_quote(text: str) -> bool:
    """Return whether the value of a line begins with a quote that is not closed in the line."""
    start = value_start(text)
    return text[start : start + 1] in {'"', "'"} and not QUOTED.match(text, start)


def open_bracket(lines: Sequence[str], line: int) -> tuple[int, int] | None:
    """Return the line and column of the innermost bracket that is open at the end of a line; None if none is open."""
    stack: list[tuple[int, int]] = []
    for number in range(line + 1):
        bare = QUOTED.sub(lambda found: "_" * len(found[0]), without_comment(lines[number]))
        for column, sign in enumerate(bare):
            if sign in "[{":
                stack.append((number, column))
            elif sign in "]}" and stack:
                stack.pop()
    return stack[-1] if stack else None


# The path of a slip is found from the lines alone, because the parser has failed at this place.


def path_at(lines: Sequence[str], line: int) -> str:
    """Return the path of the key on a line (from 0). The path is found by the indentation of the lines above."""
    parts: list[str | int] = []
    limit = 1e9
    for number in range(line, -1, -1):
        for column, part in reversed(_steps(lines[number])):
            if column >= (limit if part else int(limit)):
                continue
            if part is None:
                parts.append(_index(lines, number, column))
                limit = column + 0.5  # a list may have the same indentation as its key
            else:
                parts.append(part)
                limit = column
        if limit == 0:
            break
    path = ""
    for step in reversed(parts):
        path = child_path(path, step)
    return path


def _steps(line: str) -> list[tuple[int, str | None]]:
    """Return the dashes (as None) and the key at the beginning of a line, each with its column."""
    if line.lstrip().startswith("#"):
        return []
    start = content_start(line)
    steps: list[tuple[int, str | None]] = [(at, None) for at in range(start) if line[at] == "-"]
    key = key_of(line)
    if key:
        steps.append((start, key[0][:-1].strip().strip("\"'")))
    return steps


def _index(lines: Sequence[str], line: int, column: int) -> int:
    """Return the number of items before a dash in the same list."""
    count = 0
    for number in range(line - 1, -1, -1):
        text = lines[number]
        if not says(text):
            continue
        indent = len(text) - len(text.lstrip())
        if indent < column or (indent == column and text[column] != "-"):
            break
        count += indent == column
    return count
