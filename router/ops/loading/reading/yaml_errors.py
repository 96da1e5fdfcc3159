"""Explanations of YAML syntax errors, with the corrected line; floor 4.

The parser reports the place where it noticed the error, often some lines after the mistake. Each function of
`_EXPLANATIONS` recognises one common mistake (a `Slip`). The functions are tried in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec
import yaml
from yaml import Event, MarkedYAMLError, YAMLError

from router.ops.loading.reading import yaml_hints as hints
from router.ops.loading.reading.nodes import Mark, SourceFile
from router.ops.loading.reading.problems import Problems
from router.ops.loading.reading.yaml_hints import QUOTED, Slip, content_start, key_of, value_start, without_comment

BLOCK = "`>` and `|` begin a block of lines in YAML, and nothing may follow them on the same line; quote the value"
AFTER_QUOTE = "text follows the closing quote; put the whole value in the other kind of quotes"
NO_COMMA = "a comma is missing before `{}`; if the text is a single value, quote the whole value"
NO_COLON = "a key must be followed by `: ` (a colon and a space)"

_NO_COLON = re.compile(r"(\s*(?:- +)*)([A-Za-z_][\w.-]*)(?::?\u00a0+|\s*=\s*|\s+)(\S.*)")
_KEY_ALONE = re.compile(r"[a-z_][\w.-]*")
_NEXT_KEY = re.compile(r"[a-z_][\w.-]*(?=:(?:\s|$))")
_VALUE_THEN_KEY = re.compile(r"(?:^|[\s:,{])([^\s,:{}\[\]]+)(\s+)([a-z_][\w.-]*)$")
_MOST_JUDGED = 50  # the maximum number of corrections of one file that are parsed: each parses the whole file again
_ESCAPE = re.compile(r'\\(?:[^0abtnvfre "/\\N_LPxuU]|x(?![0-9A-Fa-f]{2})|u(?![0-9A-Fa-f]{4})|U(?![0-9A-Fa-f]{8}))')


Slips = list[tuple[Slip, str]]
"""Slips, each with the path of its key."""


class _Failure(msgspec.Struct, frozen=True):
    """The place where the parser stopped, and its message. Lines and columns count from 0."""

    lines: Sequence[str]
    line: int
    column: int
    begun: tuple[int, int] | None
    """The line and column at which the unfinished construct begins."""
    told: str

    @property
    def text(self) -> str:
        """The line where the parser stopped."""
        return self.lines[self.line]


def of_error(lines: Sequence[str], error: MarkedYAMLError) -> Slip:
    """Return the slip that explains a parser error, judged by the error's message and the lines around its place."""
    line, column = _place(lines, error.problem_mark or error.context_mark) or (0, 0)
    told = f"{error.context or ''} {error.problem or ''}"
    failure = _Failure(lines, line, column, _place(lines, error.context_mark), told)
    found = next(filter(None, (explain(failure) for explain in _EXPLANATIONS)), None)
    return found or Slip(line + 1, column + 1, _plainly(told))


def report(slips: Slips, lines: Sequence[str], file: SourceFile, problems: Problems) -> None:
    """Report slips with their paths. In `lines`, the slips with a certain correction (`sure`) are corrected already.

    A corrected line is shown if it can be parsed. If a line has several slips, the shown line has all of them
    corrected.
    """
    sound = Soundness(lines)
    for slip, path in slips:
        corrected = lines[slip.line - 1] if slip.sure else slip.corrected
        excerpt = hints.shown(corrected, indented=not slip.sure) if sound(slip.line - 1, corrected) else None
        problems.add(slip.message, Mark(file, slip.line, slip.column), path=path, excerpt=excerpt)


