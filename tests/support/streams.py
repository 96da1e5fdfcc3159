"""Stream sources for tests: a receiver that decides what becomes of each entry, and what the server knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from router.broker.groups.group_source import SourceHost, SourceTiming
from router.broker.server import client
from router.broker.streams.stream_source import StreamOptions, StreamSource
from router.errors import Reason
from router.events import RawBatch
from tests.support.redis import RedisServer
from tests.support.waiting import PATIENCE

QUICK = SourceTiming(
    block=0.05,
    dead_after=PATIENCE,
    first_delay=0.02,
    longest_delay=0.2,
    stable=0.1,
    leave=PATIENCE,
)
WATCHFUL = replace(QUICK, dead_after=1.5, leave=1.0)
"""For tests of a server that says nothing. A busy machine may look like one."""


class Desk:
    """A receiver that keeps what it is given, and settles it at once unless it is told to hold it."""

    def __init__(self) -> None:
        self.hold = False
        self.batches: list[RawBatch] = []
        self.refused: list[tuple[RawBatch, Reason, str]] = []
        self.held: list[tuple[Any, int, bytes]] = []
        """(receipt, position, payload) of what is not settled."""

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        self.batches += batches
        for batch in batches:
            for position, payload in enumerate(batch.payloads, batch.first):
                if batch.receipt is not None:
                    batch.receipt.expect(position, 1)
                    self.held.append((batch.receipt, position, payload))
        if not self.hold:
            self.settle()

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        self.refused.append((batch, reason, detail))
        if batch.receipt is not None:
            batch.receipt.expect(0, 1)
            self.held.append((batch.receipt, 0, b""))
        if not self.hold:
            self.settle()

    def settle(self, *payloads: bytes) -> None:
        """Settle what is held: these payloads, or all."""
        ready = [one for one in self.held if not payloads or one[2] in payloads]
        self.held = [one for one in self.held if one not in ready]
        for receipt, position, _ in ready:
            receipt.settle(position)

    def come_back(self) -> None:
        """An attempt of everything held comes back, to be repeated."""
        for receipt, position, _ in self.held:
            receipt.returned(position)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for batch in self.batches for payload in batch.payloads]

    @property
    def ids(self) -> list[str]:
        return [one for batch in self.batches for one in batch.ids or ()]

    @property
    def headers(self) -> list[dict[str, str] | None]:
        return [one for batch in self.batches for one in batch.headers or ()]

    @property
    def sizes(self) -> list[int]:
        return [len(batch.payloads) for batch in self.batches]


def add(server: RedisServer, stream: str, *payloads: Any, **options: Any) -> list[str]:
    """Add an entry for each payload; returns their ids."""
    with server.client(**options) as client:
        pipeline = client.pipeline(transaction=False)
        for payload in payloads:
            pipeline.xadd(stream, {"payload": payload})
        return [one.decode() for one in pipeline.execute()]


def pending(server: RedisServer, stream: str, group: str = "g") -> dict[str, tuple[str, int]]:
    """The pending entries: consumer and count of deliveries by id."""
    with server.client() as client:
        rows = client.xpending_range(stream, group, "-", "+", 100_000)
    return {row["message_id"].decode(): (row["consumer"].decode(), row["times_delivered"]) for row in rows}


def server_ms(server: RedisServer) -> int:
    """The time of the server, in milliseconds since the epoch."""
    with server.client() as client:
        seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


def renewed_at(server: RedisServer, stream: str, group: str = "g") -> list[int]:
    """The times at which the pending entries were last read, claimed or renewed, in milliseconds by the server."""
    now = server_ms(server)
    with server.client() as client:
        return [now - row["time_since_delivered"] for row in client.xpending_range(stream, group, "-", "+", 1_000)]


def set_count(server: RedisServer, entry: str, deliveries: int, stream: str = "billing") -> None:
    """Set how often a pending entry was delivered."""
    with server.client() as client:
        client.xclaim(stream, "g", "me", 0, [entry], retrycount=deliveries, justid=True)


def consumers(server: RedisServer, stream: str, group: str = "g") -> list[str]:
    with server.client() as client:
        return sorted(row["name"].decode() for row in client.xinfo_consumers(stream, group))


_OWN = {"connect_timeout", "waiting", "isolation", "timing", "book"}


def source_of(url: str, streams: Sequence[str], desk: Desk, clock: Any, **changes: Any) -> StreamSource:
    """A source `billing` that is not started, consumer `me` of the group `g`."""
    own = {"timing": QUICK, **{name: value for name, value in changes.items() if name in _OWN}}
    options = {"group": "g", "consumer": "me", "start": "oldest", "sweep_every": 0.2, **changes}
    said = StreamOptions(streams=streams, **{name: value for name, value in options.items() if name not in _OWN})
    return StreamSource("billing", client.server(url), said, SourceHost(receiver=desk, clock=clock, **own))


@asynccontextmanager
async def running(
    url: str, streams: Sequence[str], desk: Desk, clock: Any, *, crash: bool = False, **changes: Any
) -> AsyncIterator[StreamSource]:
    """A source that reads; with `crash` it ends as a killed process does: nothing more is acknowledged or given back."""
    source = source_of(url, streams, desk, clock, **{"connect_timeout": PATIENCE, **changes})
    try:
        await source.start()
    except BaseException:
        await source.stop()
        await source.close()
        raise
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        if crash:
            source.reader.stop.set()
            await source.reader.acknowledger.close(0.0)
        await source.stop()
        await source.close()
        await task


class Renewals:
    """Counts how often the oldest pending entry was seen to be renewed: its idle time fell between two looks."""

    def __init__(self, server: RedisServer, stream: str, group: str = "g") -> None:
        self._server = server
        self._where = (stream, group)
        self._idle = 0
        self._seen = 0

    def seen(self) -> int:
        with self._server.client() as client:
            idle = client.xpending_range(*self._where, "-", "+", 1)[0]["time_since_delivered"]
        self._seen += idle < self._idle
        self._idle = idle
        return self._seen
