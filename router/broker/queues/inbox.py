"""The inbox of one sink's Redis queue: deliveries on their way to Redis; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from router.broker.queues.parts.queue_common import QueueKeys
from router.broker.server.link import Word
from router.broker.server.outbox import Batch
from router.contracts import Dropped, QueueLimits
from router.core.accounts.books import SinkBook
from router.events import Event

Put = Callable[["Inbox", Sequence[Event]], None]
"""A function that enqueues deliveries of one source for the sink of an inbox."""


class Inbox:
    """The entrance to the Redis queue of one sink: `put` adds deliveries.

    An inbox also has the keys and limits of the queue, for the scripts.
    """

    def __init__(
        self,
        sink: str,
        limits: QueueLimits,
        *,
        prefix: str,
        book: SinkBook,
        dropped: Dropped,
        put: Put,
    ) -> None:
        self.sink = sink
        self.book = book
        self.dropped = dropped
        self.keys = QueueKeys.of(prefix, sink)
        self._put = put
        self.configure(limits)

    def configure(self, limits: QueueLimits) -> None:
        """Replace the limits, and the set of routes that override the sink's options.

        Takes effect from the next batch on.
        """
        self.bounds = limits.max_events, limits.max_bytes, int(limits.when_full != "block")
        self.overriding = limits.overriding

    def put(self, events: Sequence[Event], size: int) -> None:  # noqa: ARG002  # records are counted here, not payloads
        """Enqueue deliveries of one source. Never waits."""
        self._put(self, events)

    @property
    def waiting(self) -> int:
        """The number of deliveries that are not in Redis yet."""
        return self.book.on_their_way


def framed(frame: tuple[str, str], inboxes: Iterable[Inbox], words: Sequence[Word]) -> Batch:
    """Return a batch with the keys of an enqueueing script: guard, three keys for each queue, hash of marks."""
    guard, marks = frame
    return Batch([guard, *(key for inbox in inboxes for key in inbox.keys), marks], words)
