"""A subscribed connection, from the first SUBSCRIBE to its loss, and the check that it is alive; floor 4.

redis-py opens the connection (address, TLS, login). Then its transport calls this protocol directly from the event
loop, without a task or an `await` per message. Reconnecting is the job of `router.broker.pubsub.pubsub_source`.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection

from router.broker.pubsub.commands import Commands
from router.broker.pubsub.messages import BROKEN, Messages
from router.broker.pubsub.read_ahead import BLOCK, LEAST, SLICE, ReadAhead
from router.broker.pubsub.subscriptions import Subscriptions
from router.broker.server import client
from router.contracts import Clock
from router.events import RawBatch

MOMENT = 0.01
"""The minimum number of seconds between two checks of a connection."""

ROUNDED = 0.001
"""Seconds by which a timer of uvloop may fire too early, because uvloop counts in milliseconds."""

STANDSTILL = 0.25
"""Seconds by which a timer may be late. If a timer is later than this, the event loop counts as blocked."""


class Subscriber(asyncio.BufferedProtocol):
    """A subscribed connection, from the first SUBSCRIBE to its loss.

    `receive` is called with the batches of each chunk, in order, and must not block. If `receive` raises an exception,
    the connection ends, and `crash` is this exception. A chunk is processed at once if no bytes wait and the socket is
    probably empty. Otherwise the chunk is added to `read_ahead`. Times are seconds of `clock.monotonic`.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        subscriptions: Subscriptions,
        receive: Callable[[Sequence[RawBatch]], None],
        clock: Clock,
        read_ahead: ReadAhead,
    ) -> None:
        self.last_byte = clock.monotonic()
        self.unproven_since: float | None = None
        """The time of the last byte before a silence; None once a PING that was sent after the silence is answered."""
        self.crash: Exception | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        """Done when the connection is lost; the result is the reason."""
        self.commands = Commands(subscriptions, self._write, self.abort, self._prove)
        self.behind = 0
        """The number of bytes of this connection that were read and are not parsed yet."""
        self._receive = receive
        self._monotonic = clock.monotonic
        self._connection = connection
        self._messages = Messages(self.commands)
        self._read_ahead = read_ahead
        self._block = read_ahead.block(self)
        self._broken = False
        self._silence = float("inf")
        self._transport = client.take_over(connection, self)

    @property
    def complete_until(self) -> float:
        """The time (`clock.monotonic`) up to which all published events were received, if the connection ends now.

        Bytes that are read after a silence may have waited in the socket while this process was suspended. Then nothing
        is known about the time at which they were sent. The server may even have dropped later messages.
        """
        return self.last_byte if self.unproven_since is None else self.unproven_since

    async def answered(self, patience: float) -> None:
        """Wait until every subscription is answered or the connection is lost, for `patience` seconds at most."""
        ends: list[asyncio.Future[Any]] = [self.commands.answered, self.lost]
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    def _write(self, data: bytes) -> None:
        """Send `data`.

        Do nothing while the transport is closing: uvloop would raise an error, and `connection_lost` follows.
        """
        if not self._transport.is_closing():
            self._transport.write(data)

    def readable(self) -> bool:
        """Return whether the socket holds bytes that the event loop has not read yet."""
        number = self._transport.get_extra_info("socket").fileno()
        if number < 0:
            return False
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self, why: str) -> None:
        """Close the connection at once, for the reason `why`."""
        self._lose(why)
        self._transport.abort()

    async def watch(self, ping_every: float, dead_after: float) -> str:
        """Send a PING every `ping_every` seconds until the connection is lost; return the reason of the loss.

        The time between the first two PINGs may be shorter. If no byte arrives for `dead_after` seconds, the connection
        counts as lost. Time in which this event loop was blocked does not count. If bytes wait in the socket, they are
        read before the connection can count as lost.
        """
        self._silence = ping_every + STANDSTILL
        heard, blocked, next_ping = self.last_byte, 0.0, self._monotonic()
        while not self.lost.done():
            now = self._monotonic()
            if now >= heard + blocked + dead_after and not self.readable():
                self.abort(f"no byte from the server for {now - heard:.1f} s")
                break
            if now >= next_ping:
                self.commands.ping(for_proof=self.unproven_since is not None)
                next_ping = now + ping_every - now % ping_every  # all tasks with this period run at the same times
            due = max(min(next_ping, heard + blocked + dead_after), now + MOMENT)
            await asyncio.wait([self.lost], timeout=due - now + ROUNDED)
            now = self._monotonic()
            if self.last_byte != heard:
                heard, blocked = self.last_byte, 0.0
            late = min(now - due, now - heard)  # count only the time since the last byte
            if late > STANDSTILL:
                blocked += late
        return self.lost.result()

    async def leave(self, patience: float, over: asyncio.Future[None]) -> None:
        """Unsubscribe, deliver everything that was published before the unsubscription, and close the connection.

        `patience` is the number of seconds allowed for the server's answer. Bytes that were read ahead are processed
        before the answer. Their processing may take longer than `patience`, but ends when `over` is done.
        """
        if not self.lost.done():
            ends: list[asyncio.Future[Any]] = [self.commands.leave(), self.lost]
            waits = True
            while waits:
                behind = self.behind
                awaited = [*ends, over] if behind else ends
                done, _ = await asyncio.wait(awaited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                waits = not done and bool(behind or self.behind)
        await self.close()

    async def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self.abort("closed by the router")
        await client.close(self._connection)

    # Called by the event loop.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return the buffer for the next bytes: the free space of the block, limited by the room of the read-ahead."""
        block, room = self._block, max(self._read_ahead.room, LEAST)
        if not block.filled and room >= BLOCK:
            return block.data
        return block.data[block.filled : block.filled + room]

    def buffer_updated(self, nbytes: int) -> None:
        """Process the bytes of one chunk, or add them to the read-ahead."""
        now = self._monotonic()
        if now - self.last_byte > self._silence:
            # From now on, only the answer to a new PING proves that no message is missing.
            self.unproven_since = self.complete_until
            self.commands.doubt()
        self.last_byte = now
        ahead = self._read_ahead
        if not self.behind:
            if not ahead.size and nbytes <= SLICE:
                self._parse(self._block.data, 0, nbytes, self.deliver)
                return
            # This connection is new, and bytes of the previous connection wait. Parse now. If the answers to SUBSCRIBE
            # had to wait behind the old bytes, the source would give up this connection.
            if not self.commands.answered.done():
                self._parse(self._block.data, 0, nbytes, partial(self._deliver_after, nbytes))
                return
        self.behind += nbytes
        ahead.add(self._block, nbytes)
        if not self._block.open:
            self._block = ahead.block(self)
        if ahead.room <= 0:
            self._pause()

    def process(self, data: memoryview, start: int, size: int) -> None:
        """Implements `read_ahead.Owner`. Ignores the bytes if earlier bytes did not follow the pub/sub protocol."""
        self.behind -= size
        if not self._broken:
            self._parse(data, start, size, self.deliver)

    def deliver(self, batches: list[RawBatch]) -> None:
        """Implements `read_ahead.Owner`."""
        try:
            self._receive(batches)
        except Exception as error:  # noqa: BLE001  # the source logs `crash` and reconnects
            self.crash = error
            self.abort(f"the router could not process the received events: {error!r}")

    def count(self, data: memoryview, start: int, size: int) -> int:
        """Implements `read_ahead.Owner`."""
        batches: list[RawBatch] = []
        self.behind -= size
        if not self._broken:
            self._parse(data, start, size, batches.extend)
        return sum(len(batch.payloads) for batch in batches)

    def _parse(self, data: memoryview, start: int, size: int, deliver: Callable[[list[RawBatch]], None]) -> None:
        batches: list[RawBatch] = []
        failure: Exception | None = None
        try:
            self._messages.parse(data, start, size, batches)
        except BROKEN as error:
            failure = error
        if batches:
            deliver(batches)
        if failure is not None:
            self._broken = True
            self.abort(f"the server sent bytes that are not valid in pub/sub: {failure}")

    def _deliver_after(self, size: int, batches: list[RawBatch]) -> None:
        """Deliver the batches of a chunk of `size` bytes after everything that waits."""
        if self._read_ahead.size:
            self._read_ahead.add_parsed(self, batches, size)
        else:
            self.deliver(batches)

    def _prove(self) -> None:
        self.unproven_since = None

    def _pause(self) -> None:
        """Pause reading until the read-ahead has room.

        During the pause, the server stores the messages that it can't send.
        """
        if self._transport.is_closing() or not self._transport.is_reading():
            return
        self._transport.pause_reading()
        self._read_ahead.resume_with(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """Record that the server closed the connection."""
        self._lose("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the transport is closed, with or without an error."""
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc or "")
        self._lose(why.lower() or "the server closed the connection")

    def _lose(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
