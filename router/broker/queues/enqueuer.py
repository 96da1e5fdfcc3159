"""The enqueuer: appends deliveries to the Redis queues, in batches, one script call each, behind the pipeline's back; floor 4.

Every source has an outbox of its own, so that one whose queue is full holds back nobody else. A batch whose answer was lost
is sent again under its number, and the script appends it once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from router.broker.queues.entry_cargo import EntryCargo
from router.broker.queues.inbox import Inbox
from router.broker.queues.published_cargo import PublishedCargo
from router.broker.queues.queue_scripts import APPEND, APPEND_ENTRIES
from router.broker.server import keys
from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.outage import Outage
from router.broker.server.outbox import Buffer, Outbox
from router.contracts import Dropped, QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.events import Event

log = structlog.stdlib.get_logger(__name__)


class _Lane(NamedTuple):
    """The deliveries of one source, and the outbox that sends them."""

    cargo: PublishedCargo | EntryCargo
    outbox: Outbox


class Enqueuer:
    """Appends what the pipeline hands in, to the queues of all sinks.

    While Redis refuses writes the deliveries wait in memory. Of sources that can't be held back `buffer_bytes` may wait;
    what comes on top is dropped (reason `outage`). `say` logs a warning, at most once a minute for each thing; `outage` is
    that of all Redis queues together.
    """

    def __init__(
        self,
        server: Server,
        *,
        prefix: str,
        buffer_bytes: int,
        say: Callable[..., None],
        outage: Outage,
        delays: tuple[float, float] = (0.05, 2.0),
    ) -> None:
        self.buffer = Buffer(buffer_bytes)
        """Bounds the records of pub/sub sources that wait; what Python needs around them comes to less than half of that."""
        self._server = server
        self._prefix = prefix
        self._say = say
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._health = Health(
            server.shown,
            outage,
            begins=partial(log.error, "deliveries can't be queued in Redis; they wait in memory"),
            ends=partial(log.warning, "deliveries are queued in Redis again"),
            delays=delays,
        )

    @property
    def reason(self) -> str | None:
        """Why deliveries can't be enqueued; None while they can."""
        return self._health.reason

    def inbox(self, sink: str, limits: QueueLimits, book: SinkBook, dropped: Dropped) -> Inbox:
        """Return where the deliveries of a sink are handed in."""
        return Inbox(sink, limits, prefix=self._prefix, book=book, dropped=dropped, put=self._put)

    async def close(self, patience: float) -> dict[str, int]:
        """Enqueue what waits, for `patience` seconds at most, and end; return how much is lost, by sink."""
        lanes = list(self._lanes.values())
        await asyncio.gather(*(lane.outbox.drain(patience) for lane in lanes))
        lost: dict[str, int] = {}
        for lane in lanes:
            for sink, number in lane.cargo.lost().items():
                lost[sink] = lost.get(sink, 0) + number
        self._lanes.clear()
        return lost

    def signs(self) -> list[Sign]:
        """Return what is being done for each source, for the watchdog."""
        return [
            sign
            for (source, _), lane in self._lanes.items()
            for sign in lane.outbox.signs(f"queueing of source {source}")
        ]

    def _put(self, inbox: Inbox, events: list[Event]) -> None:
        """Take deliveries of one source, bound for one sink."""
        first = events[0]
        # What a sink hands over to another comes under its source's name, but is waited for as if it were acknowledged.
        name = first.source, first._receipt is None
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._lane(*name)
        lane.cargo.put(inbox, events)
        lane.outbox.wake()

    def _lane(self, source: str, published: bool) -> _Lane:  # the two halves of a key
        guard = keys.enqueued_batch(self._prefix, os.urandom(8).hex())
        frame = guard, keys.handed(self._prefix)
        cargo: PublishedCargo | EntryCargo
        if published:
            cargo, script, what = PublishedCargo(frame, self.buffer), APPEND, "events"
        else:
            cargo, script, what = EntryCargo(frame, source, self._say), APPEND_ENTRIES, "entries"
        outbox = Outbox(f"enqueue {what} of {source}", self._server, script, cargo, self._health)
        outbox.start()
        return _Lane(cargo, outbox)
