"""A peer that speaks pub/sub and says what a test wants, to a source that has subscribed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"


def message(payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%s\r\n" % (len(payload), payload)


class Peer:
    """Answers the handshake, then says to each SUBSCRIBE what the test wants."""

    def __init__(self) -> None:
        self.say: Callable[[asyncio.StreamWriter], Awaitable[None]]
        self.pong = b"+PONG\r\n"
        self.pings = 0
        self.parting = b""
        self.port = 0
        self._writer: asyncio.StreamWriter | None = None

    def send(self, data: bytes) -> None:
        """Say something more to the last who subscribed."""
        assert self._writer is not None
        self._writer.write(data)

    def end(self) -> None:
        """Send what is left, and say that nothing more follows, to the last who subscribed."""
        assert self._writer is not None
        self._writer.write_eof()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pings = 0
        try:
            while line := await reader.readline():
                word = line.strip().upper()
                if word == b"SETNAME":
                    writer.write(b"+OK\r\n")
                elif word == b"PING":
                    pings += 1
                    self.pings += 1
                    writer.write(self.pong if pings > 1 else b"+PONG\r\n")  # the first is part of the handshake
                elif word == b"SUBSCRIBE":
                    self._writer = writer
                    await self.say(writer)
                elif word == b"UNSUBSCRIBE":
                    writer.write(self.parting)
                elif word == b"PUNSUBSCRIBE":
                    writer.write(b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n")
        except OSError:
            pass
        finally:
            writer.close()


def saying(*chunks: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def say(writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)

    return say
