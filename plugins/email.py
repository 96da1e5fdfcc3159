"""Built-in sink `email`: sends each event as mail, over SMTP (RFC 5321) with STARTTLS, TLS or neither.

From top to bottom: the options, the addresses, the text of the mail, the connections, the sink. Every header line is
written by one function that lets no line break through. What a recipient's refusal means for the others is settled per
address: those that a `PartialError` does not name have got the mail.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast
from urllib.parse import quote

import aiosmtplib
import idna
from pydantic import Field, field_validator, model_validator

from router.api import (
    Addresses,
    Event,
    Html,
    PartialError,
    PermanentError,
    RegisterSink,
    Secret,
    Sink,
    SinkContext,
    SinkError,
    SinkOptions,
    Template,
    Text,
    TransientError,
    hookimpl,
    json_line,
    mailboxes,
)

PORTS = {"starttls": 587, "tls": 465, "none": 25}
LINE = 998  # octets of a line, without its end (RFC 5322 section 2.1.1)
SUBJECT = 250  # characters
NAME = 100  # characters of a display name
ADDRESS = 254  # octets (RFC 5321 section 4.5.3.1.3, without the angle brackets)
ADDRESS_TEXT = 1000  # characters of an address with its name
HEADER = 8192  # characters of one of the option `headers`
WORD = 63  # characters of the text in an encoded word (RFC 2047 section 2), without `=?utf-8?b?` and `?=`
QUOTED = 200  # characters of a server's answer that an error quotes
REMEMBERED = 1000  # deliveries cut off between two of their mails

# The credential was refused, or one is needed (RFC 4954 section 6): no other message will fare better.
REFUSED_CREDENTIAL = frozenset({530, 534, 535, 538})
CLOSING = 421
# Answers to MAIL that may be about this connection and not about the server: too many mails, too long without one.
WORN_OUT = frozenset({CLOSING, 452, 454})
IDLE_TOO_LONG = "4.4.2"  # RFC 3463: "bad connection", said with 421 or 451
HELO_CURE = "set `helo` to a full name of this machine"
OUR_NAME = re.compile(r"\b(?:helo|ehlo)\b|fully[- ]qualified host", re.IGNORECASE)
# The answer that aiosmtplib compares with, by command; those of AUTH are 235.
EXPECTED = {b"EHLO": 250, b"HELO": 250, b"QUIT": 221}
# How servers that greylist or limit say when to come again: `in 5 minutes`, `for 300 seconds`, `in 00:05:00`.
COME_AGAIN = re.compile(r"\b(?:in|for|after) (?:(\d{1,5}) ?([smh])[a-z]{0,6}\b|(\d\d):(\d\d):(\d\d)\b)", re.IGNORECASE)
UNITS = {"s": 1, "m": 60, "h": 3600}
ADDRESS_BREAK = ",\r\n "

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 section 2.2: printable ASCII without the colon
OURS = frozenset(
    "from to cc bcc reply-to subject date message-id mime-version return-path received".split()  # noqa: SIM905  # short
)
# Headers that machines read (RFC 5322, 2369, 2919, 3834, 8058, 8098 and custom), beside all of `List-…`.
OF_ADDRESSES = frozenset(
    "sender errors-to disposition-notification-to return-receipt-to x-confirm-reading-to".split()  # noqa: SIM905
    + "mail-reply-to mail-followup-to".split()  # noqa: SIM905
)
OF_NAMES = OF_ADDRESSES | {"list-id"}  # a name to show stands before the angle brackets
OF_TOKENS = frozenset(
    "in-reply-to references archived-at auto-submitted precedence priority importance sensitivity x-priority".split()  # noqa: SIM905
    + "x-auto-response-suppress feedback-id expires reply-by supersedes original-message-id autocrypt".split()  # noqa: SIM905
    + "dkim-signature authentication-results disposition-notification-options".split()  # noqa: SIM905
)

Recipients = Annotated[list[str], Addresses(kind="mail")]
Failure = TransientError | PermanentError | SinkError


# --- options -----------------------------------------------------------------------------------------------------


def is_template(text: str) -> bool:
    """Whether a value of the configuration is a template."""
    return "{{" in text or "{%" in text


class EmailOptions(SinkOptions):
    """The server, who gets the mail, and what it says."""

    host: str = Field(default="localhost", min_length=1, description="The mail server.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Default: starttls 587, tls 465, none 25.")
    helo: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+|\[[0-9A-Za-z:.]+\])$", max_length=255)] | None = Field(
        default=None, description="The name we give in EHLO; default: this machine's full name, else its address."
    )
    tls: Literal["starttls", "tls", "none"] = Field(default="starttls", description="How the connection is secured.")
    ca_file: str | None = Field(default=None, description="PEM file of a private CA, trusted beside the system's.")
    username: str | None = Field(default=None, description="Default, with a password: the address of `from`.")
    password: Secret | None = None
    from_: Template = Field(alias="from", description="The sender: `shop@example.org` or `Shop <shop@example.org>`.")
    to: Recipients = Field(default=[], description="Who gets it: a template, or a list.")
    cc: Recipients = Field(default=[])
    bcc: Recipients = Field(default=[], description="Who gets it without being named in it.")
    reply_to: Annotated[list[str], Addresses(kind="mail", recipients=False)] = Field(default=[])
    text: Text | None = Field(
        default=None, description="Plain text; for literal addresses the JSON line is the default."
    )
    html: Html | None = Field(default=None, description="HTML; values are escaped. With `text`: both, as alternatives.")
    subject: Text = Text("Event on {{ event.channel }}")
    headers: dict[str, Template] = Field(default={}, description="More headers, such as List-Unsubscribe.")
    separate: bool | None = Field(
        default=None, description="One mail per address; default: yes where an address is a template."
    )

    @model_validator(mode="before")
    @classmethod
    def _separate_by_default(cls, values: Any) -> Any:
        """Decide `separate` here, where the addresses still show whether they are templates."""
        if isinstance(values, Mapping) and values.get("separate") is None:
            return {**values, "separate": _templated(values.get(key) for key in ("to", "cc", "bcc"))}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        recipients = [*self.to, *self.cc, *self.bcc]
        if not recipients:
            raise ValueError("a mail needs a recipient: set `to`, `cc` or `bcc`")
        if _templated(recipients) and self.text is None and self.html is None:
            raise ValueError("where an address is a template the mail needs `text` or `html`: JSON is not for users")
        if self.username and not _secret(self):
            raise ValueError("with `username` goes a `password`")
        if _secret(self) and not self.username and is_template(self.from_):
            raise ValueError("where `from` is a template, `password` needs a `username`")
        return self

    @property
    def login(self) -> tuple[str, str] | None:
        """User name and password, if there is one to be given. The name is the sender's address by default."""
        password = _secret(self)
        return (self.username or mailbox(self.from_).address, password) if password else None

    @field_validator("from_", "to", "cc", "bcc", "reply_to")
    @classmethod
    def _addresses_are_some(cls, value: Any) -> Any:
        """A literal address that is none can be told now."""
        for text in [value] if isinstance(value, str) else value:
            if not is_template(text):
                (mailbox if isinstance(value, str) else listed)(text)
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        seen = set[str]()
        for name, value in headers.items():
            lower = name.lower()
            if not HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't be the name of a header: printable ASCII without colon or space")
            if lower in OURS or lower.startswith(("content-", "resent-")):
                raise ValueError(f"the header {name!r} is written from the other options and can't be set by hand")
            if lower in seen:
                raise ValueError(f"the header {name!r} stands there twice")
            seen.add(lower)
            if not is_template(value):
                header(name, value)
        return headers

    @field_validator("ca_file")
    @classmethod
    def _ca_file_is_absolute(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError("it must be an absolute path")
        return path


def _secret(options: EmailOptions) -> str:
    return options.password.get_secret_value() if options.password else ""


def _templated(values: Iterable[Any]) -> bool:
    texts: list[Any] = []
    for value in values:
        texts.extend(value) if isinstance(value, list) else texts.append(value)
    return any(isinstance(text, str) and is_template(text) for text in texts)


# --- addresses ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address: `text` as it stood in the options, `name` to be shown, `address` as the server is told it.

    The domain is in its ASCII form (RFC 5891), so only a local part outside ASCII makes it `international`, and needs a
    server with SMTPUTF8 (RFC 6531).
    """

    text: str
    name: str
    address: str

    @property
    def international(self) -> bool:
        """Whether only a server that speaks SMTPUTF8 can take it."""
        return not self.address.isascii()

    def header(self) -> str:
        """As it stands in a header."""
        return f"{phrase(self.name)} <{self.address}>" if self.name.strip() else self.address


def mailbox(text: str) -> Mailbox:
    """The one address that `text` is. Raises `ValueError` with a sentence when it is none, or more than one."""
    if len(text) > ADDRESS_TEXT:
        raise ValueError(f"{_shown(text)} is no mail address: it has over {ADDRESS_TEXT} characters")
    found = listed(text)
    if len(found) != 1:
        raise ValueError(f"{_shown(text)} is {'more than one address' if found else 'no mail address'}")
    return found[0]


def listed(text: str) -> list[Mailbox]:
    """The addresses of a comma list. Raises `ValueError` with a sentence."""
    found = mailboxes(text)
    return [_mailbox(text, box.name, box.local, box.domain.lower()) for box in found]


def _mailbox(text: str, name: str, local: str, domain: str) -> Mailbox:
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError as error:  # IDNAError is one
            raise ValueError(f"{_shown(text)} is no mail address: {error}") from None
    address = f"{local}@{domain}"
    if len(address.encode()) > ADDRESS:
        raise ValueError(f"{_shown(text)} is no mail address: it has over {ADDRESS} octets")
    return Mailbox(text, name, address)


def _shown(text: str) -> str:
    return repr(text if len(text) <= ADDRESS else text[:ADDRESS] + "…")


# --- headers -----------------------------------------------------------------------------------------------------


def header(name: str, value: str) -> bytes:
    """A header of the option `headers`, with its line end. Raises `ValueError` for one that can't be written.

    A structured field (RFC 5322 section 3.6, RFC 2369, RFC 2919) is read by machines: of these, only a display name may
    be encoded (RFC 2047 section 5), and none is cut.
    """
    kind = name.lower()
    if kind not in OF_ADDRESSES | OF_TOKENS and not kind.startswith("list-"):
        return text_header(name, value)
    if len(value) > HEADER:
        raise ValueError(f"it has over {HEADER} characters")
    value = CONTROL.sub(" ", value).strip()
    if value.isascii() and not ("=?" in value and kind in OF_NAMES):
        return _folded(f"{name}: {value}")
    if kind in OF_ADDRESSES:
        boxes = [mailbox(value)] if kind == "sender" else listed(value)
        if any(box.international for box in boxes):
            raise ValueError(f"{_shown(value)} has letters beyond ASCII before the @")
        return address_header(name, boxes)
    display_name, bracket, rest = value.rpartition("<")
    if kind not in OF_NAMES or not bracket or not rest.isascii() or not rest.endswith(">"):
        raise ValueError(f"{_shown(value)} has letters beyond ASCII, where {name} takes none")
    shown = phrase(display_name.strip().strip('"'))
    return f"{name}: {shown} <{rest}\r\n".encode("ascii")


def text_header(name: str, value: str, most: int = HEADER) -> bytes:
    """A header of free text, cut at `most` characters. A line break or control character becomes a space.

    ASCII stays on one line as it is. Everything else is encoded (RFC 2047), also what only looks as if it were encoded.
    """
    value = CONTROL.sub(" ", value[: HEADER + 1]).strip()
    if len(value) > most:
        value = value[: most - 1] + "…"
    line = f"{name}: {value}"
    if not line.isascii() or "=?" in value or len(line) > LINE:
        line = f"{name}: {encoded_words(value, len(name) + 2)}"
    return line.encode("ascii") + b"\r\n"


def address_header(name: str, boxes: Sequence[Mailbox]) -> bytes:
    """A header of addresses, one per line; UTF-8 where one of them is international."""
    return f"{name}: {ADDRESS_BREAK.join(box.header() for box in boxes)}\r\n".encode()


def phrase(name: str) -> str:
    """A display name as it stands in a header: quoted, or encoded."""
    name = CONTROL.sub(" ", name).strip()[:NAME]
    if name.isascii() and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return encoded_words(name, len("Disposition-Notification-To: "))


def encoded_words(text: str, before: int) -> str:
    """Encoded words (RFC 2047), one per line; `before` characters stand on the first line already."""
    raw = text.encode("utf-8", "replace")
    words: list[str] = []
    start = 0
    room = max(WORD - before, 12)
    while start < len(raw):
        end = start + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # never within a character
            end -= 1
        words.append(f"=?utf-8?b?{binascii.b2a_base64(raw[start:end], newline=False).decode('ascii')}?=")
        start = end
        room = WORD
    return "\r\n ".join(words)


def _folded(line: str) -> bytes:
    """A line of a structured header, folded at its spaces where it is too long. Raises `ValueError` where it has none."""
    lines = [""]
    for word in line.split(" ") if len(line) > LINE else [line]:
        if len(word) >= LINE:
            raise ValueError(f"{_shown(word)} is longer than a line of a mail")
        if len(lines[-1]) + len(word) >= LINE:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] or len(lines) > 1 else word
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


# --- the text of the mail ----------------------------------------------------------------------------------------


def message_id(event: Event, domain: str) -> str:
    """The Message-ID of a delivery: the same on every attempt, and when it was split by address.

    Readable (`<event id/route/sink@domain>`), so that the mail server's log can be searched for an event.
    """
    key = f"{event.id}/{event.route}/{event.sink}"
    left = quote(key, safe="/!#$&'*+=?^`{|}") if len(key) <= 200 else key
    if len(left) > 200:
        left = hashlib.sha256(key.encode()).hexdigest()
    left = re.sub(r"^\.|\.$|(?<=\.)\.", "%2E", left)  # a dot must stand between two other characters
    return f"<{left}@{domain}>"


def body(text: str | None, html: str | None) -> bytes:
    """The MIME part of the mail: text, HTML, or both as alternatives; ASCII on the wire, so any server takes it."""
    parts = [part(kind, each) for kind, each in (("plain", text), ("html", html)) if each is not None]
    if len(parts) == 1:
        return parts[0]
    boundary = b"=_" + hashlib.sha256(b"".join(parts)).hexdigest().encode("ascii")  # no text can hold its own hash
    head = b'Content-Type: multipart/alternative; boundary="' + boundary + b'"\r\n\r\n'
    return b"".join([head, *(b"--" + boundary + b"\r\n" + each for each in parts), b"--" + boundary + b"--\r\n"])


def part(kind: str, text: str) -> bytes:
    """One form of the message: as it is where it is ASCII in short lines, else in the encoding that will be the shorter."""
    text = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    raw = text.encode("utf-8", "replace")
    raw = raw if raw.endswith(b"\n") else raw + b"\n"
    encoding = "7bit"
    if not raw.isascii() or not short_lines(raw):
        dear = 2 * (len(raw) - len(text)) + raw.count(b"=")  # bytes, about, that quoted-printable makes three of
        if dear * 6 > len(raw):
            encoding, raw = "base64", in_base64(raw)
        else:
            encoding, raw = "quoted-printable", binascii.b2a_qp(raw)
    head = f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode("ascii") + raw.replace(b"\n", b"\r\n")


def short_lines(raw: bytes) -> bool:
    """Whether no line is longer than a mail may have. Looks at two places of every thousand bytes."""
    start = 0
    while len(raw) - start > LINE:
        start = raw.rfind(b"\n", start, start + LINE + 1) + 1
        if not start:
            return False
    return True


def in_base64(raw: bytes) -> bytes:
    """Base64 in lines of 76 characters."""
    text = binascii.b2a_base64(raw.replace(b"\n", b"\r\n"), newline=False)
    return b"\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + b"\n"


T = TypeVar("T")


def _of(key: str, write: Callable[[str], T], text: str) -> T:
    """What `write` makes of the text of an option. Raises `PermanentError`, which names the option, for a text it refuses."""
    try:
        return write(text)
    except ValueError as error:
        raise PermanentError(f"`{key}`: {error}") from None


class Mail:
    """What one delivery sends: the recipients, and the mail without its `To` and `Cc`.

    `faults` holds the recipients that are no addresses. Raises `PermanentError` when the sender is none.
    """

    def __init__(self, event: Event, options: EmailOptions) -> None:
        self.sender = _of("from", mailbox, options.from_)
        self.reply_to = [_of("reply_to", mailbox, text) for text in options.reply_to]
        self.faults: dict[str, Failure] = {}
        self._named = set[str]()
        self.to = list(self._recipients(options.to))
        self.cc = list(self._recipients(options.cc))
        self.bcc = list(self._recipients(options.bcc))
        self._rest = self._common(event, options)

    @property
    def recipients(self) -> list[Mailbox]:
        """Everyone who gets it, each once."""
        return [*self.to, *self.cc, *self.bcc]

    def content(self, only: Sequence[Mailbox], *, separate: bool) -> bytes:
        """The mail as it is sent to these recipients; `separate`: to each as the only one."""
        chosen = set(only)
        to = only if separate else [box for box in self.to if box in chosen]
        cc = [] if separate else [box for box in self.cc if box in chosen]
        head = address_header("To", to) if to or cc else b"To: undisclosed-recipients:;\r\n"
        if cc:
            head = (head if to else b"") + address_header("Cc", cc)
        return head + self._rest

    def _recipients(self, texts: Sequence[str]) -> Iterator[Mailbox]:
        for text in texts:
            try:
                box = mailbox(text)
            except ValueError as error:
                self.faults[text] = PermanentError(str(error))
                continue
            if box.address not in self._named:
                self._named.add(box.address)
                yield box

    def _common(self, event: Event, options: EmailOptions) -> bytes:
        lines = [
            address_header("From", [self.sender]),
            text_header("Subject", options.subject, SUBJECT),
            text_header("Date", format_datetime(event.received_at)),
            text_header("Message-ID", message_id(event, self.sender.address.rpartition("@")[2])),
        ]
        if self.reply_to:
            lines.append(address_header("Reply-To", self.reply_to))
        if "auto-submitted" not in (name.lower() for name in options.headers):
            lines.append(b"Auto-Submitted: auto-generated\r\n")  # RFC 3834: no vacation notice comes back
        lines.extend(
            _of(f"headers.{name}", partial(header, name), value)
            for name, value in options.headers.items()
            if value.strip()
        )
        lines.append(b"MIME-Version: 1.0\r\n")
        text = options.text
        if text is None and options.html is None:
            text = Text(json_line(event).decode("utf-8", "backslashreplace"))
        return b"".join(lines) + body(text, options.html)


# --- connections -------------------------------------------------------------------------------------------------


class Client(aiosmtplib.SMTP):
    """A connection to the mail server. `used` says that it served a delivery before, `mails` how many MAILs it took.

    `paused` is how many seconds it had waited when it was taken for the delivery at hand.
    """

    used = False
    mails = 0
    paused = 0.0
    since = 0.0  # when it was given back, by the event loop's clock

    async def execute_command(self, *args: bytes, **kwargs: Any) -> aiosmtplib.SMTPResponse:
        """Say a command of aiosmtplib's own. It knows one code for yes, where every 2xx is one (RFC 5321 section 4.2.1)."""
        answer = await super().execute_command(*args, **kwargs)
        return answer._replace(code=EXPECTED.get(args[0], 235)) if 200 <= answer.code < 300 else answer

    async def say(self, *words: str) -> None:
        """Say MAIL, RCPT or RSET. Raises `SMTPResponseException` when the answer is not a yes."""
        answer = await super().execute_command(*(word.encode() for word in words))
        if not 200 <= answer.code < 300:
            raise aiosmtplib.SMTPResponseException(answer.code, answer.message)

    async def hand_over(self, content: bytes) -> None:
        """Say DATA and send the mail, whose lines all end with CRLF. Raises `SMTPResponseException`, also for a "no" to DATA."""
        answer = await super().execute_command(b"DATA")
        if 300 <= answer.code < 400 and self.protocol is not None:
            self.protocol.write(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            answer = await self.protocol.read_response()
            if 200 <= answer.code < 300:
                return
        raise aiosmtplib.SMTPResponseException(answer.code, answer.message)

    def own_address(self) -> str:
        """This machine's address on the connection, as EHLO takes it (RFC 5321 section 4.1.3)."""
        address = str(self.get_transport_info("sockname")[0]).partition("%")[0]
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


class Connections:
    """The open connections of one sink: made on demand, used again, closed with QUIT after a while without use.

    There are never more than deliveries at the same time. `hello` is our name in EHLO, empty for our address.
    """

    IDLE: ClassVar[float] = 30.0  # seconds
    QUIT: ClassVar[float] = 2.0  # seconds that saying goodbye may take
    PAUSE: ClassVar[float] = 1.0  # seconds without a mail after which a refusal is about the pause

    def __init__(self, options: EmailOptions, tls: ssl.SSLContext | None, hello: str) -> None:
        self._options = options
        self._tls = tls
        self._hello = hello
        self._port = options.port or PORTS[options.tls]
        self._idle: list[tuple[Client, asyncio.TimerHandle]] = []
        self._most: int | None = None  # mails that the server takes on one connection, as far as it has shown
        self._closing = set[asyncio.Task[None]]()
        self._hidden = _credentials(options)
        self.server = f"{options.host}:{self._port}"

    async def take(self, *, fresh: bool = False) -> Client:
        """A connection that is ready for mail; `fresh` asks for a new one.

        Raises `TransientError` (no server, or not now) or `SinkError` (its certificate, our credential, no TLS).
        """
        while self._idle and not fresh:
            smtp, timer = self._idle.pop()
            timer.cancel()
            if smtp.is_connected:
                smtp.paused = asyncio.get_running_loop().time() - smtp.since
                return smtp
            drop(smtp)
        return await self._connect()

    def give(self, smtp: Client) -> None:
        """Take a connection back, for the next mail; with a goodbye when the server takes no more mails on it."""
        if self._most is not None and smtp.mails >= self._most:
            self.leave(smtp)
            return
        if not smtp.is_connected:
            drop(smtp)
            return
        loop = asyncio.get_running_loop()
        smtp.used, smtp.since = True, loop.time()
        self._idle.append((smtp, loop.call_later(self.IDLE, self._expire, smtp)))

    def worn_out(self, smtp: Client) -> None:
        """Remember how many mails the server takes, when it refused one on this connection and took it on a fresh one."""
        if smtp.mails and smtp.paused < self.PAUSE:
            self._most = min(smtp.mails, self._most or smtp.mails)

    async def close(self) -> None:
        """Say goodbye on every connection."""
        idle, self._idle = self._idle, []
        for smtp, timer in idle:
            timer.cancel()
            self.leave(smtp)
        if self._closing:
            await asyncio.wait(self._closing)

    def judge(self, error: aiosmtplib.SMTPResponseException, *named: Mailbox) -> Failure:
        """What a refusal means for a mail or a recipient; `named` are the addresses that it may quote.

        Postfix judges the name in our EHLO when it has heard the recipient: "504 5.5.2 <name>: Helo command rejected: need
        fully-qualified hostname".
        """
        code, told = error.code, self._told(error.code, error.message)
        if code in REFUSED_CREDENTIAL:
            return SinkError(told)
        if named and OUR_NAME.search(error.message) and not any(OUR_NAME.search(box.address) for box in named):
            return SinkError(f"{told} ({HELO_CURE})")
        if 500 <= code < 600:
            return PermanentError(told)
        return TransientError(told, retry_after=announced(error.message))

    def _expire(self, smtp: Client) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not smtp]
        self.leave(smtp)

    def leave(self, smtp: Client) -> None:
        """Say goodbye on a connection, without waiting for it."""
        task = asyncio.get_running_loop().create_task(self._quit(smtp))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _quit(self, smtp: Client) -> None:
        try:
            async with asyncio.timeout(self.QUIT):
                await smtp.quit()
        except (aiosmtplib.SMTPException, OSError):  # TimeoutError is one
            pass
        finally:
            drop(smtp)

    async def _connect(self) -> Client:
        options = self._options
        smtp = Client(
            hostname=options.host,
            port=self._port,
            local_hostname=self._hello or "localhost",  # else aiosmtplib asks the resolver
            use_tls=options.tls == "tls",
            start_tls=False,
            tls_context=self._tls,
            timeout=None,  # the host limits the whole attempt
        )
        try:
            await smtp.connect()
            smtp.local_hostname = self._hello or smtp.own_address()
            await _greet(smtp)
            if options.tls == "starttls":
                await self._secure(smtp)
            if options.login:
                await smtp.login(*options.login)
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            drop(smtp)
            raise self._no_connection(error) from None
        except BaseException:
            drop(smtp)
            raise
        return smtp

    async def _secure(self, smtp: Client) -> None:
        if not smtp.supports_extension("starttls"):
            raise SinkError(
                f"{self.server} does not offer STARTTLS: set `tls: tls` or `tls: none`, or the right `port`"
            )
        await smtp.starttls()
        await _greet(smtp)

    def _no_connection(self, error: Exception) -> TransientError | SinkError:
        """What an error before the first mail means."""
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SinkError(f"the certificate of {self.server} can't be trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return SinkError(f"{self.server} does not speak TLS as we do ({cause.reason}): check `tls` and `port`")
        if isinstance(error, aiosmtplib.SMTPResponseException):
            told = self._told(error.code, error.message)
            if isinstance(error, aiosmtplib.SMTPHeloError):
                told = f"{told} ({HELO_CURE})"
            if 500 <= error.code < 600:
                return SinkError(told)
            return TransientError(told, retry_after=announced(error.message), scope="sink")
        if isinstance(error, OSError):  # SMTPConnectError, SMTPServerDisconnected and timeouts are
            return TransientError(f"no connection to {self.server}: {self._clean(str(cause))}")
        return SinkError(f"{self.server}: {self._clean(str(error))}")  # no AUTH, or none that we know

    def _told(self, code: int, message: str) -> str:
        answer = f"{code} {self._clean(message)}" if code > 0 else self._clean(message)
        return f"{self.server} answered: {answer}"

    def _clean(self, text: str) -> str:
        """A server's words on one line, without our credential, should it repeat it."""
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        text = " ".join(CONTROL.sub(" ", text).split())
        return text if len(text) <= QUOTED else text[:QUOTED] + "…"


def announced(message: str) -> float | None:
    """The seconds after which a server says that it may be tried again; None where it does not say."""
    found = COME_AGAIN.search(message[:QUOTED])
    if found is None:
        return None
    number, unit, hours, minutes, seconds = found.groups()
    if number:
        return float(number) * UNITS[unit.lower()]
    return float(hours) * 3600 + float(minutes) * 60 + float(seconds)


def _credentials(options: EmailOptions) -> tuple[str, ...]:
    """The forms in which the password travels."""
    if options.login is None:
        return ()
    user, password = options.login
    plain = f"\0{user}\0{password}"
    return (*(binascii.b2a_base64(text.encode(), newline=False).decode() for text in (plain, password)), password)


async def _greet(smtp: Client) -> None:
    """EHLO, or HELO for a server of old."""
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == CLOSING or not smtp.is_connected:
            raise
        await smtp.helo()


def drop(smtp: Client) -> None:
    """Close a connection at once, without a word."""
    transport = smtp.transport
    smtp.close()
    if transport is not None:
        cast("asyncio.WriteTransport", transport).abort()


class _LostError(Exception):
    """The connection serves no mail any more, and nothing of this one was sent; the text says why."""


class _WornOutError(_LostError):
    """The server refuses to take another mail on this connection."""


class _RefusedError(Exception):
    """The server refuses the mail, for all its recipients."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _only_here(error: aiosmtplib.SMTPResponseException) -> bool:
    """Whether a refusal of MAIL may be about the connection: another one may fare better at once."""
    return error.code in WORN_OUT or (error.code == 451 and error.message.startswith(IDLE_TOO_LONG))


# --- the sink ----------------------------------------------------------------------------------------------------


class EmailSink(Sink):
    """Sends the mails; see the module."""

    _context: SinkContext
    _connections: Connections

    def __init__(self, options: EmailOptions) -> None:
        self._options = options
        self._reached: dict[str, set[str]] = {}  # by delivery: who got theirs before it was cut off

    async def open(self, context: SinkContext) -> None:
        """Read the certificates; a connection is made when the first mail is sent."""
        options = self._options
        tls = None if options.tls == "none" else await context.run_blocking(_trust, options.ca_file)
        hello = options.helo or await context.run_blocking(_our_name)
        self._connections = Connections(options, tls, hello)
        if options.tls == "none" and options.login and options.host not in {"localhost", "127.0.0.1", "::1"}:
            context.log.warning("the mail password crosses the network unencrypted (tls: none)", host=options.host)

    async def deliver(self, event: Event, options: EmailOptions) -> None:
        """Send one event. Raises what became of it; a `PartialError` names the addresses that have not got it."""
        mail = _written(event, options)
        separate = bool(options.separate)
        if not mail.recipients and not mail.faults:
            raise PermanentError("there is no address to send to")
        groups = [[box] for box in mail.recipients] if separate else [mail.recipients]
        failures = dict(mail.faults)
        reached = self._reached.pop(event.key, set[str]())
        try:
            for group in groups:
                missing = [box for box in group if box.text not in reached]
                failed = await self._send(mail, missing, separate=separate) if missing else {}
                failures.update(failed)
                reached.update(box.text for box in missing if box.text not in failed)
        except (TransientError, SinkError) as error:  # no connection: none of the others will fare better
            settled = reached | failures.keys()
            failures.update({box.text: error for box in mail.recipients if box.text not in settled})
        except BaseException:
            self._remember(event.key, reached)
            raise
        _settle(failures, reached)

    async def close(self) -> None:
        """End every connection with QUIT."""
        await self._connections.close()

    def _remember(self, key: str, reached: set[str]) -> None:
        """Keep who got their own mail before the time ran out, so that the next attempt leaves them alone."""
        if reached:
            self._reached[key] = reached
        while len(self._reached) > REMEMBERED:
            del self._reached[next(iter(self._reached))]

    async def _send(self, mail: Mail, group: list[Mailbox], *, separate: bool) -> dict[str, Failure]:
        """Send one mail; returns who did not get it and why. Raises when there is no connection to be had.

        A connection that was left open may have died since, or be worn out: what is lost on it before the mail was handed
        over is sent on a new one, and that is no attempt.
        """
        fresh = False
        worn: Client | None = None
        while True:
            smtp = await self._connections.take(fresh=fresh)
            try:
                failed = await self._transaction(smtp, mail, group, separate=separate)
            except _LostError as lost:
                self._connections.leave(smtp)
                if not smtp.used:
                    return dict.fromkeys((box.text for box in group), TransientError(str(lost)))
                fresh = True
                worn = smtp if isinstance(lost, _WornOutError) else None
            except BaseException:
                drop(smtp)
                raise
            else:
                if worn is not None and smtp.mails:
                    self._connections.worn_out(worn)
                taken = len(failed) < len(group)  # a mail that was taken leaves nothing behind
                await self._put_back(smtp, clean=taken)
                return failed

    async def _put_back(self, smtp: Client, *, clean: bool) -> None:
        """Keep a connection for the next mail, if it is of further use."""
        try:
            if not clean and smtp.is_connected:
                await smtp.say("RSET")
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
        except BaseException:
            drop(smtp)
            raise
        else:
            self._connections.give(smtp)

    async def _transaction(
        self, smtp: Client, mail: Mail, group: list[Mailbox], *, separate: bool
    ) -> dict[str, Failure]:
        """MAIL, RCPT for each, DATA. Raises `_LostError` when the connection ends before DATA."""
        failed = _unspeakable(smtp, [mail.sender, *mail.reply_to], group)
        group = [box for box in group if box.text not in failed]
        if not group:
            return failed
        content = mail.content(group, separate=separate)
        error: Failure | None = _too_large(smtp, content)
        if error is None:
            try:
                failed |= await self._envelope(smtp, mail, group, len(content))
            except _RefusedError as refused:
                error = refused.failure
            else:
                group = [box for box in group if box.text not in failed]
                error = await self._hand_over(smtp, content) if group else None
        return failed | {box.text: error for box in group if error is not None}

    async def _envelope(self, smtp: Client, mail: Mail, group: list[Mailbox], size: int) -> dict[str, Failure]:
        """Name the sender and the recipients; returns those who are refused. Raises `_RefusedError`, `_LostError`."""
        judge = self._connections.judge
        refused: dict[str, Failure] = {}
        parameters = [f"SIZE={size}"] if smtp.supports_extension("size") else []
        if any(box.international for box in (mail.sender, *mail.reply_to, *group)):
            parameters += ["SMTPUTF8", "BODY=8BITMIME"]
        try:
            await smtp.say("MAIL", f"FROM:<{mail.sender.address}>", *parameters)
            smtp.mails += 1
            for box in group:
                try:
                    await smtp.say("RCPT", f"TO:<{box.address}>")
                except aiosmtplib.SMTPResponseException as error:
                    failure = judge(error, mail.sender, box)
                    if error.code == CLOSING:
                        raise _RefusedError(failure) from None
                    refused[box.text] = failure
        except aiosmtplib.SMTPResponseException as error:
            failure = judge(error, mail.sender)
            only_here = isinstance(failure, TransientError) and _only_here(error)
            raise _WornOutError(str(failure)) if only_here else _RefusedError(failure) from None
        except (aiosmtplib.SMTPException, OSError):
            raise _LostError(f"{self._connections.server} closed the connection before it had the mail") from None
        return refused

    async def _hand_over(self, smtp: Client, content: bytes) -> Failure | None:
        """Send the mail itself; returns why it was not taken."""
        try:
            await smtp.hand_over(content)
        except aiosmtplib.SMTPResponseException as error:
            if error.code == CLOSING:
                drop(smtp)
            return self._connections.judge(error)
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
            server = self._connections.server
            return TransientError(f"{server} closed the connection before it confirmed the mail: it may come twice")
        return None


def _unspeakable(smtp: Client, authors: list[Mailbox], group: list[Mailbox]) -> dict[str, Failure]:
    """Those whose mail needs SMTPUTF8, where the server does not speak it."""
    if smtp.supports_extension("smtputf8"):
        return {}
    failed: dict[str, Failure] = {}
    for box in group:
        culprit = next((one for one in (*authors, box) if one.international), None)
        if culprit is not None:
            failed[box.text] = PermanentError(f"{_shown(culprit.text)} needs SMTPUTF8, which the mail server lacks")
    return failed


def _too_large(smtp: Client, content: bytes) -> PermanentError | None:
    """Whether the mail is over the limit that the server names (RFC 1870; 0 is none)."""
    limit = smtp.esmtp_extensions.get("size", "").strip()
    if not limit.isdecimal() or not 0 < int(limit) < len(content):
        return None
    return PermanentError(f"the mail has {len(content)} bytes, the server takes {limit}")


def _written(event: Event, options: EmailOptions) -> Mail:
    """The mail of a delivery. Raises `PermanentError` for whatever goes wrong: the next attempt would write the same."""
    try:
        return Mail(event, options)
    except PermanentError:
        raise
    except Exception as error:  # noqa: BLE001  # a fault of a parser, of whatever class
        raise PermanentError(f"the mail can't be written: {type(error).__name__}: {error}") from None


def _settle(failures: Mapping[str, Failure], reached: set[str]) -> None:
    """Raise what became of a delivery: one error for all, or one for each address."""
    if not failures:
        return
    errors = list(failures.values())
    if not reached:
        blame = next((error for error in errors if isinstance(error, SinkError)), errors[0])
        if isinstance(blame, SinkError) or all(error is blame for error in errors):
            raise blame
    raise PartialError(
        {
            address: TransientError(str(error), retry_after=error.retry_after)
            if isinstance(error, SinkError)
            else error
            for address, error in failures.items()
        }
    )


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """The system's certificates and our own. Raises `SinkError` when the file is none."""
    context = ssl.create_default_context()
    if ca_file is not None:
        if not Path(ca_file).is_file():  # reading a named pipe would wait for its writer
            raise SinkError(f"`ca_file` {ca_file}: there is no such file")
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # SSLError is one
            raise SinkError(f"`ca_file` {ca_file}: {error.strerror or error}") from None
    return context


def _our_name() -> str:
    """This machine's full name, empty where it has none: many servers refuse a bare one (a container's id, `localhost`)."""
    name = socket.getfqdn()
    return name if "." in name and re.fullmatch(r"[A-Za-z0-9.-]+", name) else ""


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """The type `email`."""
    register("email", EmailSink, options=EmailOptions)
