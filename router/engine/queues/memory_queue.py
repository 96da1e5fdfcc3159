"""A bounded queue of deliveries in memory, one for each sink; floor 5.

Deliveries go in and out in lists. Everything that is not settled counts against the bounds: what waits, what is in hand
and what will be tried again later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain

from router.contracts import Dropped, QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.engine.queues.delayed import Delayed
from router.engine.queues.takers import Takers
from router.errors import Reason
from router.events import Event, Outcome, size_of

Bundle = tuple[list[Event], int]
"""Deliveries and the bytes of their payloads together."""


class MemoryQueue:
    """Implements `contracts.Queue`: the deliveries of one sink in memory, lost when the process dies.

    `now` gives seconds that never go back: the time that retries are due by. `book` is the sink's, which
    counts here what is accepted. `dropped` is told of deliveries that were accepted and are dropped, with their channels
    and the reason.
    """

    durable = False
    reason = None
    unreadable = 0

    def __init__(self, limits: QueueLimits, *, now: Callable[[], float], book: SinkBook, dropped: Dropped) -> None:
        self.configure(limits)
        self.shared_book = self._book = book
        self._dropped = dropped
        self._bundles: deque[Bundle] = deque()
        self._later = Delayed(now, self._again)
        self._takers = Takers()
        self._settled = asyncio.Event()
        self._acknowledged = False  # whether any delivery came from a source that waits to hear of it
        self.events = 0
        """Deliveries that are not settled."""
        self.bytes = 0
        """Bytes of their payloads."""

    def put(self, events: list[Event], size: int) -> None:
        """Take deliveries whose payloads have `size` bytes together; the list is the queue's from here on.

        What has no room is dropped, and counted. A source that acknowledges is held back by what it has in flight, so what
        comes from one always has room where `when_full` is `block`.
        """
        self._book.accepted += len(events)
        acknowledged = events[0]._receipt is not None
        self._acknowledged |= acknowledged
        has_room = self.events + len(events) <= self._max_events and self.bytes + size <= self._max_bytes
        if has_room or (self._blocks and acknowledged):
            self._bundles.append((events, size))
            self.events += len(events)
            self.bytes += size
            self._takers.wake()
            return
        dropped = self._put_one_by_one(events)
        if dropped:
            self._dropped(dropped, [event.channel for event in dropped], Reason.FULL)
            _tell(dropped)

    def _put_one_by_one(self, events: list[Event]) -> list[Event]:
        dropped: list[Event] = []
        kept: list[Event] = []
        for event in events:
            size = len(event.raw)
            while self._oldest_goes and not self._has_room(size) and (self._bundles or kept):
                dropped.append(self._drop_oldest(kept))
            if self._has_room(size):
                kept.append(event)
                self.events += 1
                self.bytes += size
            else:
                dropped.append(event)
        if kept:
            self._bundles.append((kept, size_of(kept)))
            self._takers.wake()
        return dropped

    def _has_room(self, size: int) -> bool:
        return self.events < self._max_events and self.bytes + size <= self._max_bytes

    def _drop_oldest(self, kept: list[Event]) -> Event:
        """Take back the delivery that has waited longest, from the queue or from what is just being put."""
        if self._bundles:
            bundle, size = self._bundles.popleft()
            event, rest = bundle[0], bundle[1:]
            if rest:
                self._bundles.appendleft((rest, size - len(event.raw)))
        else:
            event = kept.pop(0)
        self.events -= 1
        self.bytes -= len(event.raw)
        return event

    async def take(self, most: int) -> Bundle:
        """The next deliveries, at least one and at most `most`; waits until there are some.

        Settle them, or hand them back by `later`, when they are over.
        """
        while not self._bundles:
            await self._takers.wait()
        events, size = self._bundles.popleft()
        if len(events) > most:
            head, rest = events[:most], events[most:]
            head_size = size_of(head)
            self._bundles.appendleft((rest, size - head_size))
            events, size = head, head_size
        while self._bundles and len(events) + len(self._bundles[0][0]) <= most:
            more, more_size = self._bundles.popleft()
            events += more
            size += more_size
        if self._bundles:
            self._takers.wake()
        return events, size

    def keep(self, event: Event) -> bool:
        """Return True: a delivery may stay in hand for as long as it takes."""
        if event._receipt is not None:
            event._receipt.returned(event._position)
        return True

    def later(self, event: Event, delay: float) -> None:
        """Hand back a delivery that was taken, to be tried again after `delay` seconds."""
        if event._receipt is not None:
            event._receipt.returned(event._position)
        self._later.add(event, delay)

    def _again(self, event: Event) -> None:
        self._bundles.append(([event], len(event.raw)))
        self._takers.wake()

    async def give_back(self, hand: Sequence[Event]) -> None:
        """Hand back deliveries that were taken and not attempted: they are the next to be taken, in this order."""
        if hand:
            self._bundles.appendleft((list(hand), size_of(hand)))
            self._takers.wake()

    def configure(self, limits: QueueLimits) -> None:
        """Take other bounds from now on; what is there stays."""
        self._max_events = limits.max_events
        self._max_bytes = limits.max_bytes
        self._blocks = limits.when_full == "block"
        self._oldest_goes = limits.when_full == "drop-oldest"

    def _empty(self) -> list[Event]:
        """Take out everything that waits, whenever it is due; what is in hand is not."""
        left = [event for events, _ in self._bundles for event in events]
        self._bundles.clear()
        return left + self._later.clear()

    def leave(self, *, handed_over: bool) -> list[Event]:
        """Take out everything that waits. No source is told yet of what is handed over to another queue of the sink."""
        left = self._empty()
        if not handed_over:
            return left
        self.events -= len(left)
        self.bytes -= size_of(left)
        if not self.events:
            self._settled.set()
        return left

    def split(self, event: Event, parts: list[Event]) -> None:
        """A delivery in hand was handed over to `parts`, which are in hand now instead of it, whatever the bounds."""
        self.events += len(parts)
        self.bytes += size_of(parts)
        if event._receipt is not None:
            event._receipt.add(event._position, len(parts))
        self.settle([event], len(event.raw), Outcome.HANDED_OVER)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:  # noqa: ARG002  # for queues that others share
        """Deliveries in hand are over, all in the same way; `size` are the bytes of their payloads."""
        self.events -= len(events)
        self.bytes -= size
        if not self.events:
            self._settled.set()
        if self._acknowledged:
            _tell(events)

    def due_in(self) -> float | None:
        """Seconds until the next retry is due, None when none waits."""
        return self._later.due_in()

    @property
    def delayed(self) -> int:
        """Deliveries that wait for their next attempt."""
        return len(self._later)

    @property
    def held(self) -> int:
        """All deliveries that are not settled: nobody else has any."""
        return self.events

    def start(self) -> None:
        """Do nothing: the queue works from its creation on."""

    async def refresh(self) -> None:
        """Do nothing: the book is kept here."""

    def signs(self) -> tuple[Sign, ...]:
        """Return no sign: a queue in memory can't hang."""
        return ()

    async def end(self, patience: float) -> None:
        """Do nothing: no server has to be told."""

    async def settled(self) -> None:
        """Wait until nothing is left."""
        while self.events:
            self._settled.clear()
            await self._settled.wait()

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Return whether an end has to wait: no source keeps some delivery here or in `hand`."""
        waiting = chain.from_iterable(events for events, _ in self._bundles)
        return any(event._receipt is None for event in chain(hand, waiting, self._later))

    def close(self, hand: Sequence[Event]) -> int:
        """End: what waits and what is in `hand` is dropped, reason `shutdown`; returns how many that are.

        What a source waits to hear of is not lost: it stays with the source, and is not counted here.
        """
        left = [*self._empty(), *hand]
        self.events -= len(left)
        self.bytes -= size_of(left)
        lost = [event for event in left if event._receipt is None]
        self._dropped(lost, [event.channel for event in lost], Reason.SHUTDOWN)
        self._settled.set()
        return len(lost)


def _tell(events: Sequence[Event]) -> None:
    """Tell the sources that wait for it that these deliveries are over."""
    for event in events:
        receipt = event._receipt
        if receipt is not None:
            receipt.settle(event._position)
