"""YAML's usual slips, explained and corrected; floor 4.

YAML gives a meaning of its own to signs that people write as text: `{{`, `*`, `@`, `!`, `: `, ` #`. Where the parser
gives up, or silently reads something else, these functions find the value that was meant and print the line with that
value quoted. They look at one line at a time: a slip is nearly always on one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yaml import MarkedYAMLError

from router.ops.loading.reading.nodes import child_path

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'')
_KEY = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'|[^\s\[\]{}"\'#&*!|>%@`,][^#:]*?)\s*:(?=[ \t]|$)')
_DASHES = re.compile(r"\s*(?:-\s+)*")
_COMMENT = re.compile(r"\s+#.*$")
_ATOM = re.compile(r"\{\{.*?\}\}|\$\{[^}]*\}")
_NO_SPACE = re.compile(r"(\s*(?:- +)*)([A-Za-z_][\w.-]*):([^\s:/][^:]*|[^\s:/].*)$")
_NO_DASH_SPACE = re.compile(r"(\s*)-([A-Za-z_{\[\"'][^\n]*)$")
_ALIAS = re.compile(r"\*[A-Za-z0-9_-]+$")
_ANCHOR = re.compile(r"&[A-Za-z0-9_-]+(\s|$)")
_INDENT = re.compile(r"[ \t]*")
_NO_COLON = re.compile(r"(\s*(?:- +)*)([A-Za-z_][\w.-]*)(?::?\u00a0+|\s*=\s*|\s+)(\S.*)")
_ESCAPE = re.compile(r'\\(?:[^0abtnvfre "/\\N_LPxuU]|x(?![0-9A-Fa-f]{2})|u(?![0-9A-Fa-f]{4})|U(?![0-9A-Fa-f]{8}))')

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
BLOCK = "`>` and `|` begin a block of lines in YAML, and nothing may follow them on theirs; quote the value"
BRACES = "`{{` unquoted begins a mapping in YAML; put the template in quotes"
EXPRESSION = "inside `{…}` or `[…]`, `${…}` must be quoted"
COLON = "`: ` inside an unquoted value begins a mapping in YAML; quote the value"
BRACKETS = "a value that starts with `[` or `{` is a list or a mapping in YAML; quote it"
LIST = "a list can't begin on the line of its key; write each `- ` on a line of its own below, indented"
COMMENT = "` #` begins a comment in YAML, so the value ends before it; quote the value"
NO_SPACE = "a space is missing after `:`"
NO_DASH_SPACE = "a space is missing after `-`"
AFTER_QUOTE = "there is text after the closing quote; quote the whole value, with the other kind of quotes"
NO_COLON = "after a key comes `: `, a colon and a space"


@dataclass(frozen=True, slots=True)
class Slip:
    """What went wrong: place (from 1), explanation, the corrected line; `sure` when parsing may go on with that line."""

    line: int
    column: int
    message: str
    corrected: str | None = None
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """An unquoted value on one line: where it begins and ends (from 0), and whether it stands inside `{…}` or `[…]`."""

    start: int
    end: int
    text: str
    flow: bool


def path_at(lines: Sequence[str], line: int) -> str:
    """The path of the key on a line (from 0), read off the indentation: the parser has given up there."""
    parts: list[str | int] = []
    limit = 1e9
    for number in range(line, -1, -1):
        for column, part in reversed(_steps(lines[number])):
            if column >= (limit if part else int(limit)):
                continue
            if part is None:
                parts.append(_index(lines, number, column))
                limit = column + 0.5  # a list may stand as far left as its key
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
    """The dashes (None) and the key that a line begins with, each with its column."""
    if line.lstrip().startswith("#"):
        return []
    found = _DASHES.match(line)
    start = found.end() if found else 0
    steps: list[tuple[int, str | None]] = [(at, None) for at in range(start) if line[at] == "-"]
    key = _KEY.match(line, start)
    if key:
        steps.append((start, key[0][:-1].strip().strip("\"'")))
    return steps


def _index(lines: Sequence[str], line: int, column: int) -> int:
    """How many entries of the list stand before the dash."""
    count = 0
    for number in range(line - 1, -1, -1):
        text = lines[number]
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        indent = len(text) - len(text.lstrip())
        if indent < column or (indent == column and text[column] != "-"):
            break
        count += indent == column
    return count


def quote(text: str) -> str:
    """The text as a quoted YAML scalar."""
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def values(line: str, flow: str = "") -> Iterator[Value]:
    """The unquoted values of a line as they were meant, templates in one piece.

    `flow` are the brackets that are open where the line begins.
    """
    if flow:
        yield from _flow(line, 0, flow)
        return
    found = _DASHES.match(line)
    start = found.end() if found else 0
    key = _KEY.match(line, start)
    if key:
        start = key.end() + len(line[key.end() :]) - len(line[key.end() :].lstrip())
    if start >= len(line) or line[start] in "\"'|>":
        return
    if line[start] in "[{" and not line.startswith("{{", start):
        yield from _flow(line, start + 1, line[start])
        return
    text = line[start:] if line[start] == "#" else _COMMENT.sub("", line[start:])
    yield Value(start, start + len(text.rstrip()), text.rstrip(), flow=False)


def _flow(line: str, at: int, stack: str) -> Iterator[Value]:
    """The values inside brackets; `stack` holds those that are open."""
    value = not stack.endswith("{")  # in a mapping a key comes first
    while at < len(line) and stack:
        sign = line[at]
        if sign in " \t":
            at += 1
        elif sign == ",":
            at, value = at + 1, not stack.endswith("{")
        elif sign in "]}":
            at, stack, value = at + 1, stack[:-1], True
        elif sign in "\"'":
            found = _QUOTED.match(line, at)
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
    """The end of an unquoted piece inside brackets, and whether it is a key (its `:` stands at the end)."""
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
    """The line with the whole value quoted, where text follows the bracket that closes the one at a column (from 0).

    `subject: [{{ event.channel }}] {{ payload.message }}`: YAML takes the beginning for a list.
    """
    if line[column : column + 1] not in {"[", "{"}:  # an anchor or a tag comes first
        return None
    depth, at = 0, column
    while at < len(line):
        skipped = _QUOTED.match(line, at) or _ATOM.match(line, at)
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
    return corrected(line, column, len(_COMMENT.sub("", line).rstrip()))


def explain(value: Value) -> str | None:
    """Why an unquoted value is not read as meant, or None when nothing is wrong with it."""
    text = value.text
    if text.startswith("{{") or (value.flow and "{{" in text):
        return BRACES
    if value.flow and "${" in text:
        return EXPRESSION
    if text[:1] == "*" and _ALIAS.match(text):
        return None
    if text[:1] == "&" and _ANCHOR.match(text):
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


def corrected(line: str, start: int, end: int) -> str:
    """The line with the part from `start` to `end` quoted."""
    return line[:start] + quote(line[start:end]) + line[end:]


def value_at(line: str, column: int, flow: str = "") -> Value | None:
    """The unquoted value that begins at a column (from 0)."""
    for opened in ("", flow or "{", "[") if "{" in line[:column] or "[" in line[:column] else (flow, "", "{", "["):
        found = next((value for value in values(line, opened) if value.start == column), None)
        if found:
            return found
    return None


def space_after_colon(line: str) -> str | None:
    """The line with the space that is missing after its `:`, None when none is missing."""
    found = _NO_SPACE.match(line)
    return f"{found[1]}{found[2]}: {found[3]}" if found else None


def space_after_dash(line: str) -> str | None:
    """The line with the space that is missing after its `-`, None when none is missing."""
    found = _NO_DASH_SPACE.match(line)
    return f"{found[1]}- {found[2]}" if found else None


def of_error(lines: Sequence[str], error: MarkedYAMLError) -> Slip:
    """What the operator did, from what the parser says and the lines around."""
    line, column = _place(lines, error.problem_mark or error.context_mark) or (0, 0)
    context = _place(lines, error.context_mark)
    told = f"{error.context or ''} {error.problem or ''}"
    return (
        _tab(lines, line)
        or _marked_value(lines, line, column, context[0] if context and "flow" in told else None)
        or _block(lines, context, told)
        or _spaces(lines, line, context[0] if context else line)
        or _no_colon(lines, line, context, told)
        or _escape(lines, context, told)
        or _open_quote(lines, line, context, told)
        or _after_quote(lines, line)
        or _quotes_in_brackets(lines[line], line, column, told)
        or _open_bracket(lines, line, context, told)
        or _closed_twice(lines, line)
        or _indentation(lines, line, told)
        or Slip(line + 1, column + 1, _plainly(told))
    )


def _place(lines: Sequence[str], mark: object) -> tuple[int, int] | None:
    """Line and column of a parser's mark, which may lie behind the end."""
    if mark is None:
        return None
    line, column = getattr(mark, "line", 0), getattr(mark, "column", 0)
    return (line, column) if line < len(lines) else (len(lines) - 1, len(lines[-1]))


