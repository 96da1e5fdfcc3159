"""Text from outside made safe to show, and cut to a length; floor 0, imports no other module of ours.

Every line for people and every line of JSON goes through one of the functions here.
"""

from __future__ import annotations

import re

# Control characters steer a terminal (a tab is harmless), U+2028 and U+2029 end a line in some programs, and U+061C, U+200E,
# U+200F, U+202A-U+202E and U+2066-U+2069 turn the direction of the text around (UAX #9). Half a surrogate can't be printed.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_NEWLINE = re.compile(_UNSAFE.pattern.replace("\x0a-\x1f", "\x0b-\x1f"))
_SHORT = {"\n": "\\n", "\r": "\\r"}
# The same in the UTF-8 of JSON, where no control character below a space can stand.
# By their first byte: looking for one is a hundred times cheaper than an expression that begins with any of them.
_UNSAFE_BYTES = {
    b"\x7f": re.compile(rb"\x7f"),
    b"\xc2": re.compile(rb"\xc2[\x80-\x9f]"),
    b"\xd8": re.compile(rb"\xd8\x9c"),
    b"\xe2": re.compile(rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])"),
}

_MARK = "…"


def escape(text: str, *, newlines: bool = False) -> str:
    r"""Write out every character that steers a terminal, ends a line or turns the text around: `\u001b`, `\n`.

    With `newlines` those stay, for texts of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return (_UNSAFE_BUT_NEWLINE if newlines else _UNSAFE).sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def escape_json(document: bytes) -> bytes:
    r"""Write out the same characters in valid JSON, which says what it said before.

    They can stand in strings alone, and there `\u009b` means the same as the character.
    """
    if document.isascii() and b"\x7f" not in document:
        return document
    for begins, unsafe in _UNSAFE_BYTES.items():
        if begins in document:
            document = unsafe.sub(_written_out_in_json, document)
    return document


def _written_out_in_json(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def cut(text: str, most: int) -> str:
    """The beginning of a text, at most `most` bytes of UTF-8, with `…` where something is missing."""
    if len(text) * 4 <= most:
        return text
    encoded = text[:most].encode("utf-8", "backslashreplace")
    if len(encoded) <= most and len(text) <= most:
        return text
    return encoded[: most - len(_MARK.encode())].decode("utf-8", "ignore") + _MARK
