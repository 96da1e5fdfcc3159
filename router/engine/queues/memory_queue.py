"""The memory queue: a bounded queue of deliveries in this process, one per sink; floor 5.

Deliveries are put and taken in lists. The limits apply to all unsettled deliveries: to waiting deliveries, to
deliveries in flight, and to delayed deliveries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain

from router.contracts import Dropped, QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.core.delivery.shared_deliveries import Deliveries, bytes_of, originals
from router.engine.queues.delayed import Delayed
from router.engine.queues.takers import Takers
from router.errors import Reason
from router.events import Event, Outcome, size_of

Bundle = tuple[Sequence[Event], int]
"""Deliveries, and the total size of their payloads in bytes."""


class MemoryQueue:
    """Implements `contracts.Queue` in memory. The deliveries are lost when the process dies.

    `now` returns monotonic seconds, for due times. The queue counts accepted deliveries in `book`, which is the book of
    the sink in this process. It also has a book of its own for accepted and settled deliveries. `dropped` is called for
    accepted deliveries that are dropped (see `contracts.Dropped`).
    """

    durable = False
    reason = None
    unreadable = 0

    def __init__(self, limits: QueueLimits, *, now: Callable[[], float], book: SinkBook, dropped: Dropped) -> None:
        self.configure(limits)
        self.shared_book = SinkBook()
        """The book of this queue alone. When a reload moves a sink to another queue, the old worker still settles
        deliveries of the old queue. Only the book of the process counts the deliveries of both queues.
        """
        self._process_book = book
        self._on_drop = dropped
        self._bundles: deque[Bundle] = deque()
        self._later = Delayed(now, self._again)
        self._takers = Takers()
        self._settled = asyncio.Event()
        self._acknowledged = False  # True once a delivery came from a source with acknowledgements
        self.events = 0
        """The number of deliveries that are not settled."""
        self.bytes = 0
        """The total size of the payloads of the unsettled deliveries, in bytes."""

    def put(self, events: Sequence[Event], size: int) -> None:
        """Enqueue deliveries whose payloads have `size` bytes in total. The caller must not change the sequence afterwards.

        If the queue has no room for a delivery, the delivery is dropped and counted. One exception: with `when_full:
        block`, deliveries of a source with acknowledgements are accepted beyond the limits, because such a source
        limits its own entries in flight.
        """
        self._process_book.accepted += len(events)
        self.shared_book.accepted += len(events)
        acknowledged = originals(events)[0]._receipt is not None
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
            self._drop(dropped, Reason.FULL)
            _settle_receipts(dropped)

    def _drop(self, events: list[Event], reason: Reason) -> None:
        """Count and report dropped deliveries."""
        self.shared_book.settle(len(events), Outcome.DROPPED, reason)
        self._on_drop(events, [event.channel for event in events], reason)

    def _put_one_by_one(self, events: Sequence[Event]) -> list[Event]:
        dropped: list[Event] = []
        kept: list[Event] = []
        for event in events:
            size = len(event.raw)
            while not (has_room := self.events < self._max_events and self.bytes + size <= self._max_bytes):
                if not self._oldest_goes or not (self._bundles or kept):
                    break
                dropped.append(self._drop_oldest(kept))
            if has_room:
                kept.append(event)
                self.events += 1
                self.bytes += size
            else:
                dropped.append(event)
        if kept:
            self._bundles.append((kept, size_of(kept)))
            self._takers.wake()
        return dropped

    def _drop_oldest(self, kept: list[Event]) -> Event:
        """Remove and return the delivery that has waited longest.

        It comes from the queue, or from `kept` if no delivery waits in the queue.
        """
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
        """Wait for deliveries.

        Return the next ones, at least one and at most `most`, and the total size of their payloads in bytes. The caller
        must settle each delivery, or return it by `later` or `give_back`.
        """
        while not self._bundles:
            await self._takers.wait()
        events, size = self._bundles.popleft()
        if len(events) > most:
            head, rest = events[:most], events[most:]
            head_size = bytes_of(head)
            self._bundles.appendleft((rest, size - head_size))
            events, size = head, head_size
        bundles, number = [events], len(events)
        while self._bundles and number + len(self._bundles[0][0]) <= most:
            more, more_size = self._bundles.popleft()
            bundles.append(more)
            number += len(more)
            size += more_size
        if len(bundles) > 1:
            events = Deliveries.of(bundles)
        if self._bundles:
            self._takers.wake()
        return events, size

    def may_wait(self, event: Event) -> bool:
        """Return True, because a delivery of this queue may stay in flight for any time.

        Also inform the receipt of the delivery that the attempt returned.
        """
        if event._receipt is not None:
            event._receipt.returned(event._position)
        return True

    def later(self, event: Event, delay: float) -> None:
        """Return a delivery to the queue, to be retried after `delay` seconds."""
        if event._receipt is not None:
            event._receipt.returned(event._position)
        self._later.add(event, delay)

    def _again(self, event: Event) -> None:
        self._bundles.append(([event], len(event.raw)))
        self._takers.wake()

    async def give_back(self, taken: Sequence[Event]) -> None:
        """Put deliveries that were not attempted back at the front of the queue. Their order is kept."""
        if taken:
            self._bundles.appendleft((list(taken), size_of(taken)))
            self._takers.wake()

    def configure(self, limits: QueueLimits) -> None:
        """Replace the limits. Deliveries in the queue stay, even if they exceed the new limits."""
        self.limits = limits
        self._max_events = limits.max_events
        self._max_bytes = limits.max_bytes
        self._blocks = limits.when_full == "block"
        self._oldest_goes = limits.when_full == "drop-oldest"

    def _empty(self) -> list[Event]:
        """Remove and return all waiting deliveries, due or not. Deliveries in flight stay."""
        left = [event for events, _ in self._bundles for event in events]
        self._bundles.clear()
        return left + self._later.clear()

    def leave(self, *, handed_over: bool) -> list[Event]:
        """Remove and return all waiting deliveries.

        If `handed_over` is True, count them as handed over. The receipts of the deliveries are not settled.
        """
        left = self._empty()
        if not handed_over:
            return left
        self.shared_book.settle(len(left), Outcome.HANDED_OVER)
        self.events -= len(left)
        self.bytes -= size_of(left)
        if not self.events:
            self._settled.set()
        return left

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery in flight by `parts`.

        The parts are then in flight. They may exceed the limits of the queue.
        """
        self.shared_book.split(len(parts))
        self.events += len(parts)
        self.bytes += size_of(parts)
        if event._receipt is not None:
            event._receipt.add(event._position, len(parts))
        self.settle([event], len(event.raw), Outcome.HANDED_OVER)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Settle deliveries in flight. `size` is the total size of their payloads in bytes."""
        self.shared_book.settle(len(events), outcome, reason)
        self.events -= len(events)
        self.bytes -= size
        if not self.events:
            self._settled.set()
        if self._acknowledged:
            _settle_receipts(events)

    def due_in(self) -> float | None:
        """Return the seconds until the next retry is due; None if no retry waits."""
        return self._later.due_in()

    @property
    def delayed(self) -> int:
        """The number of deliveries that wait for their next attempt."""
        return len(self._later)

    @property
    def held(self) -> int:
        """The number of deliveries that are not settled. No other router has deliveries of this queue."""
        return self.events

    def start(self) -> None:
        """Do nothing, because the queue works from its creation on."""

    async def refresh(self) -> None:
        """Do nothing, because the book is in this process."""

    def signs(self) -> tuple[Sign, ...]:
        """Return no signs, because a memory queue can't hang."""
        return ()

    async def end(self, patience: float) -> None:
        """Do nothing, because a memory queue has no connection."""

    async def settled(self) -> None:
        """Wait until all deliveries are settled."""
        while self.events:
            self._settled.clear()
            await self._settled.wait()

    def holds_up(self, taken: Sequence[Event]) -> bool:
        """Return whether a shutdown must wait.

        It must wait if a delivery in the queue or in `taken` has no receipt, because this delivery would be lost.
        """
        waiting = chain.from_iterable(events for events, _ in self._bundles)
        return any(event._receipt is None for event in chain(taken, waiting, self._later))

    def close(self, taken: Sequence[Event]) -> int:
        """Stop the queue, and drop the waiting and the `taken` deliveries (reason `shutdown`).

        Return the number of lost deliveries. A delivery with a receipt is not lost, because its source reads the entry
        again. It is not counted.
        """
        left = [*self._empty(), *taken]
        self.events -= len(left)
        self.bytes -= size_of(left)
        lost = [event for event in left if event._receipt is None]
        self._drop(lost, Reason.SHUTDOWN)
        self.shared_book.accepted -= len(left) - len(lost)
        self._settled.set()
        return len(lost)


def _settle_receipts(events: Sequence[Event]) -> None:
    """Settle the receipts of these deliveries. A delivery without a receipt is skipped."""
    for event in originals(events):
        receipt = event._receipt
        if receipt is not None:
            receipt.settle(event._position)