def _tab(lines: Sequence[str], line: int) -> Slip | None:
    tabbed = [number for number, text in enumerate(lines) if "\t" in (_INDENT.match(text) or [""])[0] and text.strip()]
    near = [number for number in tabbed if line - 1 <= number <= line]
    if not near:
        return None
    text = lines[near[0]]
    indent = (_INDENT.match(text) or [""])[0]
    fixed = indent.replace("\t", "  ") + text[len(indent) :]
    more = [str(number + 1) for number in tabbed if number != near[0]]
    also = f" (also in line {', '.join(more[:10])})" if more else ""
    return Slip(near[0] + 1, indent.index("\t") + 1, f"YAML is indented with spaces, and this is a tab{also}", fixed)


def _marked_value(lines: Sequence[str], line: int, column: int, opened: int | None) -> Slip | None:
    """A value on the line, or on the line where the bracket was opened, that needs quotes."""
    for number in dict.fromkeys((line, line if opened is None else opened)):
        inside = "{" if opened is not None and number != opened else ""
        for value in values(lines[number], inside):
            message = explain(value)
            if message == COLON and not inside and not value.flow and number == line and value.start > column:
                continue
            if message == LIST:
                return Slip(number + 1, value.start + 1, message)
            if message:
                fixed = corrected(lines[number], value.start, value.end)
                return Slip(number + 1, value.start + 1, message, fixed, sure=True)
    return None


