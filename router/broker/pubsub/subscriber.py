"""One subscribed connection, from the first SUBSCRIBE to its loss, and whether it still lives; floor 4.

redis-py opens the connection (address, TLS, login); from then on its transport feeds this protocol straight from the
event loop: no task and no `await`. One call hands on what one chunk of the socket held. Nothing here reconnects; that is
`router.broker.pubsub.pubsub_source`.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from router.broker.pubsub.commands import Commands
from router.broker.pubsub.messages import BROKEN, Messages
from router.broker.pubsub.subscriptions import Subscriptions
from router.broker.server import client
from router.contracts import Clock
from router.errors import UnavailableError
from router.events import RawBatch

CHUNK = 64 * 1024
"""Bytes read from the socket at once, and in one turn of the event loop."""

MOMENT = 0.01
"""Seconds: the least time between two looks at a connection."""

STANDSTILL = 0.25
"""Seconds that a timer may be late before it counts as the event loop standing still."""


class Subscriber(asyncio.BufferedProtocol):
    """A connection that is subscribed, from the first SUBSCRIBE to its loss.

    `deliver` gets the batches of each chunk, in order; it must not wait. An exception it raises ends the connection and
    stands in `crash`. Times are seconds of `clock.monotonic`.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        subscriptions: Subscriptions,
        deliver: Callable[[Sequence[RawBatch]], None],
        clock: Clock,
    ) -> None:
        self.last_byte = clock.monotonic()
        self.unproven_since: float | None = None
        """When the last byte before a silence came, until a PING sent after the silence is answered; else None."""
        self.crash: Exception | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        """Done when the connection is gone; its result says why."""
        self.commands = Commands(subscriptions, self._write, self.abort, self._prove)
        self._deliver = deliver
        self._monotonic = clock.monotonic
        self._connection = connection
        self._messages = Messages(self.commands)
        self._buffer = memoryview(bytearray(CHUNK))
        self._silence = float("inf")
        self._transport = self._take_over(connection)

    def _take_over(self, connection: AbstractConnection) -> asyncio.Transport:
        """Put this protocol in the place of redis-py's stream reader, which has read everything that was asked for."""
        writer, reader = connection._writer, connection._reader  # noqa: SLF001  # there is no other way to its transport
        if writer is None or reader is None or reader.at_eof() or writer.transport.is_closing():
            raise UnavailableError("the server closed the connection")
        transport = writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # uvloop picks the kind of reading when it begins
        transport.set_protocol(self)
        transport.resume_reading()  # type: ignore[attr-defined]
        return transport  # type: ignore[return-value]

    @property
    def complete_until(self) -> float:
        """The time (`clock.monotonic`) until which all that was published is known to have come, if the connection ends now.

        What is read after a silence may have waited in the socket while this process stood still: of when it was sent,
        and of what the server has dropped since, it says nothing.
        """
        return self.last_byte if self.unproven_since is None else self.unproven_since

    async def settled(self, patience: float) -> None:
        """Wait until the server has answered every subscription, or is lost, for `patience` seconds at most."""
        ends: list[asyncio.Future[Any]] = [self.commands.answered, self.lost]
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    def _write(self, data: bytes) -> None:
        """Send; nothing once the connection is closing, of which we are about to be told (uvloop would raise)."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def readable(self) -> bool:
        """Return whether the socket holds something that the event loop has not come to read yet."""
        number = self._transport.get_extra_info("socket").fileno()
        if number < 0:
            return False
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self, why: str) -> None:
        """Give the connection up at once."""
        self._lose(why)
        self._transport.abort()

    async def watch(self, ping_every: float, dead_after: float) -> str:
        """Ping every `ping_every` seconds; return, when the connection is lost, why.

        It is lost too when no byte has come for `dead_after` seconds. Time in which our own event loop stood still is no
        silence of the other side: it is left out, and what waits in the socket is read before anything is judged.
        """
        self._silence = ping_every + STANDSTILL
        heard, pardon, next_ping = self.last_byte, 0.0, self._monotonic()
        while not self.lost.done():
            now = self._monotonic()
            if now >= heard + pardon + dead_after and not self.readable():
                self.abort(f"no byte from the server for {now - heard:.1f} s")
                break
            if now >= next_ping:
                self.commands.ping(for_proof=self.unproven_since is not None)
                next_ping = now + ping_every
            due = max(min(next_ping, heard + pardon + dead_after), now + MOMENT)
            await asyncio.wait([self.lost], timeout=due - now)
            now = self._monotonic()
            if self.last_byte != heard:
                heard, pardon = self.last_byte, 0.0
            late = min(now - due, now - heard)  # of the standstill only what came after that byte
            if late > STANDSTILL:
                pardon += late
        return self.lost.result()

    async def leave(self, patience: float) -> None:
        """Unsubscribe and hand on everything published before the server did so, for `patience` seconds at most."""
        if not self.lost.done():
            ends: list[asyncio.Future[Any]] = [self.commands.leave(), self.lost]
            await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        await self.close()

    async def close(self) -> None:
        """Close the connection; harmless twice."""
        self.abort("closed by the router")
        await client.close(self._connection)

    # What the event loop calls.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return where the next bytes go: always the same place, for they are taken at once."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes of one chunk."""
        now = self._monotonic()
        if now - self.last_byte > self._silence:  # the next PING proves that nothing is missing; those before do not
            self.unproven_since = self.complete_until
            self.commands.doubt()
        self.last_byte = now
        if nbytes == CHUNK:
            self._let_others_work()
        batches: list[RawBatch] = []
        failure: Exception | None = None
        try:
            self._messages.parse(self._buffer, nbytes, batches)
        except BROKEN as error:
            failure = error
        if batches:
            self._hand_on(batches)
        if failure is not None:
            self.abort(f"the server sent what is not pub/sub: {failure}")

    def _prove(self) -> None:
        self.unproven_since = None

    def _let_others_work(self) -> None:
        """Read on in the next turn of the event loop.

        Under a flood uvloop would take up to 32 chunks in one turn, as libuv does while each fills the buffer: then
        nothing else is done for some 50 ms, again and again, and what was received is not queued as fast as it comes.
        """
        if self._transport.is_closing() or not self._transport.is_reading():
            return
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The server ended the connection."""
        self._lose("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc or "")
        self._lose(why.lower() or "the server closed the connection")

    def _hand_on(self, batches: list[RawBatch]) -> None:
        try:
            self._deliver(batches)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again where somebody waits
            self.crash = error
            self.abort(f"the router failed: {error!r}")

    def _lose(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