class Soundness:
    """The check whether corrected lines of one file can be parsed.

    In a file with many slips, only the first lines are checked.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._left = _MOST_JUDGED

    def __call__(self, number: int, corrected: str | None) -> bool:
        """Return whether the file is valid up to this corrected line (numbered from 0)."""
        if corrected is None:
            return False
        self._left -= 1
        return self._left >= 0 and _is_sound(self._lines, number, corrected)


def _is_sound(lines: Sequence[str], number: int, corrected: str) -> bool:
    """Return whether the corrected line with this number (from 0) can be parsed.

    A fault on a later line counts as a different fault. The exception is a bracket or quote that is open at this line.
    """
    text = "\n".join([*lines[:number], corrected, *lines[number + 1 :]])
    opened: list[int] = []  # the lines with brackets that are not closed yet
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_line_of(event) if event.flow_style else len(lines))
            elif isinstance(event, yaml.CollectionEndEvent):
                opened.pop()
    except MarkedYAMLError as error:
        if "quoted" in str(error.context):
            opened.append((_place(lines, error.context_mark) or (0, 0))[0])
        noticed = _place(lines, error.problem_mark) or (0, 0)
        return noticed[0] > number and min(opened, default=len(lines)) > number
    except (YAMLError, RecursionError):
        return False
    return True


def _line_of(event: Event) -> int:
    return event.start_mark.line if event.start_mark else 0


def _place(lines: Sequence[str], mark: object) -> tuple[int, int] | None:
    """Return the line and column of a parser's mark. A mark after the last line becomes the end of the last line."""
    if mark is None:
        return None
    line, column = getattr(mark, "line", 0), getattr(mark, "column", 0)
    return (line, column) if line < len(lines) else (len(lines) - 1, len(lines[-1]))


def _tab(failure: _Failure) -> Slip | None:
    lines = failure.lines
    tabbed = [number for number, text in enumerate(lines) if "\t" in hints.indent_of(text) and text.strip()]
    at = next((number for number in tabbed if failure.line - 1 <= number <= failure.line), None)
    if at is None:
        return None
    indent = hints.indent_of(lines[at])
    fixed = indent.replace("\t", "  ") + lines[at][len(indent) :]
    more = [str(number + 1) for number in tabbed if number != at]
    also = f" (also in line {', '.join(more[:10])})" if more else ""
    return Slip(at + 1, indent.index("\t") + 1, f"this is a tab, but YAML allows only spaces here{also}", fixed)


def _marked_value(failure: _Failure) -> Slip | None:
    """Return the slip of a value that needs quotes, or None.

    The value is on the faulty line, or on the line of the open bracket.
    """
    line = failure.line
    opened = failure.begun[0] if failure.begun and "flow" in failure.told else line
    for number in dict.fromkeys((line, opened)):
        inside = "{" if number != opened else ""
        text = failure.lines[number]
        for value in hints.values(text, inside):
            message = hints.explain(value)
            behind = not inside and not value.flow and number == line and value.start > failure.column
            if message is None or (message == hints.COLON and behind):
                continue
            is_list = message == hints.LIST
            fixed = None if is_list else hints.corrected(text, value.start, value.end)
            return Slip(number + 1, value.start + 1, message, fixed, sure=not is_list)
    return None


def _no_comma(failure: _Failure) -> Slip | None:
    """Return the slip of a missing comma before a key in braces, as in `{a: [x] b: y}`, or None."""
    text, column = failure.text, failure.column
    if "flow mapping" not in failure.told or "expected ',' or '}'" not in failure.told:
        return None
    above = hints.line_above(failure.lines, failure.line)
    opener = failure.lines[failure.begun[0]] if failure.begun else ""
    least = len(hints.indent_of(opener)) + (not opener.lstrip().startswith("{"))
    if len(hints.indent_of(text)) < least and text != opener:
        return None  # the key belongs to the outer mapping: the bracket is missing
    key_alone = text[:column].strip()
    if text[column : column + 1] == ":" and _KEY_ALONE.fullmatch(key_alone) and above is not None:
        return _no_comma_above(failure.lines[above], above, key_alone)
    glued = _VALUE_THEN_KEY.search(text[:column]) if text[column : column + 1] == ":" else None
    if glued:  # YAML reads value and key as one text, up to the colon
        begin, key = glued.start(3), glued[3]
    elif found := _NEXT_KEY.match(text, column):
        begin, key = column, found[0]
    else:
        return None
    end = len(text[:begin].rstrip())
    if not text[:end]:
        return None if above is None else _no_comma_above(failure.lines[above], above, key)
    if text[end - 1] in "{,:":
        return None
    fixed = f"{text[:end]}, {text[begin:]}"
    return Slip(failure.line + 1, begin + 1, NO_COMMA.format(key), fixed, sure=True)