def _spaces(lines: Sequence[str], line: int, context: int) -> Slip | None:
    """A missing space after `:` or `-`, on the line or the one before."""
    for number in dict.fromkeys((context, line, line - 1)):
        if not 0 <= number < len(lines) or number > line:
            continue
        fixed = space_after_colon(lines[number])
        if fixed and number >= line - 1:
            return Slip(number + 1, fixed.index(": ") + 1, NO_SPACE, fixed, sure=True)
        fixed = space_after_dash(lines[number])
        if fixed and number == line:
            return Slip(number + 1, fixed.index("-") + 1, NO_DASH_SPACE, fixed, sure=True)
    return None


def _block(lines: Sequence[str], context: tuple[int, int] | None, told: str) -> Slip | None:
    """`> 100 orders`, `| hello`: YAML expects nothing behind the sign but lines below."""
    if "block scalar" not in told or "comment or line break" not in told or context is None:
        return None
    number, column = context
    fixed = corrected(lines[number], column, len(_COMMENT.sub("", lines[number]).rstrip()))
    return Slip(number + 1, column + 1, BLOCK, fixed, sure=True)


def _no_colon(lines: Sequence[str], line: int, context: tuple[int, int] | None, told: str) -> Slip | None:
    """A line that is no `key: value`; the parser notices on the next one."""
    if "could not find expected ':'" in told and context is not None:
        number = context[0]
    elif "mapping values" in told and (above := _line_above(lines, line)) is not None:
        number = above
    else:
        return None
    found = _NO_COLON.fullmatch(lines[number].rstrip())
    if number != line and (context is None or context[0] != number) and not (found and _alike(lines, number, line)):
        return None
    fixed = f"{found[1]}{found[2]}: {found[3]}" if found else None
    return Slip(number + 1, _key_start(lines[number]) + 1, NO_COLON, fixed, sure=True)


