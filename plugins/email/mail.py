"""The mail of one delivery: its recipients, its headers, its text."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from router.api import Event, PermanentError, SinkError, Text, TransientError, json_line

from .headers import LINE, address_header, header, text_header
from .mail_options import EmailOptions
from .mailbox import Mailbox, mailbox

SUBJECT = 250  # characters
KEY = 200  # characters of a Message-ID before the @
PLAIN = re.compile(r"[A-Za-z0-9_~/-]++(?>(?:\.[A-Za-z0-9_~/-]++)*)")
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

Failure = TransientError | PermanentError | SinkError
T = TypeVar("T")


class Mail:
    """The mail of one delivery: the recipients, and the mail without its `To` and `Cc`.

    `faults` has an error for each invalid recipient. Raises `PermanentError` if the sender is invalid.
    """

    def __init__(self, event: Event, options: EmailOptions) -> None:
        self.sender = _of_option("from", mailbox, options.from_)
        self.reply_to = [_of_option("reply_to", mailbox, text) for text in options.reply_to]
        self.faults: dict[str, Failure] = {}
        self.replies: list[str] = []
        """The replies of the server, one for each time that it accepted the mail."""
        self.answers: dict[str, str] = {}
        """The Message-ID of the first mail of the thread, by the address that received that mail."""
        self.id = message_id(event, self.sender.address.rpartition("@")[2])
        self._named = set[str]()
        self.to, self.cc, self.bcc = (self._recipients(texts) for texts in (options.to, options.cc, options.bcc))
        self._rest = self._common(event, options)

    @property
    def recipients(self) -> list[Mailbox]:
        """All recipients, each once."""
        return [*self.to, *self.cc, *self.bcc]

    def content(self, only: Sequence[Mailbox], *, separate: bool) -> bytes:
        """Return the bytes of the mail for the recipients in `only`. No other recipients are named in the mail.

        With `separate`, `To` names all recipients in `only`, even those of `cc` and `bcc`. If the mail is a
        reply, two headers name the first mail of the thread (RFC 5322 section 3.6.4).
        """
        chosen = frozenset[Mailbox]() if separate else set(only)
        to = only if separate else [box for box in self.to if box in chosen]
        cc = [] if separate else [box for box in self.cc if box in chosen]
        head = address_header("To", to) if to or cc else b"To: undisclosed-recipients:;\r\n"
        if cc:
            head = (head if to else b"") + address_header("Cc", cc)
        first = self.first(only if separate else self.recipients) if self.answers else self.id
        if first != self.id:
            head += text_header("In-Reply-To", first) + text_header("References", first)
        return head + self._rest

    def first(self, readers: Sequence[Mailbox]) -> str:
        """Return the Message-ID of the thread's first mail, if one of the `readers` has received that mail.

        Otherwise return the Message-ID of this mail.
        """
        return next((self.answers[box.address] for box in readers if box.address in self.answers), self.id)

    def _recipients(self, texts: Sequence[str]) -> list[Mailbox]:
        boxes = []
        for text in texts:
            try:
                box = mailbox(text)
            except ValueError as error:
                self.faults[text] = PermanentError(str(error))
                continue
            if box.address not in self._named:
                self._named.add(box.address)
                boxes.append(box)
        return boxes

    def _common(self, event: Event, options: EmailOptions) -> bytes:
        lines = [
            address_header("From", [self.sender]),
            text_header("Subject", options.subject, SUBJECT),
            text_header("Date", date(event.received_at)),
            text_header("Message-ID", self.id),
        ]
        if self.reply_to:
            lines.append(address_header("Reply-To", self.reply_to))
        if "auto-submitted" not in (name.lower() for name in options.headers):
            lines.append(b"Auto-Submitted: auto-generated\r\n")  # RFC 3834: suppresses vacation notices
        lines.extend(
            _of_option(f"headers.{name}", partial(header, name), value)
            for name, value in options.headers.items()
            if value.strip()
        )
        lines.append(b"MIME-Version: 1.0\r\n")
        text = options.text
        if text is None and options.html is None:
            text = Text(json_line(event).decode("utf-8", "backslashreplace"))
        return b"".join(lines) + body(text, options.html)


def _of_option(key: str, write: Callable[[str], T], text: str) -> T:
    """Return the result of `write` for an option's text.

    Raises `PermanentError` with the option's name if `write` fails.
    """
    try:
        return write(text)
    except ValueError as error:
        raise PermanentError(f"`{key}`: {error}") from None


def date(moment: datetime) -> str:
    """Return a time in the format of the header `Date` (RFC 5322 section 3.3), as `email.utils.format_datetime` does."""
    if moment.tzinfo is not UTC:
        return format_datetime(moment)
    day, month = DAYS[moment.weekday()], MONTHS[moment.month - 1]
    clock = f"{moment.hour:02}:{moment.minute:02}:{moment.second:02}"
    return f"{day}, {moment.day:02} {month} {moment.year:04} {clock} +0000"


def message_id(event: Event, domain: str) -> str:
    """Return the result of `any_message_id`, computed faster for a key of letters, digits and `_~/.-`."""
    key = f"{event.id}/{event.route}/{event.sink}"
    return f"<{key}@{domain}>" if len(key) <= KEY and PLAIN.fullmatch(key) else any_message_id(key, domain)


def any_message_id(key: str, domain: str) -> str:
    """Return the Message-ID of a delivery.

    It is the same on every attempt, even after the delivery was split by address.

    The id is readable (`<event id/route/sink@domain>`), so that the mail server's log can be searched for an event.
    """
    left = quote(key, safe="/!#$&'*+=?^`{|}") if len(key) <= KEY else key
    if len(left) > KEY:
        left = hashlib.sha256(key.encode()).hexdigest()
    left = re.sub(r"^\.|\.$|(?<=\.)\.", "%2E", left)  # a dot is only allowed between two other characters
    return f"<{left}@{domain}>"


def body(text: str | None, html: str | None) -> bytes:
    """Return the MIME part of the mail: text, HTML, or both as alternatives.

    The part is ASCII: every server accepts it.
    """
    parts = [part(kind, each) for kind, each in (("plain", text), ("html", html)) if each is not None]
    if len(parts) == 1:
        return parts[0]
    boundary = b"=_" + hashlib.sha256(b"".join(parts)).hexdigest().encode(
        "ascii"
    )  # a text can't contain its own hash, so the boundary is never in it
    head = b'Content-Type: multipart/alternative; boundary="' + boundary + b'"\r\n\r\n'
    return b"".join([head, *(b"--" + boundary + b"\r\n" + each for each in parts), b"--" + boundary + b"--\r\n"])


def part(kind: str, text: str) -> bytes:
    """Return the text or the HTML as a MIME part.

    ASCII in short lines stays unchanged. Other text is encoded with base64 or quoted-printable, whichever is shorter.
    """
    text = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    raw = text.encode("utf-8", "replace")
    raw = raw if raw.endswith(b"\n") else raw + b"\n"
    encoding = "7bit"
    if not raw.isascii() or not short_lines(raw):
        dear = 2 * (len(raw) - len(text)) + raw.count(b"=")  # about how many bytes quoted-printable writes as three
        if dear * 6 > len(raw):
            encoding, raw = "base64", in_base64(raw)
        else:
            encoding, raw = "quoted-printable", binascii.b2a_qp(raw)
    head = f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode("ascii") + raw.replace(b"\n", b"\r\n")


def short_lines(raw: bytes) -> bool:
    """Return whether every line is short enough for a mail.

    The search is fast, because each step goes to the last line end within the next `LINE` bytes.
    """
    start = 0
    while len(raw) - start > LINE:
        start = raw.rfind(b"\n", start, start + LINE + 1) + 1
        if not start:
            return False
    return True


def in_base64(raw: bytes) -> bytes:
    """Return base64 in lines of 76 characters."""
    text = binascii.b2a_base64(raw.replace(b"\n", b"\r\n"), newline=False)
    return b"\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + b"\n"
