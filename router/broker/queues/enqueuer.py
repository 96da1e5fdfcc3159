"""The enqueuer: appends deliveries to the Redis queues in the background, in batches; floor 4.

Every source has its own outbox, so that a full queue pauses only the sources that fill this queue. One script call
sends one batch. If the answer is lost, the batch is sent again under the same number, and the script appends the batch
only once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
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


class _Sender(NamedTuple):
    """The waiting deliveries of one source, and the outbox that sends them."""

    cargo: PublishedCargo | EntryCargo
    outbox: Outbox


class Enqueuer:
    """Appends the deliveries of the pipeline to the Redis queues of all sinks.

    While Redis refuses writes, the deliveries wait in memory. Deliveries of pub/sub sources wait in packed form, as
    *records* (`core.accounts.records`): up to `buffer_bytes` of records wait, and further deliveries are dropped
    (reason `outage`). Stream and list sources stop reading instead. `say` logs a warning, at most once a minute for
    each subject. All Redis queues share one `outage`.
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
        """The memory for waiting records of pub/sub sources. Python needs up to half as much again for its own overhead."""
        self._server = server
        self._prefix = prefix
        self._say = say
        self._senders: dict[tuple[str, bool], _Sender] = {}
        self._health = Health(
            server.shown,
            outage,
            begins=partial(log.error, "deliveries can't be queued in Redis; they wait in memory"),
            ends=partial(log.warning, "deliveries are queued in Redis again"),
            delays=delays,
        )

    @property
    def reason(self) -> str | None:
        """The reason why deliveries can't be enqueued; None while they can be enqueued."""
        return self._health.reason

    def inbox(self, sink: str, limits: QueueLimits, book: SinkBook, dropped: Dropped) -> Inbox:
        """Return the inbox for the deliveries of a sink."""
        return Inbox(sink, limits, prefix=self._prefix, book=book, dropped=dropped, put=self._put)

    async def close(self, patience: float) -> dict[str, int]:
        """Enqueue waiting deliveries for `patience` seconds at most; return the number of lost deliveries by sink."""
        senders = list(self._senders.values())
        await asyncio.gather(*(sender.outbox.drain(patience) for sender in senders))
        lost: dict[str, int] = {}
        for sender in senders:
            for sink, number in sender.cargo.lost().items():
                lost[sink] = lost.get(sink, 0) + number
        self._senders.clear()
        return lost

    def signs(self) -> list[Sign]:
        """Return the progress of the outbox of each source, for the watchdog."""
        return [
            sign
            for (source, _), sender in self._senders.items()
            for sign in sender.outbox.signs(f"queueing of source {source}")
        ]

    def _put(self, inbox: Inbox, events: Sequence[Event]) -> None:
        """Enqueue deliveries of one source for one sink."""
        first = events[0]
        # A delivery of a pub/sub source has a receipt if this sink is its fallback: the first sink waits until the
        # delivery is enqueued here. So one source may need both kinds of cargo.
        name = first.source, first._receipt is None
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = self._sender(*name)
        sender.cargo.put(inbox, events)
        sender.outbox.wake()

    def _sender(self, source: str, published: bool) -> _Sender:
        guard = keys.enqueued_batch(self._prefix, os.urandom(8).hex())
        frame = guard, keys.handed(self._prefix)
        cargo: PublishedCargo | EntryCargo
        if published:
            cargo, script, what = PublishedCargo(frame, self.buffer), APPEND, "events"
        else:
            cargo, script, what = EntryCargo(frame, source, self._say), APPEND_ENTRIES, "entries"
        outbox = Outbox(f"enqueue {what} of {source}", self._server, script, cargo, self._health)
        outbox.start()
        return _Sender(cargo, outbox)
