"""The connections to the mail server, which are opened on demand, reused, and closed when idle.

Also the meaning of the server's refusals.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import re
import socket
import ssl
from pathlib import Path
from typing import Any, ClassVar, cast

import aiosmtplib

from router.api import PermanentError, SinkContext, SinkError, TransientError

from .headers import CONTROL
from .mail import Failure
from .mail_connection import CLOSING, MailConnection
from .mail_options import EmailOptions
from .mailbox import Mailbox

PORTS = {"starttls": 587, "tls": 465, "none": 25}
QUOTED = 200  # the largest number of characters of a server's reply in an error
# The reply codes for a refused or missing credential (RFC 4954 section 6). Every other mail would fail too.
REFUSED_CREDENTIAL = frozenset({530, 534, 535, 538})
HELO_CURE = "set `helo` to a full name of this machine"
OUR_NAME = r"(?i)\b(?:helo|ehlo)\b|fully[- ]qualified host"


class Client(aiosmtplib.SMTP):
    """The client for the beginning of a connection to the mail server: EHLO, STARTTLS and the login."""

    async def execute_command(self, *args: bytes, **kwargs: Any) -> aiosmtplib.SMTPResponse:
        """Send a command of aiosmtplib, and return the reply.

        aiosmtplib expects one certain success code. By RFC 5321 section 4.2.1, every 2xx code is a success, so such a
        code is replaced by the expected code.
        """
        answer = await super().execute_command(*args, **kwargs)
        expected = {b"EHLO": 250, b"HELO": 250}.get(args[0], 235)  # AUTH succeeds with 235
        return answer._replace(code=expected) if 200 <= answer.code < 300 else answer

    def own_address(self) -> str:
        """Return this machine's address on the connection, in the format for EHLO (RFC 5321 section 4.1.3)."""
        address = str(self.get_transport_info("sockname")[0]).partition("%")[0]
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


class Connections:
    """The pool of connections of one sink: opened on demand, reused, closed with QUIT when idle.

    There are never more connections than concurrent deliveries. `hello` is the name for EHLO. If `hello` is empty, the
    address of this machine is used.
    """

    IDLE: ClassVar[float] = 30.0  # seconds
    QUIT: ClassVar[float] = 2.0  # the maximum number of seconds for QUIT
    PAUSE: ClassVar[float] = 1.0  # idle seconds after which a refusal may be due to the pause

    def __init__(self, options: EmailOptions, tls: ssl.SSLContext | None, hello: str) -> None:
        self._options = options
        self._tls = tls
        self._hello = hello
        self._port = options.port or PORTS[options.tls]
        self._idle: list[tuple[MailConnection, asyncio.TimerHandle]] = []
        self._most: int | None = None  # the number of mails that the server accepts on one connection, as observed
        self._closing = set[asyncio.Task[None]]()
        self._hidden = _credentials(options)
        self.server = f"{options.host}:{self._port}"

    @classmethod
    async def open(cls, context: SinkContext, options: EmailOptions) -> Connections:
        """Read the certificates and this machine's name. No connection is opened before the first mail."""
        tls = None if options.tls == "none" else await context.run_blocking(trusted_certificates, options.ca_file)
        return cls(options, tls, options.helo or await context.run_blocking(our_name))

    async def take(self, *, fresh: bool = False) -> MailConnection:
        """Return a connection that is ready for mail. With `fresh`, always open a new connection.

        Raises `TransientError` if the server can't be reached or refuses temporarily. Raises `SinkError` for an
        untrusted certificate, a refused credential, or a server without TLS.
        """
        while self._idle and not fresh:
            smtp, timer = self._idle.pop()
            timer.cancel()
            if smtp.is_connected:
                smtp.paused = asyncio.get_running_loop().time() - smtp.since
                return smtp
            smtp.drop()
        return await self._connect()

    def give(self, smtp: MailConnection) -> None:
        """Put a connection back into the pool.

        If the server accepts no more mails on it, close it with QUIT instead.
        """
        if self._most is not None and smtp.mails >= self._most:
            self.leave(smtp)
            return
        if not smtp.is_connected:
            smtp.drop()
            return
        loop = asyncio.get_running_loop()
        smtp.used, smtp.since = True, loop.time()
        self._idle.append((smtp, loop.call_later(self.IDLE, self._expire, smtp)))

    def worn_out(self, smtp: MailConnection) -> None:
        """Record how many mails the server accepts on one connection.

        The method is called when the server has refused a mail on this connection and accepted the mail on a new
        connection. Nothing is recorded if this connection was idle before, because the pause may be the reason.
        """
        if smtp.mails and smtp.paused < self.PAUSE:
            self._most = min(smtp.mails, self._most or smtp.mails)

    async def close(self) -> None:
        """Close every connection with QUIT."""
        idle, self._idle = self._idle, []
        for smtp, timer in idle:
            timer.cancel()
            self.leave(smtp)
        if self._closing:
            await asyncio.wait(self._closing)

    def judge(self, answer: aiosmtplib.SMTPResponse, *named: Mailbox) -> Failure:
        """Return the delivery error for the refusal of a mail or a recipient.

        The reply may quote the addresses in `named`.

        Postfix checks the name in our EHLO only after RCPT: "504 5.5.2 <name>: Helo command rejected: need
        fully-qualified hostname".
        """
        code, text = answer.code, self._answered(*answer)
        if code in REFUSED_CREDENTIAL:
            return SinkError(text)
        if named and re.search(OUR_NAME, answer.message) and not any(re.search(OUR_NAME, box.address) for box in named):
            return SinkError(f"{text} ({HELO_CURE})")
        if 500 <= code < 600:
            return PermanentError(text)
        return TransientError(text, retry_after=announced(answer.message))

    def _expire(self, smtp: MailConnection) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not smtp]
        self.leave(smtp)

    def leave(self, smtp: MailConnection) -> None:
        """Close a connection with QUIT in the background."""
        task = asyncio.get_running_loop().create_task(self._quit(smtp))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _quit(self, smtp: MailConnection) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.QUIT):
                    await smtp.command("QUIT")
        finally:
            smtp.drop()

    async def _connect(self) -> MailConnection:
        options = self._options
        smtp = Client(
            hostname=options.host,
            port=self._port,
            local_hostname=self._hello or "localhost",  # without a name, aiosmtplib would look one up
            use_tls=options.tls == "tls",
            start_tls=False,
            tls_context=self._tls,
            timeout=None,  # the router limits the time of the whole attempt
        )
        try:
            await smtp.connect()
            smtp.local_hostname = self._hello or smtp.own_address()
            await _greet(smtp)
            if options.tls == "starttls":
                await self._secure(smtp)
            if options.login:
                await smtp.login(*options.login)
            if smtp.transport is None:
                raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            drop(smtp)
            raise self._no_connection(error) from None
        except BaseException:
            drop(smtp)
            raise
        # From here on, aiosmtplib is not used. It drops replies that arrive together with an earlier reply.
        return MailConnection(cast("asyncio.Transport", smtp.transport), dict(smtp.esmtp_extensions))

    async def _secure(self, smtp: Client) -> None:
        if not smtp.supports_extension("starttls"):
            raise SinkError(f"{self.server} does not offer STARTTLS: set `tls: tls` or `tls: none`, or correct `port`")
        await smtp.starttls()
        await _greet(smtp)

    def _no_connection(self, error: Exception) -> TransientError | SinkError:
        """Return the delivery error for an error that occurred before the connection was ready for mail."""
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SinkError(f"the certificate of {self.server} can't be trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return SinkError(
                f"{self.server} does not speak TLS on this port, or supports only TLS versions that the router does not support "
                f"({cause.reason}): check `tls` and `port`"
            )
        if isinstance(error, aiosmtplib.SMTPResponseException):
            text = self._answered(error.code, error.message)
            if isinstance(error, aiosmtplib.SMTPHeloError):
                text = f"{text} ({HELO_CURE})"
            if 500 <= error.code < 600:
                return SinkError(text)
            return TransientError(text, retry_after=announced(error.message), scope="sink")
        if isinstance(error, OSError):  # SMTPConnectError, SMTPServerDisconnected and timeouts are OSErrors
            return TransientError(f"no connection to {self.server}: {self._clean(str(cause))}")
        return SinkError(f"{self.server}: {self._clean(str(error))}")  # no AUTH, or no supported mechanism

    def _answered(self, code: int, message: str) -> str:
        text = self.quoted(code, message)
        return f"{self.server} answered: {text}" if code > 0 else f"{self.server} sent an invalid reply: {text}"

    def quoted(self, code: int, message: str) -> str:
        """Return a server's reply on one line."""
        return f"{code} {self._clean(message)}" if code > 0 else self._clean(message)

    def _clean(self, text: str) -> str:
        """Return a server's reply on one line. If the server repeats our credential, the credential is hidden."""
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        text = " ".join(CONTROL.sub(" ", text).split())
        return text if len(text) <= QUOTED else text[:QUOTED] + "…"


