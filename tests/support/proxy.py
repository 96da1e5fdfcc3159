"""A TCP proxy between the router and a server, to break the path on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

from tests.support.waiting import moment

UP, DOWN = "up", "down"
"""Directions: from the router to the server, and back."""


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes bytes to a server, until told otherwise.

    `latency` (seconds) delays every chunk. `hole` names the directions whose bytes are swallowed (connections stay open
    and new ones are accepted: a dead path without a RST), and `swallowed` counts them. `refuse` True closes new connections at once.
    `hold` is a word: what the router sends with it waits until `release`, and `held` counts it.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.latency = 0.0
        self.hole: frozenset[str] = frozenset()
        self._swallow_after = b""
        self.refuse = False
        self.accepted = 0
        self.swallowed = 0
        self.hold = b""
        self.held = 0
        self._released = asyncio.Event()
        self._target = (host, port)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def blackhole(self, *directions: str) -> None:
        """Swallow everything, or only one direction (a one-way drop)."""
        self.hole = frozenset(directions or (UP, DOWN))

    def swallow_answers_after(self, word: bytes) -> None:
        """Swallow the answers from the moment on at which the router sends something with this word, and not before.

        A command that happens to be under way, or a connection that is made anew, gets its answers still.
        """
        self._swallow_after = word

    def release(self) -> None:
        """Pass what was held, and hold nothing any more."""
        self.hold = b""
        self._released.set()

    def heal(self) -> None:
        """Pass everything again: connections made meanwhile stay dead, as bytes of theirs are gone."""
        self.hole = frozenset()
        self._swallow_after = b""

    def cut(self) -> None:
        """Close every connection (FIN)."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def reset(self) -> None:
        """Reset every connection (RST)."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()

    def inject(self, data: bytes) -> int:
        """Send every router bytes that the server did not; returns to how many connections."""
        for writer in self._clients:
            writer.write(data)
        return len(self._clients)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self._writers.add(writer)
        self._clients.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            if not self.refuse:
                back, other = await asyncio.open_connection(*self._target)
                self._writers.add(other)
                await asyncio.gather(self._pass(reader, other, UP), self._pass(back, writer, DOWN))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(writer)
            for each in filter(None, (writer, other)):
                each.close()
                self._writers.discard(each)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        while chunk := await reader.read(65536):
            if self.latency:
                await moment(self.latency)
            if direction == UP and self.hold and self.hold in chunk:
                self.held += 1
                await self._released.wait()
            if direction == UP and self._swallow_after and self._swallow_after in chunk:
                self.blackhole(DOWN)
            if direction in self.hole:
                self.swallowed += len(chunk)
            else:
                writer.write(chunk)
                await writer.drain()
        if direction not in self.hole:
            writer.close()
