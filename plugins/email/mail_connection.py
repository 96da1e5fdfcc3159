"""One connection to the mail server, after EHLO and the login.

Several commands can be sent together, and each command gets its own reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiosmtplib import SMTPResponse

from .headers import CONTROL

CLOSING = 421
MALFORMED = -1  # stands for the code of a reply that has no code
ENDING = frozenset({CLOSING, MALFORMED})  # no reply follows a reply with one of these codes
LONGEST = 32768  # the maximum number of bytes of a reply


class MailConnection(asyncio.Protocol):
    """A connection that is ready for mail.

    `extensions` are the SMTP extensions that the server offers, by name in lower case. `used` is true if the connection
    has served an earlier delivery. `mails` is the number of accepted MAIL commands. `paused` is the idle time before
    the current delivery, in seconds.

    The connection is closed if a reply arrives that no command asked for. The next command could mistake this reply for
    its own. For example, servers send 421 to a client that was idle for too long.
    """

    used = False
    mails = 0
    paused = 0.0
    since = 0.0  # when the connection was put back into the pool, by the event loop's clock

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        self.extensions = extensions
        self.pipelining = "pipelining" in extensions  # RFC 2920
        self._transport = transport
        self._waiter: asyncio.Future[None] | None = None
        self._replies: list[SMTPResponse] = []
        self._missing = 0
        self._lines: list[bytes] = []  # the lines of the incomplete reply
        self._size = 0  # the number of bytes of these lines
        self._rest = b""  # the bytes of the incomplete line
        transport.set_protocol(self)

    @property
    def is_connected(self) -> bool:
        """True if commands can be sent."""
        return not self._transport.is_closing()

    async def command(self, *commands: str) -> list[SMTPResponse]:
        """Send commands in one write; return their replies.

        There are fewer replies than commands if the connection ends, or if a reply has a code in `ENDING`. Raises
        `ValueError` for a command with a control character, because a line break could begin another command.
        """
        if CONTROL.search("".join(commands)):
            raise ValueError("a command has a control character in it")
        return await self._exchange("\r\n".join((*commands, "")).encode(), len(commands))

    async def send(self, content: bytes) -> SMTPResponse | None:
        """Send the content of a mail, after the reply to DATA.

        Return the server's reply, or None if the connection ended.

        Every line of the content must end with CRLF.
        """
        # RFC 5321 section 4.5.2: a dot at the beginning of a line is doubled. The first line is a header without a dot.
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        return next(iter(await self._exchange(stuffed + b".\r\n", 1)), None)

    def drop(self) -> None:
        """Close the connection at once, without QUIT."""
        self._transport.abort()

    async def _exchange(self, data: bytes, replies: int) -> list[SMTPResponse]:
        if self._transport.is_closing():
            return []
        self._waiter = asyncio.get_running_loop().create_future()
        self._replies, self._missing = [], replies
        self._transport.write(data)
        try:
            await self._waiter
        finally:
            self._waiter = None
        return self._replies

    def data_received(self, data: bytes) -> None:
        """Read replies."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._transport.is_closing():
                return
            self._read(line)
        if len(self._rest) > LONGEST:
            self._found(MALFORMED, f"more than {LONGEST // 1024} KiB")
        if self._waiter is None or (self._waiter.done() and (self._rest or self._lines)):
            self._transport.abort()  # an incomplete reply would become part of the next one

    def connection_lost(self, _error: Exception | None) -> None:
        """End the wait of a command for more replies. The command returns the replies that it has received."""
        self._wake()

    def _read(self, line: bytes) -> None:
        """Read one line. The last line of a reply has no hyphen after the code (RFC 5321 section 4.2.1)."""
        if not line[:3].isdigit():
            self._found(MALFORMED, f"Malformed SMTP response line: {line.decode('utf-8', 'ignore').strip()}")
            return
        self._lines.append(line[4:].strip())
        self._size += len(line)
        if line[3:4] != b"-":
            text, self._lines, self._size = b"\n".join(self._lines), [], 0
            self._found(int(line[:3]), text.decode("utf-8", "surrogateescape"))
        elif self._size > LONGEST:
            self._found(MALFORMED, f"more than {LONGEST // 1024} KiB")

    def _found(self, code: int, text: str) -> None:
        """Store a reply. Close the connection if later replies can't be matched with their commands."""
        if len(self._replies) < self._missing and self._waiter is not None:
            self._replies.append(SMTPResponse(code, text))
            if code not in ENDING:
                if len(self._replies) == self._missing:
                    self._wake()
                return
        self._wake()
        self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
