"""What the tests of the broker share: a receiver that keeps everything, sources that are stopped after the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from router.broker.pubsub import PubSubSource, Timing
from router.events import RawBatch

QUICK = Timing(ping_every=0.05, dead_after=0.4, first_delay=0.02, longest_delay=0.2, open=1.0, stable=0.1, leave=1.0)


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
    """Somebody else in the process (`solitude.Member`), who has deliveries in hand or has not."""

    at_work: bool


async def until(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """Wait until `condition()` is truthy and return it; fail after `within` seconds."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {within} s"
        await asyncio.sleep(0.005)
    return value


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def source(recorder, clock) -> AsyncIterator[Callable[..., PubSubSource]]:
    """Make a source: `source(url, names, globs, **changes)`; each is stopped after the test."""
    made: list[PubSubSource] = []

    def make(url: str, names: Sequence[str] = (), globs: Sequence[str] = (), **changes: Any) -> PubSubSource:
        options = {"receiver": recorder, "clock": clock, "timing": QUICK, "connect_timeout": 2.0, **changes}
        made.append(PubSubSource("web", url, names, globs, **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()
