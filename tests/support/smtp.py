"""Real SMTP servers on the loopback for tests: plain, STARTTLS, TLS, with AUTH, refusing by script, hanging."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

PIPELINING = False
"""Whether servers offer PIPELINING; `both_dialogues` runs each test of a module with and without it."""


@pytest.fixture(params=["one-by-one", "pipelining"])
def both_dialogues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with a server that does not offer PIPELINING, and with one that does."""
    monkeypatch.setitem(globals(), "PIPELINING", request.param == "pipelining")


@dataclass
class Received:
    """One mail that a server took."""

    sender: str
    recipients: list[str]
    content: bytes
    options: list[str]
    connection: int

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        message = message_from_bytes(self.content, policy=POLICY)
        assert isinstance(message, EmailMessage)
        return message

    def text(self, kind: str = "plain") -> str:
        """The decoded body of one kind."""
        part = self.message.get_body((kind,))
        assert part is not None
        return part.get_content()


Answer = str | Callable[[], Any] | None
"""What the server says instead of yes: an answer line; a function is called (and awaited), and then it is a yes."""


@dataclass
class Postbox:
    """What a server took and what it was told to refuse.

    `recipients` maps an address to the answers to its RCPTs in turn (yes after the last); `mail`, `data`, `rset` and
    `ehlo` are the answers to those in turn. `most` is how many MAILs one connection may bring, `full` the answer to more.
    """

    taken: list[Received] = field(default_factory=list)
    recipients: dict[str, list[Answer]] = field(default_factory=dict)
    mail: list[Answer] = field(default_factory=list)
    data: list[Answer] = field(default_factory=list)
    rset: list[Answer] = field(default_factory=list)
    ehlo: list[Answer] = field(default_factory=list)
    most: int | None = None
    full: str = "452 4.5.3 too many mails on this connection"
    names: list[str] = field(default_factory=list)
    mails: Counter[SMTP] = field(default_factory=Counter)
    commands: list[str] = field(default_factory=list)
    credentials: list[tuple[str, str]] = field(default_factory=list)
    password: str | None = None
    connections: list[SMTP] = field(default_factory=list)
    goodbyes: int = 0
    port: int = 0

    def drop_connections(self) -> None:
        """Cut every open connection without a word."""
        for connection in self.connections:
            if connection.transport is not None and not connection.transport.is_closing():
                connection.transport.abort()

    @property
    def reached(self) -> list[str]:
        """Every recipient of every mail taken, in order."""
        return [recipient for mail in self.taken for recipient in mail.recipients]

    # --- what aiosmtpd calls -----------------------------------------------------------------------------------

    async def handle_EHLO(self, server, session, envelope, hostname, responses) -> list[str]:  # noqa: N802
        self.names.append(hostname)
        session.host_name = hostname
        refusal = await _next(self.ehlo)
        if PIPELINING:
            responses.insert(1, "250-PIPELINING")
        return responses if refusal is None else [refusal]

    async def handle_MAIL(self, server, session, envelope, address, mail_options) -> str:  # noqa: N802
        self.commands.append(f"MAIL {address}")
        self.mails[server] += 1
        if self.most is not None and self.mails[server] > self.most:
            return self.full
        answer = await _next(self.mail) or "250 OK"
        if answer.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(mail_options)
        return answer

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options) -> str:  # noqa: N802
        self.commands.append(f"RCPT {address}")
        answer = await _next(self.recipients.get(address, [])) or "250 OK"
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        self.commands.append("DATA")
        answer = await _next(self.data) or "250 OK: queued"
        if not answer.startswith("2"):
            return answer
        self.taken.append(
            Received(
                envelope.mail_from,
                list(envelope.rcpt_tos),
                envelope.original_content,
                list(envelope.mail_options),
                self.connections.index(server),
            )
        )
        return answer

    async def handle_RSET(self, server, session, envelope) -> str:  # noqa: N802
        self.commands.append("RSET")
        return await _next(self.rset) or "250 OK"

    async def handle_QUIT(self, server, session, envelope) -> str:  # noqa: N802
        self.goodbyes += 1
        return "221 Bye"

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = data.password.decode()
        self.credentials.append((data.login.decode(), given))
        if given == self.password:
            return AuthResult(success=True)
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 {given} is not the password")


async def _next(answers: list[Answer]) -> str | None:
    answer = answers.pop(0) if answers else None
    if callable(answer):
        result = answer()
        if asyncio.iscoroutine(result):
            await result
        return None
    return answer


@contextlib.asynccontextmanager
async def smtp_server(
    *,
    tls: str = "none",
    certificate: ssl.SSLContext | None = None,
    password: str | None = None,
    size: int | None = None,
    utf8: bool = False,
) -> AsyncIterator[Postbox]:
    """A server; `tls` is `none`, `starttls` or `tls`, with `password` it takes mail only after AUTH."""
    box = Postbox(password=password)

    class Server(SMTP):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self not in box.connections:  # STARTTLS makes a connection a second time
                box.connections.append(self)

    def factory() -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # AUTH without TLS: on the loopback, on purpose
            return Server(
                box,
                hostname="mail.test",
                data_size_limit=size if size is not None else 33554432,
                enable_SMTPUTF8=utf8,
                tls_context=certificate if tls == "starttls" else None,
                auth_required=password is not None,
                auth_require_tls=password is None,
                authenticator=box.authenticate if password is not None else None,
            )

    server = await asyncio.get_running_loop().create_server(
        factory, "127.0.0.1", 0, ssl=certificate if tls == "tls" else None
    )
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        box.drop_connections()
        await asyncio.sleep(0)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def talking_server(script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """A server whose every connection runs a coroutine function; yields its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def greeting(line: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """A script: say one line and close."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line.encode() + b"\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return script


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """A script: listen for ever and say nothing."""
    while await reader.read(1024):
        pass


@dataclass
class Authority:
    """A private CA; `file` is its certificate."""

    ca: trustme.CA
    file: Path

    def certificate(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's certificate for these names (default: the loopback's)."""
        until = datetime(2020, 1, 1, tzinfo=UTC) if expired else None
        since = datetime(2019, 1, 1, tzinfo=UTC) if expired else None
        issued = self.ca.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=until, not_before=since)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(context)
        return context


def authority(folder: Path) -> Authority:
    """A new CA, its certificate in `folder`."""
    ca = trustme.CA()
    file = folder / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)