def _line_above(lines: Sequence[str], line: int) -> int | None:
    """The nearest line above that says something."""
    says = (n for n in range(line - 1, -1, -1) if lines[n].strip() and not lines[n].lstrip().startswith("#"))
    return next(says, None)


def _key_start(text: str) -> int:
    found = _DASHES.match(text)
    return found.end() if found else 0


def _alike(lines: Sequence[str], first: int, second: int) -> bool:
    """Whether the second line has a key, where the first, which has none, should have one."""
    start = _key_start(lines[first])
    return start == _key_start(lines[second]) and not _KEY.match(lines[first], start)


def _escape(lines: Sequence[str], context: tuple[int, int] | None, told: str) -> Slip | None:
    """A backslash in double quotes that begins no escape of YAML's."""
    if "quoted scalar" not in told or context is None or not ("escape" in told or "hexdecimal" in told):
        return None
    number, column = context
    text = lines[number]
    whole = _QUOTED.match(text, column)
    wrong = _ESCAPE.search(text, column)
    if not whole or not wrong:
        return None
    fixed = text[:column] + "'" + whole[0][1:-1].replace("'", "''") + "'" + text[whole.end() :]
    message = f"`{wrong[0][:2]}` is no escape in double quotes; in single quotes a backslash is a backslash"
    return Slip(number + 1, wrong.start() + 1, message, fixed, sure=True)


def _value_start(text: str) -> int:
    """Where the value of a line begins (from 0)."""
    found = _DASHES.match(text)
    start = found.end() if found else 0
    key = _KEY.match(text, start)
    if key:
        start = key.end()
    return start + len(text[start:]) - len(text[start:].lstrip())


def _open_quote(lines: Sequence[str], line: int, context: tuple[int, int] | None, told: str) -> Slip | None:
    """A quote that is never closed; the parser may notice only lines later, where the next one is opened."""
    if "quoted scalar" in told and context is not None:
        number, column = context
        first = next((n for n in range(number + 1) if _opens(lines[n])), number)
        return _quote_slip(lines, first, column if first == number else _value_start(lines[first]))
    first = next((n for n in range(max(0, line - 20), line + 1) if n < line and _opens(lines[n])), -1)
    return _quote_slip(lines, first, _value_start(lines[first])) if first >= 0 else None


def _opens(text: str) -> bool:
    start = _value_start(text)
    return text[start : start + 1] in {'"', "'"} and not _QUOTED.match(text, start)


def _quote_slip(lines: Sequence[str], number: int, column: int) -> Slip:
    text = lines[number].rstrip()
    sign = text[column : column + 1]
    fixed = text + sign if _opens(text) else None
    return Slip(number + 1, column + 1, f"the quote {sign} that is opened here is never closed", fixed)


def _after_quote(lines: Sequence[str], line: int) -> Slip | None:
    """Text after a closing quote: `'it's'`, `"a" b`."""
    text = _COMMENT.sub("", lines[line]).rstrip()
    start = _value_start(text)
    found = _QUOTED.match(text, start)
    if not found or not text[found.end() :].strip() or text[found.end()] == ":":
        return None
    whole = text[start:]
    # `"a "b" c"` was to be one value, `"a" and "b"` has quotes of its own.
    around = whole[-1] == whole[0] and (whole.count(whole[0]) % 2 == 1 or not text[found.end()].isspace())
    fixed = text[:start] + quote(whole[1:-1] if around else whole)
    return Slip(line + 1, found.end() + 1, AFTER_QUOTE, fixed, sure=True)


