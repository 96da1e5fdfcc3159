"""Explanations of invalid JSON for producers, with line and column; pure.

The decoder of the hot path reports the place and cause of only a few faults. `find` reads a rejected message again with
the parser of the standard library, which reports exact places.

The explanations quote nothing from the message except words of a fixed list (`NaN`, `None`), so they are safe to log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from math import isinf
from typing import NamedTuple, NoReturn

MOST_BYTES = 256 * 1024
"""The size, in bytes, of the largest message that is parsed again. Parsing blocks the event loop: for at most 20 ms
with this limit.
"""

MOST_DIGITS = 4300
"""The largest number of digits of an integer that the decoder accepts."""

_LONGEST_NUMBER = 40  # the number of characters before a place that are searched for the beginning of a number
_MOST_TOKENS = 20_000  # the number of tokens that are searched for a literal

_NO_JSON = {
    "nan": "send null or a number",
    "infinity": "send null or a number",
    "inf": "send null or a number",
    "none": "write null",
    "nil": "write null",
    "null": "write null",
    "true": "write true",
    "false": "write false",
    "undefined": "send null, or omit the key",
}
_COMPLETE = ("true", "false", "null")
_WORD = re.compile(r"-?[A-Za-z_]\w*")
_NUMBER = re.compile(r"[-+\w.]*\Z")
_CUT_SHORT = re.compile(r"\d+(?:\.|(?:\.\d+)?[eE])")
# Python before 3.11.5 matches `(?:a|b)*+` wrongly (CPython issue 106052), so a possessive group has only an atomic group in
# it. `(?>(?:a|b)*)` would be right too, but needs memory for each match: 120 MiB for a text of 1 MiB.
_TOKEN = re.compile(r'"(?:(?>[^"\\]++|\\.))*+"|-?[A-Za-z0-9][\w.+-]*')
# Half a character: a high surrogate without a low surrogate after it, or a low surrogate alone. An even number of
# backslashes before a `u` are escaped backslashes, and the `u` is then an ordinary letter.
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = re.compile(rf"(?:(?>[^\\]++|{_PAIR}|\\(?!u[dD][89a-fA-F]).))*+(?=\\u)", re.DOTALL)
_COMPRESSED = b"\x1f\x8b"
_BOM = "\ufeff"
_TYPOGRAPHIC = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"

_AS_VALUE = {
    "'": "a string must be in double quotes, not in single quotes",
    "`": "a string must be in double quotes",
    "+": "a number can't begin with `+`",
    ".": "a number must begin with a digit, such as 0.5",
    "-": "a digit must follow the `-`",
    "(": "a list must be in square brackets, not in round brackets",
    ",": "a value is missing before this comma",
    "}": "a value is missing before this `}`",
    "]": "a value is missing before this `]`",
    "<": "this is XML or HTML, not JSON",
}


class Fault(NamedTuple):
    """The first fault of a message: its cause, and its line and column if known, counted from 1 in characters."""

    cause: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.cause if self.line is None else f"{self.cause}, at line {self.line}, column {self.column}"


class _RefusedError(Exception):
    """A number or a constant that JSON, or the decoder, does not accept."""

    def __init__(self, literal: str, cause: str) -> None:
        super().__init__(cause)
        self.literal = literal
        self.cause = cause


def find(raw: bytes) -> Fault | None:
    """Return the fault of invalid JSON; None if the fault is not found, or if the message is longer than
    `MOST_BYTES`.
    """
    if len(raw) > MOST_BYTES:
        return None
    if not raw.strip():
        return Fault("the payload contains only white space" if raw else "the payload is empty")
    if raw.startswith(_COMPRESSED):
        return Fault("the payload is compressed (gzip); send it uncompressed")
    encoding = json.detect_encoding(raw)
    if encoding.startswith(("utf-16", "utf-32")):
        return Fault(f"the payload is {encoding[:6].upper()}; send it as UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return not_utf8(raw, error)
    return find_in_text(text)


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> Fault:
    """Return the fault of invalid UTF-8. `error` is the error that `raw.decode()` raised."""
    before = raw[: error.start].decode()
    cause = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
    return _placed(cause, before, len(before))


def find_in_text(text: str) -> Fault | None:
    """Return the fault of a string that is invalid JSON; None if the fault is not found."""
    if text.startswith(_BOM):
        return _placed("there is a byte order mark (BOM) before the JSON; send the JSON without it", text, 0)
    try:
        json.loads(text, parse_constant=_no_constant, parse_float=_number, parse_int=_integer)
    except json.JSONDecodeError as error:
        return _placed(*_explained(error.msg, text, error.pos))
    except _RefusedError as error:
        at = _place_of(error.literal, text)
        return Fault(error.cause) if at is None else _placed(error.cause, text, at)
    except (ValueError, RecursionError):
        return None
    half = _HALF.match(text)
    if half is None:
        return None
    return _placed(
        "this is half of a surrogate pair: was the text cut inside an emoji?",
        text,
        half.end(),
    )


def _placed(cause: str, text: str, at: int) -> Fault:
    return Fault(cause, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _no_constant(literal: str) -> NoReturn:
    raise _RefusedError(literal, f"{literal} is not JSON: {_NO_JSON['nan']}")


def _number(literal: str) -> None:
    if isinf(float(literal)):
        raise _RefusedError(literal, "this number is too large: the largest is 1.8e308")


def _integer(literal: str) -> None:
    if len(literal.removeprefix("-")) > MOST_DIGITS:
        raise _RefusedError(literal, f"this number is too long: an integer can have at most {MOST_DIGITS} digits")


def _place_of(literal: str, text: str) -> int | None:
    """Return the index of a number or word outside of strings; None if it is not among the first `_MOST_TOKENS`
    tokens.
    """
    tokens = islice(_TOKEN.finditer(text), _MOST_TOKENS)
    return next((token.start() for token in tokens if token[0] == literal), None)


def _explained(said: str, text: str, at: int) -> tuple[str, str, int]:
    """Return the cause, the text and the place of a fault.

    `said` is the message of the standard library's parser, and `at` the index that it reports.
    """
    sign = text[at : at + 1]
    if said.startswith("Unterminated string"):
        return 'the closing `"` of this string is missing', text, at
    if said.startswith("Invalid control character"):
        return _control(sign), text, at
    if said.startswith("Invalid \\"):
        # The parser reports the index of the escape's backslash. For `\\uXXXX`, some Python versions report the index
        # of the `u`.
        return (
            "this is not an escape of JSON; write a backslash in a string as `\\\\`",
            text,
            text.rfind("\\", 0, at + 1),
        )
    rest = text[at:].strip()
    if not rest or any(word.startswith(rest) for word in _COMPLETE):
        return "the JSON ends too early", text, len(text.rstrip())
    if text.startswith(("//", "/*", "#"), at):
        return "JSON has no comments", text, at
    comma = _trailing_comma(text, at)
    if comma is not None:
        return "there is a comma after the last entry", text, comma
    if sign < " " and not sign.isspace():
        return _control(sign), text, at
    begun = _begun(text, at)
    if begun and _continues_word(sign):
        return _no_number(begun.lstrip("-") + sign), text, at - len(begun)
    explain = next(explain for beginning, explain in _EXPLANATIONS.items() if said.startswith(beginning))
    return explain(text, at), text, at


def _begun(text: str, at: int) -> str:
    """Return the number that ends just before a place; an empty string if no number ends there.

    Of a long number, only the end is returned.
    """
    found = _NUMBER.search(text[max(at - _LONGEST_NUMBER, 0) : at])
    return found[0] if found and found[0][-1:].isdigit() and (found[0][0] == "-" or found[0][0].isdigit()) else ""


def _continues_word(sign: str) -> bool:
    return sign in {".", "_"} or sign.isalnum()


def _trailing_comma(text: str, at: int) -> int | None:
    """Return the index of a comma that is followed by a closing bracket, or None.

    Python 3.13 reports the place of the comma, older versions the place of the bracket.
    """
    if text[at] == ",":
        return (
            at if text[at + 1 :].lstrip()[:1] in ("}", "]") and _before(text, at) not in ("[", "{", ",", ":") else None
        )
    if text[at] not in "}]":
        return None
    comma = len(text[:at].rstrip()) - 1
    return comma if comma >= 0 and text[comma] == "," else None


def _before(text: str, at: int) -> str:
    return text[:at].rstrip()[-1:]


def _control(sign: str) -> str:
    short = {"\n": "write a line break in a string as \\n", "\t": "write a tab in a string as \\t"}
    return short.get(sign, f"write this control character in a string as \\u{ord(sign):04x}")


def _no_number(digits: str) -> str:
    if "_" in digits:
        return "a number can't contain `_`"
    if digits[:1] == "0" and digits[1:2].isdigit():
        return "a number can't have leading zeros"
    if digits[:2].lower() in {"0x", "0o", "0b"}:
        return "a number must be decimal"
    if _CUT_SHORT.fullmatch(digits):
        return "digits are missing at the end of this number"
    return "this is not a number"


def _value(text: str, at: int) -> str:
    """Return why there is no value at this place."""
    sign = text[at]
    if sign in _TYPOGRAPHIC:
        return 'typographic quotes are not JSON: write `"`'
    word = _WORD.match(text, at)
    if word is not None:
        known = word[0].lstrip("-").lower()
        if known in _NO_JSON:
            return f"{word[0]} is not JSON: {_NO_JSON[known]}"
        if sign != "-":
            return "a string must be in double quotes"
    return _AS_VALUE.get(sign, _between(sign) or "no value can begin with this character")


def _key(text: str, at: int) -> str:
    """Return why there is no key at this place."""
    sign = text[at]
    if sign in _TYPOGRAPHIC:
        return 'typographic quotes are not JSON: write `"`'
    if sign == ",":
        return "a key is missing before this comma"
    return _between(sign) or ("a key is expected here" if sign in "]}[{:" else "a key must be in double quotes")


def _between(sign: str) -> str | None:
    return (
        "this white space is not allowed; between values, JSON allows only spaces, tabs and line breaks"
        if sign.isspace()
        else None
    )


def _colon(_text: str, _at: int) -> str:
    return "a `:` is missing between the key and its value"


def _comma(text: str, at: int) -> str:
    sign = text[at]
    if sign in "]}":
        return f"this `{sign}` does not match the bracket that is open"
    if _before(text, at) == '"' and sign != '"' and _continues_word(sign):
        return 'a `,` is missing before this; if this is still part of the string, write the `"` before it as `\\"`'
    return "a `,` is missing before this"


def _extra(text: str, at: int) -> str:
    sign = text[at]
    if sign in "]}":
        return f"this `{sign}` closes nothing"
    if sign in '{["':
        return "a second JSON value begins here: send each value in a separate message"
    return "there is text after the end of the JSON value"


_EXPLANATIONS: Mapping[str, Callable[[str, int], str]] = {
    "Expecting property name": _key,
    "Expecting ':'": _colon,
    "Expecting ','": _comma,
    "Extra data": _extra,
    "": _value,
}
"""The functions that explain a fault, by the beginning of the parser's message."""