def _no_comma_above(text: str, number: int, key: str) -> Slip | None:
    """Return the slip of a missing comma at the end of a line, before the key on the next line, or None."""
    end = len(without_comment(text))
    if text[end - 1] in "{[,:":
        return None
    return Slip(number + 1, end + 1, NO_COMMA.format(key), f"{text[:end]},{text[end:]}", sure=True)


def _block(failure: _Failure) -> Slip | None:
    """Return the slip of text after `>` or `|`, as in `> 100 orders`, or None.

    YAML expects this text on the next lines.
    """
    told = failure.told
    if "block scalar" not in told or "comment or line break" not in told or failure.begun is None:
        return None
    number, column = failure.begun
    text = failure.lines[number]
    fixed = hints.corrected(text, column, len(without_comment(text)))
    return Slip(number + 1, column + 1, BLOCK, fixed, sure=True)


def _spaces(failure: _Failure) -> Slip | None:
    """Return the slip of a missing space after `:` or `-`, on the faulty line or the line before, or None."""
    line = failure.line
    for number in dict.fromkeys((failure.begun[0] if failure.begun else line, line, line - 1)):
        if not 0 <= number <= line:
            continue
        fixed = hints.space_after_colon(failure.lines[number])
        if fixed and number >= line - 1:
            return Slip(number + 1, fixed.index(": ") + 1, hints.NO_SPACE, fixed, sure=True)
        fixed = hints.space_after_dash(failure.lines[number])
        if fixed and number == line:
            return Slip(number + 1, fixed.index("-") + 1, hints.NO_DASH_SPACE, fixed, sure=True)
    return None


def _no_colon(failure: _Failure) -> Slip | None:
    """Return the slip of a line that is not a `key: value`, or None.

    The parser notices such a line only on the next line.
    """
    lines, line, begun = failure.lines, failure.line, failure.begun
    if "could not find expected ':'" in failure.told and begun is not None:
        number = begun[0]
    elif "mapping values" in failure.told and (above := hints.line_above(lines, line)) is not None:
        number = above
    else:
        return None
    found = _NO_COLON.fullmatch(lines[number].rstrip())
    start = content_start(lines[number])
    if number != line and (begun is None or begun[0] != number):
        # This line has no key, and the line below has one in the same column.
        is_meant = found and start == content_start(lines[line]) and not key_of(lines[number])
        if not is_meant:
            return None
    fixed = f"{found[1]}{found[2]}: {found[3]}" if found else None
    return Slip(number + 1, start + 1, NO_COLON, fixed, sure=True)


def _escape(failure: _Failure) -> Slip | None:
    """Return the slip of a backslash in double quotes that is not an escape of YAML, or None."""
    told = failure.told
    if "quoted scalar" not in told or failure.begun is None or not ("escape" in told or "hexdecimal" in told):
        return None
    number, column = failure.begun
    text = failure.lines[number]
    whole = QUOTED.match(text, column)
    wrong = _ESCAPE.search(text, column)
    if not whole or not wrong:
        return None
    fixed = text[:column] + "'" + whole[0][1:-1].replace("'", "''") + "'" + text[whole.end() :]
    message = f"`{wrong[0][:2]}` is not an escape in double quotes; use single quotes, in which a backslash has no special meaning"
    return Slip(number + 1, wrong.start() + 1, message, fixed, sure=True)


def _open_quote(failure: _Failure) -> Slip | None:
    """Return the slip of a quote that is never closed, or None.

    The parser may notice the open quote only at the next quote.
    """
    lines, line = failure.lines, failure.line
    if "quoted scalar" in failure.told and failure.begun is not None:
        last, column = failure.begun
        first = next((number for number in range(last + 1) if hints.has_open_quote(lines[number])), last)
        column = column if first == last else value_start(lines[first])
    else:
        first = next((number for number in range(max(0, line - 20), line) if hints.has_open_quote(lines[number])), -1)
        if first < 0:
            return None
        column = value_start(lines[first])
    text = lines[first].rstrip()
    sign = text[column : column + 1]
    fixed = text + sign if hints.has_open_quote(text) else None
    return Slip(first + 1, column + 1, f"the quote {sign} that begins here is never closed", fixed)