def _quotes_in_brackets(text: str, line: int, column: int, told: str) -> Slip | None:
    """The same inside `{…}` or `[…]`: `{text: "{{ payload.name | default("you") }}"}`."""
    first = next((found for found in _QUOTED.finditer(text) if found.end() == column), None)
    if "flow" not in told or first is None or text[column : column + 1].isspace():
        return None
    for found in re.finditer(first[0][0], text[column:]):
        end = column + found.end()
        inner = text[first.start() + 1 : end - 1]
        if inner.count("{{") == inner.count("}}") and re.match(r"\s*([,\]}]|$)", text[end:]):
            fixed = text[: first.start()] + quote(inner) + text[end:]
            return Slip(line + 1, column + 1, AFTER_QUOTE, fixed, sure=True)
    return None


def _open_bracket(lines: Sequence[str], line: int, context: tuple[int, int] | None, told: str) -> Slip | None:
    if "flow" not in told or context is None:
        return None
    number, column = context
    if lines[number][column : column + 1] not in {"[", "{"}:
        number, column = _last_opened(lines, number) or context
    opened, closing = ("{", "}") if lines[number][column : column + 1] == "{" else ("[", "]")
    text = lines[number].rstrip()
    bare = _QUOTED.sub("", text)
    fixed = text + closing if bare.count(opened) == bare.count(closing) + 1 and number < line else None
    at_end = line == len(lines) - 1 and not lines[line]
    where = "" if number == line else ", noticed at the end of the file" if at_end else f", noticed in line {line + 1}"
    message = f"the `{opened}` that is opened here is not closed, or a comma is missing{where}"
    return Slip(number + 1, column + 1, message, fixed)


def _last_opened(lines: Sequence[str], line: int) -> tuple[int, int] | None:
    """Where the innermost bracket begins that is open at the end of a line."""
    stack: list[tuple[int, int]] = []
    for number in range(line + 1):
        bare = _QUOTED.sub(lambda found: "_" * len(found[0]), _COMMENT.sub("", lines[number]))
        for column, sign in enumerate(bare):
            if sign in "[{":
                stack.append((number, column))
            elif sign in "]}" and stack:
                stack.pop()
    return stack[-1] if stack else None


def _closed_twice(lines: Sequence[str], line: int) -> Slip | None:
    """A bracket that is closed once more than it is opened on the line."""
    text = lines[line].rstrip()
    bare = _QUOTED.sub("", _COMMENT.sub("", text))
    for opened, closing in (("[", "]"), ("{", "}")):
        if bare.count(closing) > bare.count(opened):
            at = text.rindex(closing)
            return Slip(line + 1, at + 1, f"there is one `{closing}` too many", text[:at] + text[at + 1 :])
    return None


def _indentation(lines: Sequence[str], line: int, told: str) -> Slip | None:
    if not any(words in told for words in ("mapping values", "expected key", "block collection", "block mapping")):
        return None
    before = _line_above(lines, line)
    if before is None:
        return None
    wanted = (_INDENT.match(lines[before]) or [""])[0]
    text = lines[line].lstrip()
    indent = len(lines[line]) - len(text)
    if indent == len(wanted):
        return None
    message = f"wrong indentation: {indent} spaces here fit no line above; line {before + 1} has {len(wanted)}"
    return Slip(line + 1, indent + 1, message, wanted + text)


def _plainly(told: str) -> str:
    if "expected '-' indicator" in told:
        return "this is not YAML: a list goes on with `- `, a mapping can't begin inside it"
    if "could not find expected ':'" in told:
        return "this is not YAML: a key needs `: ` after it"
    if "directive" in told:
        return "a line can't start with `%` in YAML"
    return f"this is not YAML: {told.strip()}"
