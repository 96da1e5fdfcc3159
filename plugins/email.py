"""Built-in sink `email`: sends each event as mail, over SMTP (RFC 5321) with STARTTLS, TLS or neither.

From top to bottom: the options, the addresses, the text of the mail, the connections, the sink. Every header line is
written by one function that lets no line break through. What a recipient's refusal means for the others is settled per
address: those that a `PartialError` does not name have got the mail.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.errors import InvalidHeaderDefect, MessageError, NonPrintableDefect
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast
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
)

PORTS = {"starttls": 587, "tls": 465, "none": 25}
LINE = 998  # octets of a line, without its end (RFC 5322 section 2.1.1)
SUBJECT = 250  # characters
NAME = 100  # characters of a display name
ADDRESS = 254  # octets (RFC 5321 section 4.5.3.1.3, without the angle brackets)
QUOTED = 200  # characters of a server's answer that an error quotes
REMEMBERED = 1000  # deliveries cut off between two of their mails

# The credential was refused, or one is needed (RFC 4954 section 6): no other message will fare better.
REFUSED_CREDENTIAL = frozenset({530, 534, 535, 538})
CLOSING = 421
ADDRESS_BREAK = ",\r\n "

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 2.2: printable ASCII without the colon
OURS = frozenset(
    "from to cc bcc reply-to subject date message-id mime-version return-path received".split()  # noqa: SIM905  # short
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
        return (self.username or mailboxes(self.from_)[0].address, password) if password else None

    @field_validator("from_", "to", "cc", "bcc", "reply_to")
    @classmethod
    def _addresses_are_some(cls, value: Any) -> Any:
        """A literal address that is none can be told now."""
        for text in [value] if isinstance(value, str) else value:
            if not is_template(text):
                found = mailboxes(text)
                if isinstance(value, str) and len(found) != 1:
                    raise ValueError(f"{_shown(text)} is more than one address")
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        seen = set[str]()
        for name in headers:
            lower = name.lower()
            if not HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't be the name of a header: printable ASCII without colon or space")
            if lower in OURS or lower.startswith(("content-", "resent-")):
                raise ValueError(f"the header {name!r} is written from the other options and can't be set by hand")
            if lower in seen:
                raise ValueError(f"the header {name!r} stands there twice")
            seen.add(lower)
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
        name = CONTROL.sub(" ", self.name).strip()[:NAME]
        if not name:
            return self.address
        if name.isascii() and "=?" not in name:
            escaped = name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}" <{self.address}>'
        return f"{_encoded(name)} <{self.address}>"


def mailboxes(text: str) -> list[Mailbox]:
    """The addresses of `text`, one or a comma list. Raises `ValueError` with a sentence when it is not made of them."""
    if CONTROL.search(text):
        raise ValueError(f"{_shown(text)} is no mail address: it holds a line break or control character")
    try:
        parsed = SMTP_POLICY.header_factory("to", text)
        addresses = list(parsed.addresses)
    except (ValueError, IndexError, MessageError):  # the parser stumbles over some of what it should refuse
        raise ValueError(f"{_shown(text)} is no mail address") from None
    # Not faults: a local part beyond ASCII, and the dot of `J. Doe <j@example.org>`.
    wrong = any(isinstance(fault, InvalidHeaderDefect | NonPrintableDefect) for fault in parsed.defects)
    if wrong or not addresses or any(group.display_name is not None for group in parsed.groups):
        raise ValueError(f"{_shown(text)} is no mail address")
    return [_mailbox(text if len(addresses) == 1 else str(address), address) for address in addresses]


def _mailbox(text: str, parsed: Any) -> Mailbox:
    if not parsed.username or not parsed.domain:
        raise ValueError(f"{_shown(text)} is no mail address: it needs the form name@domain")
    domain = parsed.domain.lower()
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{_shown(text)} is no mail address: {error}") from None
    address = parsed.addr_spec.rpartition("@")[0] + "@" + domain
    if len(address.encode()) > ADDRESS or CONTROL.search(address):
        raise ValueError(f"{_shown(text)} is no mail address: it has over {ADDRESS} octets or a control character")
    return Mailbox(text, parsed.display_name, address)


def _shown(text: str) -> str:
    return repr(text if len(text) <= ADDRESS else text[:ADDRESS] + "…")


def _one(texts: Sequence[str], key: str) -> list[Mailbox]:
    """The addresses of an option that names no recipient. Raises `PermanentError`."""
    try:
        return [box for text in texts for box in mailboxes(text)]
    except ValueError as error:
        raise PermanentError(f"`{key}`: {error}") from None


# --- the text of the mail ----------------------------------------------------------------------------------------


def header_line(name: str, value: str) -> bytes:
    """One header, with its line end. A line break or control character in `value` becomes a space.

    ASCII stays on one line as it is: folding it by force would break a long URL into encoded words that no reader of
    List-Unsubscribe understands. Everything else is encoded (RFC 2047), also what only looks as if it were encoded.
    """
    value = CONTROL.sub(" ", value).strip()
    line = f"{name}: {value}"
    if not line.isascii() or "=?" in value or len(line) > LINE:
        line = f"{name}: {_encoded(value, name)}"
    return line.encode("ascii") + b"\r\n"


def address_line(name: str, boxes: Sequence[Mailbox]) -> bytes:
    """An address header, one address per line; UTF-8 where one of them is international."""
    return f"{name}: {ADDRESS_BREAK.join(box.header() for box in boxes)}\r\n".encode()


def _encoded(text: str, header_name: str | None = None) -> str:
    """Encoded words (RFC 2047), folded."""
    return Header(text, "utf-8", header_name=header_name).encode(linesep="\r\n")


def message_id(event: Event, domain: str) -> str:
    """The Message-ID of a delivery: the same on every attempt, and when it was split by address.

    Readable (`<event id/route/sink@domain>`), so that the mail server's log can be searched for an event.
    """
    key = f"{event.id}/{event.route}/{event.sink}"
    left = quote(key, safe="/!#$&'*+=?^`{|}")
    if len(left) > 200:
        left = hashlib.sha256(key.encode()).hexdigest()
    left = re.sub(r"^\.|\.$|(?<=\.)\.", "%2E", left)  # a dot must stand between two other characters
    return f"<{left}@{domain}>"


def body(text: str | None, html: str | None) -> bytes:
    """The MIME part of the mail: text, HTML, or both as alternatives; ASCII on the wire, so any server takes it."""
    mail = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit"))
    if text is not None:
        mail.set_content(text.replace("\0", "\ufffd"))
    if html is not None:
        clean = html.replace("\0", "\ufffd")
        if text is None:
            mail.set_content(clean, subtype="html")
        else:
            mail.add_alternative(clean, subtype="html")
    return mail.as_bytes()


class Mail:
    """What one delivery sends: the recipients, and the mail without its `To` and `Cc`.

    `faults` holds the recipients that are no addresses. Raises `PermanentError` when the sender is none.
    """

    def __init__(self, event: Event, options: EmailOptions) -> None:
        senders = _one([options.from_], "from")
        if len(senders) != 1:
            raise PermanentError(f"`from`: {_shown(options.from_)} is not one address")
        self.sender = senders[0]
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
        to, cc = (
            (list(only), []) if separate else ([b for b in self.to if b in only], [b for b in self.cc if b in only])
        )
        head = address_line("To", to) if to or cc else b"To: undisclosed-recipients:;\r\n"
        if cc:
            head = (head if to else b"") + address_line("Cc", cc)
        return head + self._rest

    def _recipients(self, texts: Sequence[str]) -> Iterator[Mailbox]:
        for text in texts:
            try:
                for box in mailboxes(text):
                    if box.address not in self._named:
                        self._named.add(box.address)
                        yield box
            except ValueError as error:
                self.faults[text] = PermanentError(str(error))

    def _common(self, event: Event, options: EmailOptions) -> bytes:
        subject = CONTROL.sub(" ", options.subject)
        lines = [
            address_line("From", [self.sender]),
            header_line("Subject", subject if len(subject) <= SUBJECT else subject[: SUBJECT - 1] + "…"),
            header_line("Date", format_datetime(event.received_at)),
            header_line("Message-ID", message_id(event, self.sender.address.rpartition("@")[2])),
        ]
        if options.reply_to:
            lines.append(address_line("Reply-To", _one(options.reply_to, "reply_to")))
        if "auto-submitted" not in (name.lower() for name in options.headers):
            lines.append(b"Auto-Submitted: auto-generated\r\n")  # RFC 3834: no vacation notice comes back
        lines.extend(header_line(name, value) for name, value in options.headers.items() if value.strip())
        text = options.text
        if text is None and options.html is None:
            text = Text(json_line(event).decode("utf-8", "backslashreplace"))
        return b"".join(lines) + body(text, options.html)


# --- connections -------------------------------------------------------------------------------------------------


class Connections:
    """The open connections of one sink: made on demand, used again, closed with QUIT after a while without use.

    There are never more than deliveries at the same time.
    """

    IDLE: ClassVar[float] = 30.0  # seconds
    QUIT: ClassVar[float] = 2.0  # seconds that saying goodbye may take

    def __init__(self, options: EmailOptions, tls: ssl.SSLContext | None, hello: str) -> None:
        self._options = options
        self._tls = tls
        self._hello = hello
        self._port = options.port or PORTS[options.tls]
        self._idle: list[tuple[aiosmtplib.SMTP, asyncio.TimerHandle]] = []
        self._closing = set[asyncio.Task[None]]()
        self._hidden = _credentials(options)
        self.server = f"{options.host}:{self._port}"

    async def take(self, *, fresh: bool = False) -> tuple[aiosmtplib.SMTP, bool]:
        """A connection that is ready for mail, and whether it has been used before; `fresh` asks for a new one.

        Raises `TransientError` (no server, or not now) or `SinkError` (its certificate, our credential, no TLS).
        """
        while self._idle and not fresh:
            smtp, timer = self._idle.pop()
            timer.cancel()
            if smtp.is_connected:
                return smtp, True
            drop(smtp)
        return await self._connect(), False

    def give(self, smtp: aiosmtplib.SMTP) -> None:
        """Take a connection back, for the next mail."""
        if not smtp.is_connected:
            drop(smtp)
            return
        timer = asyncio.get_running_loop().call_later(self.IDLE, self._expire, smtp)
        self._idle.append((smtp, timer))

    async def close(self) -> None:
        """Say goodbye on every connection."""
        idle, self._idle = self._idle, []
        for smtp, timer in idle:
            timer.cancel()
            self._leave(smtp)
        if self._closing:
            await asyncio.wait(self._closing)

    def judge(self, code: int, message: str) -> Failure:
        """What an answer of the server means for a mail or a recipient."""
        told = self._told(code, message)
        if code in REFUSED_CREDENTIAL:
            return SinkError(told)
        if 500 <= code < 600:
            return PermanentError(told)
        return TransientError(told)

    def _expire(self, smtp: aiosmtplib.SMTP) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not smtp]
        self._leave(smtp)

    def _leave(self, smtp: aiosmtplib.SMTP) -> None:
        task = asyncio.get_running_loop().create_task(self._quit(smtp))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _quit(self, smtp: aiosmtplib.SMTP) -> None:
        try:
            async with asyncio.timeout(self.QUIT):
                await smtp.quit()
        except (aiosmtplib.SMTPException, OSError):  # TimeoutError is one
            pass
        finally:
            drop(smtp)

    async def _connect(self) -> aiosmtplib.SMTP:
        options = self._options
        smtp = aiosmtplib.SMTP(
            hostname=options.host,
            port=self._port,
            local_hostname=self._hello,
            use_tls=options.tls == "tls",
            start_tls=False,
            tls_context=self._tls,
            timeout=None,  # the host limits the whole attempt
        )
        try:
            await smtp.connect()
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

    async def _secure(self, smtp: aiosmtplib.SMTP) -> None:
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
            return SinkError(told) if 500 <= error.code < 600 else TransientError(told)
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


def _credentials(options: EmailOptions) -> tuple[str, ...]:
    """The forms in which the password travels."""
    if options.login is None:
        return ()
    user, password = options.login
    plain = f"\0{user}\0{password}"
    return (*(base64.b64encode(text.encode()).decode() for text in (plain, password)), password)


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    """EHLO, or HELO for a server of old."""
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == CLOSING or not smtp.is_connected:
            raise
        await smtp.helo()


def drop(smtp: aiosmtplib.SMTP) -> None:
    """Close a connection at once, without a word."""
    transport = smtp.transport
    smtp.close()
    if transport is not None:
        cast("asyncio.WriteTransport", transport).abort()


class _LostError(Exception):
    """The connection ended before the mail was handed over: nothing of it was sent."""


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
        self._connections = Connections(options, tls, await context.run_blocking(_our_name))
        if options.tls == "none" and options.login and options.host not in {"localhost", "127.0.0.1", "::1"}:
            context.log.warning("the mail password crosses the network unencrypted (tls: none)", host=options.host)

    async def deliver(self, event: Event, options: EmailOptions) -> None:
        """Send one event. Raises what became of it; a `PartialError` names the addresses that have not got it."""
        mail = Mail(event, options)
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
            failures.update({box.text: error for box in mail.recipients if box.text not in reached | failures.keys()})
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

        A connection that was left open may have died since: what is lost on it before the mail was handed over is sent
        on a new one, and that is no attempt.
        """
        fresh = False
        while True:
            smtp, used = await self._connections.take(fresh=fresh)
            try:
                failed = await self._transaction(smtp, mail, group, separate=separate)
            except _LostError as lost:
                drop(smtp)
                if not used:
                    return dict.fromkeys((box.text for box in group), TransientError(str(lost)))
                fresh = True
            except BaseException:
                drop(smtp)
                raise
            else:
                taken = len(failed) < len(group)  # a mail that was taken leaves nothing behind
                await self._put_back(smtp, clean=taken)
                return failed

    async def _put_back(self, smtp: aiosmtplib.SMTP, *, clean: bool) -> None:
        """Keep a connection for the next mail, if it is of further use."""
        try:
            if not clean and smtp.is_connected:
                await smtp.rset()
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
        except BaseException:
            drop(smtp)
            raise
        else:
            self._connections.give(smtp)

    async def _transaction(
        self, smtp: aiosmtplib.SMTP, mail: Mail, group: list[Mailbox], *, separate: bool
    ) -> dict[str, Failure]:
        """MAIL, RCPT for each, DATA. Raises `_LostError` when the connection ends before DATA."""
        failed = _unspeakable(smtp, mail.sender, group)
        group = [box for box in group if box.text not in failed]
        if not group:
            return failed
        content = mail.content(group, separate=separate)
        error: Failure | None = _too_large(smtp, content)
        if error is None:
            try:
                failed |= await self._envelope(smtp, mail.sender, group, len(content))
            except aiosmtplib.SMTPSenderRefused as refused:
                error = self._connections.judge(refused.code, refused.message)
            else:
                group = [box for box in group if box.text not in failed]
                error = await self._hand_over(smtp, content) if group else None
        return failed | {box.text: error for box in group if error is not None}

    async def _envelope(
        self, smtp: aiosmtplib.SMTP, sender: Mailbox, group: list[Mailbox], size: int
    ) -> dict[str, Failure]:
        """Name the sender and the recipients; returns those who are refused. Raises `SMTPSenderRefused`, `_LostError`."""
        judge = self._connections.judge
        refused: dict[str, Failure] = {}
        international = any(box.international for box in (sender, *group))
        encoding = "utf-8" if international else "ascii"
        options = [f"SIZE={size}"] if smtp.supports_extension("size") else []
        options += ["SMTPUTF8", "BODY=8BITMIME"] if international else []
        try:
            await smtp.mail(sender.address, options=options, encoding=encoding)
            for box in group:
                try:
                    await smtp.rcpt(box.address, encoding=encoding)
                except aiosmtplib.SMTPRecipientRefused as error:
                    if error.code == CLOSING:
                        raise
                    refused[box.text] = judge(error.code, error.message)
        except aiosmtplib.SMTPResponseException as error:
            if isinstance(error, aiosmtplib.SMTPSenderRefused) and error.code != CLOSING:
                raise
            raise _LostError(str(judge(error.code, error.message))) from None
        except (aiosmtplib.SMTPException, OSError):
            raise _LostError(f"{self._connections.server} closed the connection before it had the mail") from None
        return refused

    async def _hand_over(self, smtp: aiosmtplib.SMTP, content: bytes) -> Failure | None:
        """Send the mail itself; returns why it was not taken."""
        try:
            await smtp.data(content)
        except aiosmtplib.SMTPResponseException as error:
            if error.code == CLOSING:
                drop(smtp)
            return self._connections.judge(error.code, error.message)
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
            server = self._connections.server
            return TransientError(f"{server} closed the connection before it confirmed the mail: it may come twice")
        return None


def _unspeakable(smtp: aiosmtplib.SMTP, sender: Mailbox, group: list[Mailbox]) -> dict[str, Failure]:
    """Those whose mail needs SMTPUTF8, where the server does not speak it."""
    if smtp.supports_extension("smtputf8"):
        return {}
    failed: dict[str, Failure] = {}
    for box in group:
        culprit = next((one for one in (sender, box) if one.international), None)
        if culprit is not None:
            failed[box.text] = PermanentError(f"{_shown(culprit.text)} needs SMTPUTF8, which the mail server lacks")
    return failed


def _too_large(smtp: aiosmtplib.SMTP, content: bytes) -> PermanentError | None:
    """Whether the mail is over the limit that the server names (RFC 1870; 0 is none)."""
    limit = smtp.esmtp_extensions.get("size", "").strip()
    if not limit.isdecimal() or not 0 < int(limit) < len(content):
        return None
    return PermanentError(f"the mail has {len(content)} bytes, the server takes {limit}")


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
    """What we call ourselves in EHLO: the host's full name, or an address literal where that is none."""
    name = socket.getfqdn()
    return name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "[127.0.0.1]"


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """The type `email`."""
    register("email", EmailSink, options=EmailOptions)