def _after_quote(failure: _Failure) -> Slip | None:
    """Return the slip of text after a closing quote, as in `'it's'` or `"a" b`, or None."""
    text = without_comment(failure.text)
    start = value_start(text)
    found = QUOTED.match(text, start)
    if not found or not text[found.end() :].strip() or text[found.end()] == ":":
        return None
    whole = text[start:]
    # `"a "b" c"` is meant as one value; `"a" and "b"` is a string with quotes in it.
    around = whole[-1] == whole[0] and (whole.count(whole[0]) % 2 == 1 or not text[found.end()].isspace())
    fixed = text[:start] + hints.quote(whole[1:-1] if around else whole)
    return Slip(failure.line + 1, found.end() + 1, AFTER_QUOTE, fixed, sure=True)


def _quotes_in_brackets(failure: _Failure) -> Slip | None:
    """Return the slip of text after a closing quote in brackets, as in `{a: "{{ x | default("y") }}"}`, or None."""
    text, column = failure.text, failure.column
    first = next((found for found in QUOTED.finditer(text) if found.end() == column), None)
    if "flow" not in failure.told or first is None or text[column : column + 1].isspace():
        return None
    for found in re.finditer(first[0][0], text[column:]):
        end = column + found.end()
        inner = text[first.start() + 1 : end - 1]
        if inner.count("{{") == inner.count("}}") and re.match(r"\s*([,\]}]|$)", text[end:]):
            fixed = text[: first.start()] + hints.quote(inner) + text[end:]
            return Slip(failure.line + 1, column + 1, AFTER_QUOTE, fixed, sure=True)
    return None


def _open_bracket(failure: _Failure) -> Slip | None:
    lines, line = failure.lines, failure.line
    if "flow" not in failure.told or failure.begun is None:
        return None
    number, column = failure.begun
    if lines[number][column : column + 1] not in {"[", "{"}:
        number, column = hints.open_bracket(lines, number) or failure.begun
    opened, closing = ("{", "}") if lines[number][column : column + 1] == "{" else ("[", "]")
    text = lines[number].rstrip()
    bare = QUOTED.sub("", text)
    fixed = text + closing if bare.count(opened) == bare.count(closing) + 1 and number < line else None
    at_end = line == len(lines) - 1 and not lines[line]
    where = "" if number == line else "; noticed at the end of the file" if at_end else f"; noticed in line {line + 1}"
    message = f"the `{opened}` that begins here is not closed, or a comma is missing{where}"
    return Slip(number + 1, column + 1, message, fixed)


def _closed_twice(failure: _Failure) -> Slip | None:
    """Return the slip of a closing bracket without an opening bracket on the same line, or None."""
    text = failure.text.rstrip()
    bare = QUOTED.sub("", without_comment(text))
    for opened, closing in (("[", "]"), ("{", "}")):
        if bare.count(closing) > bare.count(opened):
            at = text.rindex(closing)
            message = f"this `{closing}` closes nothing; remove it"
            return Slip(failure.line + 1, at + 1, message, text[:at] + text[at + 1 :])
    return None


def _indentation(failure: _Failure) -> Slip | None:
    expected = ("mapping values", "expected key", "block collection", "block mapping")
    before = hints.line_above(failure.lines, failure.line)
    if before is None or not any(words in failure.told for words in expected):
        return None
    wanted = hints.indent_of(failure.lines[before])
    text = failure.text.lstrip()
    indent = len(failure.text) - len(text)
    if indent == len(wanted):
        return None
    message = f"wrong indentation: the indentation of this line is {indent}, which fits no line above; the indentation of line {before + 1} is {len(wanted)}"
    return Slip(failure.line + 1, indent + 1, message, wanted + text)


_EXPLANATIONS: tuple[Callable[[_Failure], Slip | None], ...] = (
    _tab,
    _no_comma,
    _marked_value,
    _block,
    _spaces,
    _no_colon,
    _escape,
    _open_quote,
    _after_quote,
    _quotes_in_brackets,
    _open_bracket,
    _closed_twice,
    _indentation,
)


def _plainly(told: str) -> str:
    """Return the message for a parser error that is not a common mistake."""
    if "expected '-' indicator" in told:
        return (
            "this is not YAML: a line of a list must begin with `- `; a key of a mapping needs a different indentation"
        )
    if "could not find expected ':'" in told:
        return "this is not YAML: a key must be followed by `: `"
    if "directive" in told:
        return "a line can't start with `%` in YAML"
    return f"this is not YAML: {told.strip()}"
