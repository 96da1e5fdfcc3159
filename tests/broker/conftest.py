"""What the tests of the broker share: a receiver that keeps everything, sources that are stopped after the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from router.broker.pubsub.pubsub_source import PubSubSource, Timing
from router.events import RawBatch
from tests.support.pubsub_peer import Peer
from tests.support.waiting import PATIENCE, until

QUICK = Timing(ping_every=0.05, dead_after=PATIENCE, first_delay=0.02, longest_delay=0.2, stable=0.1, leave=PATIENCE)
"""Tries again quickly; a machine so busy that nothing happens for seconds is not a fault that it finds."""

WATCHFUL = replace(QUICK, dead_after=0.4, open=1.0)
"""For tests of a server that says nothing. A busy machine may look like one: then there are more gaps than were made."""


class Recorder:
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[RawBatch] = []
        self.calls = 0

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        self.calls += 1
        self.batches += batches

    @property
    def events(self) -> list[tuple[bytes, bytes | None, bytes]]:
        """(channel, pattern, payload) of each message, in order."""
        return [(b.channel, b.pattern, payload) for b in self.batches for payload in b.payloads]

    @property
    def payloads(self) -> list[bytes]:
        return [payload for b in self.batches for payload in b.payloads]


@dataclass(eq=False)
class Neighbour:
    """Somebody else in the process (`crash_isolation.Member`), who has deliveries in flight or has not."""

    at_work: bool


async def one_more_byte(web: PubSubSource, clock: Any) -> float:
    """Wait until the server has said something, as it does to each PING; returns when that was."""
    now = clock.monotonic()
    return await until(lambda: max(web.last_byte or 0.0, now) - now) + now


async def grow_old(web: PubSubSource, clock: Any, seconds: float) -> None:
    """Let the clock run on, in steps too small to count as a standstill of ours, with a byte between each two."""
    for _ in range(int(seconds / 0.2)):
        clock.ahead += 0.2
        await one_more_byte(web, clock)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def source(recorder, clock) -> AsyncIterator[Callable[..., PubSubSource]]:
    """Make a source: `source(url, names, globs, **changes)`; each is stopped after the test."""
    made: list[PubSubSource] = []

    def make(url: str, names: Sequence[str] = (), globs: Sequence[str] = (), **changes: Any) -> PubSubSource:
        options = {"receiver": recorder, "clock": clock, "timing": QUICK, "connect_timeout": PATIENCE, **changes}
        made.append(PubSubSource("web", url, names, globs, **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
async def peer():
    one = Peer()
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0) as listener:
        one.port = listener.sockets[0].getsockname()[1]
        yield one
