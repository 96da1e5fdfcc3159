"""Functions that make external text safe to show, and cut it to a length; floor 0, imports no other module of the router.

Every line of text or JSON that the router prints passes through one of these functions.
"""

from __future__ import annotations

import re

# Characters to escape: control characters may control a terminal, except the tab. U+2028 and U+2029 end a line in some
# programs. U+061C, U+200E, U+200F, U+202A-U+202E and U+2066-U+2069 change the direction of text (UAX #9). A lone surrogate
# can't be printed.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_NEWLINE = re.compile(_UNSAFE.pattern.replace("\x0a-\x1f", "\x0b-\x1f"))
_SHORT = {"\n": "\\n", "\r": "\\r"}
# The same characters as bytes of UTF-8, without those below the space: valid JSON has these only as white space
# between its tokens. The characters are grouped by their first byte. A search for one byte is a hundred times as fast
# as a search with a regular expression whose matches can begin with several bytes.
_UNSAFE_BYTES = {
    b"\x7f": re.compile(rb"\x7f"),
    b"\xc2": re.compile(rb"\xc2[\x80-\x9f]"),
    b"\xd8": re.compile(rb"\xd8\x9c"),
    b"\xe2": re.compile(rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])"),
}

_MARK = "…"


def escape(text: str, *, newlines: bool = False) -> str:
    r"""Escape characters that control a terminal, end a line or change the text direction, as `\u001b` or `\n`.

    If `newlines` is True, line breaks are kept, for texts of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return (_UNSAFE_BUT_NEWLINE if newlines else _UNSAFE).sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def escape_json(document: bytes) -> bytes:
    r"""In a JSON document, escape the same characters as `escape`, without changing the meaning of the document.

    The document must be valid JSON. White space between its tokens is not changed, even if `escape` would escape it. All
    other characters that `escape` escapes can occur only in strings, where `\u009b` and the character itself are
    equivalent.
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
    """Return the beginning of a string, cut to `most` bytes of UTF-8. If the string was cut, the result ends with `…`."""
    if len(text) * 4 <= most:
        return text
    encoded = text[:most].encode("utf-8", "backslashreplace")
    if len(encoded) <= most and len(text) <= most:
        return text
    return encoded[: most - len(_MARK.encode())].decode("utf-8", "ignore") + _MARK
