"""The header lines of a mail: line breaks in values are removed, and structured fields keep their syntax."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from functools import lru_cache

from .mailbox import Mailbox, listed, mailbox, quoted

LINE = 998  # octets of a line, without its end (RFC 5322 section 2.1.1)
NAME = 100  # characters of a display name
HEADER = 8192  # characters of a header of the option `headers`
WORD = 63  # characters of the text in an encoded word (RFC 2047 section 2), without `=?utf-8?b?` and `?=`

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# The structured headers, whose values programs parse (RFC 5322, 2369, 2919, 3834, 8058, 8098, and common practice). All
# `List-…` headers are structured too.
OF_ADDRESSES = frozenset(
    "sender errors-to disposition-notification-to return-receipt-to x-confirm-reading-to".split()  # noqa: SIM905
    + "mail-reply-to mail-followup-to".split()  # noqa: SIM905
)
OF_NAMES = OF_ADDRESSES | {"list-id"}  # these headers may have a display name before the angle brackets
OF_TOKENS = frozenset(
    "in-reply-to references archived-at auto-submitted precedence priority importance sensitivity x-priority".split()  # noqa: SIM905
    + "x-auto-response-suppress feedback-id expires reply-by supersedes original-message-id autocrypt".split()  # noqa: SIM905
    + "dkim-signature authentication-results disposition-notification-options".split()  # noqa: SIM905
)
STRUCTURED = OF_ADDRESSES | OF_TOKENS
REMEMBERED = 500  # the maximum number of characters of a header that is cached


def header(name: str, value: str) -> bytes:
    """Return the result of `any_header`.

    A short header comes from a cache, because many mails may have the same header.
    """
    return _remembered_header(name, value) if len(value) <= REMEMBERED else any_header(name, value)


def any_header(name: str, value: str) -> bytes:
    """Return a header of the option `headers`, with its line end. Raises `ValueError` if the header can't be written.

    Programs parse a structured field (RFC 5322 section 3.6, RFC 2369, RFC 2919). So its value is never cut, and only a
    display name is encoded (RFC 2047 section 5).
    """
    kind = name.lower()
    if kind not in STRUCTURED and not kind.startswith("list-"):
        return text_header(name, value)
    if len(value) > HEADER:
        raise ValueError(f"it has more than {HEADER} characters")
    value = CONTROL.sub(" ", value).strip()
    if value.isascii() and not ("=?" in value and kind in OF_NAMES):
        return _folded(f"{name}: {value}")
    if kind in OF_ADDRESSES:
        boxes = [mailbox(value)] if kind == "sender" else listed(value)
        if any(box.international for box in boxes):
            raise ValueError(f"{quoted(value)} has non-ASCII characters before the @")
        return address_header(name, boxes)
    display_name, bracket, rest = value.rpartition("<")
    if kind not in OF_NAMES or not bracket or not rest.isascii() or not rest.endswith(">"):
        raise ValueError(f"{quoted(value)} has non-ASCII characters, which {name} can't contain")
    shown = phrase(display_name.strip().strip('"'))
    return f"{name}: {shown} <{rest}\r\n".encode("ascii")


_remembered_header = lru_cache(maxsize=256)(any_header)


def text_header(name: str, value: str, most: int = HEADER) -> bytes:
    """Return the result of `any_text_header`, computed faster for printable ASCII that needs no encoding."""
    if value.isascii() and value.isprintable() and "=?" not in value and len(value) <= min(most, LINE - len(name) - 2):
        return f"{name}: {value.strip()}\r\n".encode("ascii")
    return any_text_header(name, value, most)


def any_text_header(name: str, value: str, most: int = HEADER) -> bytes:
    """Return a header of free text, cut at `most` characters. A line break or control character becomes a space.

    ASCII text that fits on one line stays unchanged. Other text is encoded (RFC 2047), and so is text that already
    looks encoded.
    """
    value = CONTROL.sub(" ", value[: HEADER + 1]).strip()
    if len(value) > most:
        value = value[: most - 1] + "…"
    line = f"{name}: {value}"
    if not line.isascii() or "=?" in value or len(line) > LINE:
        line = f"{name}: {encoded_words(value, len(name) + 2)}"
    return line.encode("ascii") + b"\r\n"


def address_header(name: str, boxes: Sequence[Mailbox]) -> bytes:
    """Return a header with one address per line; in UTF-8 if any address is international."""
    lines = [f"{phrase(box.name)} <{box.address}>" if box.name.strip() else box.address for box in boxes]
    return f"{name}: ".encode() + ",\r\n ".join(lines).encode() + b"\r\n"


def phrase(name: str) -> str:
    """Return a display name for a header: quoted, or encoded."""
    name = CONTROL.sub(" ", name).strip()[:NAME]
    if name.isascii() and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return encoded_words(name, len("Disposition-Notification-To: "))


def encoded_words(text: str, before: int) -> str:
    """Return a text as encoded words (RFC 2047), one word per line.

    `before` is the number of characters before the first word on its line.
    """
    raw = text.encode("utf-8", "replace")
    words: list[str] = []
    start = 0
    room = max(WORD - before, 12)
    while start < len(raw):
        end = start + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # never cut inside a character
            end -= 1
        words.append(f"=?utf-8?b?{binascii.b2a_base64(raw[start:end], newline=False).decode('ascii')}?=")
        start = end
        room = WORD
    return "\r\n ".join(words)


def _folded(line: str) -> bytes:
    """Return a line of a structured header, folded at spaces if it is too long.

    Raises `ValueError` if a word is too long for one line.
    """
    lines = [""]
    for word in line.split(" ") if len(line) > LINE else [line]:
        if len(word) >= LINE:
            raise ValueError(f"{quoted(word)} is too long for a line of a mail")
        if len(lines[-1]) + len(word) >= LINE:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] or len(lines) > 1 else word
    return "\r\n".join(lines).encode("ascii") + b"\r\n"