def trusted_certificates(ca_file: str | None) -> ssl.SSLContext:
    """Return the trusted certificates: the system's and those of `ca_file`. Raises `SinkError` for an unusable file."""
    context = ssl.create_default_context()
    if ca_file is not None:
        if not Path(ca_file).is_file():  # reading a named pipe would block until it has a writer
            raise SinkError(f"`ca_file` {ca_file}: there is no such file")
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # SSLError is an OSError
            raise SinkError(f"`ca_file` {ca_file}: {error.strerror or error}") from None
    return context


def our_name() -> str:
    """Return this machine's full name.

    Return an empty text for a name without a dot, such as `localhost`, because many servers refuse such a name.
    """
    name = socket.getfqdn()
    return name if "." in name and re.fullmatch(r"[A-Za-z0-9.-]+", name) else ""


def announced(message: str) -> float | None:
    """Return the number of seconds after which a server's reply allows a retry; None if the reply names no time."""
    # Servers that use greylisting or limits write `in 5 minutes`, `for 300 seconds`, `in 00:05:00`.
    pattern = r"(?i)\b(?:in|for|after) (?:(\d{1,5}) ?([smh])[a-z]{0,6}\b|(\d\d):(\d\d):(\d\d)\b)"
    found = re.search(pattern, message[:QUOTED])
    if found is None:
        return None
    number, unit, hours, minutes, seconds = found.groups()
    if number:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit.lower()]
    return float(hours) * 3600 + float(minutes) * 60 + float(seconds)


def _credentials(options: EmailOptions) -> tuple[str, ...]:
    """Return every form in which the password is sent, so that each form can be hidden in replies."""
    if options.login is None:
        return ()
    user, password = options.login
    plain = f"\0{user}\0{password}"
    return (*(binascii.b2a_base64(text.encode(), newline=False).decode() for text in (plain, password)), password)


async def _greet(smtp: Client) -> None:
    """Send EHLO, or HELO to an old server."""
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == CLOSING or not smtp.is_connected:
            raise
        await smtp.helo()


def drop(smtp: Client) -> None:
    """Close a connection at once and without QUIT, because it is not ready for mail yet."""
    transport = smtp.transport
    smtp.close()
    if transport is not None:
        cast("asyncio.WriteTransport", transport).abort()
