"""The ordered queue: deliveries with equal keys are attempted one after another (`order_by`); floor 5.

The ordered queue is between the queue of a sink and its worker. Deliveries that wait for an earlier delivery, and
delayed deliveries, stay in flight here. In a shared queue, later deliveries could overtake them, or another router
could deliver them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from router.contracts import WorkQueue
from router.core.delivery.ordering import Ordering
from router.engine.queues.delayed import Delayed
from router.engine.queues.takers import Takers
from router.errors import Reason
from router.events import Event, Outcome, size_of

MOST = 1_000
"""The largest number of deliveries that wait here. At this limit, no delivery is taken from the queue until waiting
deliveries are settled.
"""

AGAIN = 1.0
"""The delay, in seconds, of a delivery that must not wait here and is put back into the underlying queue."""


class Ordered:
    """Implements `contracts.WorkQueue` on top of another queue.

    `key` returns the key of a delivery's lane, or None for a delivery without order. `now` returns monotonic seconds.
    """

    def __init__(self, queue: WorkQueue, *, key: Callable[[Event], str | None], now: Callable[[], float]) -> None:
        self._queue = queue
        self._key = key
        self._lanes: Ordering[Event] = Ordering()
        # The lane of each delivery, by event id and route. The list has the lane once for each part of a split
        # delivery.
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._ready: deque[Event] = deque()
        self._later = Delayed(now, self._offer)
        self._takers = Takers()
        self._feeding: asyncio.Task[None] | None = None

    @property
    def events(self) -> int:
        """The number of deliveries that are not settled."""
        return self._queue.events

    @property
    def delayed(self) -> int:
        """The number of deliveries that wait for their next attempt or for an earlier delivery."""
        return self._queue.delayed + len(self._later) + self._lanes.waiting

    async def take(self, most: int) -> tuple[list[Event], int]:
        """Wait for deliveries.

        Return the next ones and the total size of their payloads in bytes. The result has at least one delivery and at
        most `most`. All of them belong to different lanes.
        """
        while not self._ready:
            self._feed(most)
            await self._takers.wait()
        events = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        if self._ready:
            self._takers.wake()
        elif self._takers.waiting:
            # Fetch more deliveries for the slots that still wait, so that a slow delivery does not block other lanes.
            self._feed(most)
        return events, size_of(events)

    def _feed(self, most: int) -> None:
        """Start the task that takes deliveries from the underlying queue, unless it is running."""
        if self._feeding is None or self._feeding.done():
            self._feeding = asyncio.create_task(self._fetch(most), name="feeding an ordered sink")

    async def _fetch(self, most: int) -> None:
        while not self._ready and len(self._later) + self._lanes.waiting < MOST:
            events, _ = await self._queue.take(most)
            for event in events:
                self._enter(event)

    def _enter(self, event: Event) -> None:
        key = self._key(event)
        if key is None:
            self._offer(event)
            return
        if key in self._lanes and not self._queue.may_wait(event):
            self._queue.later(event, AGAIN)
            return
        self._keys.setdefault((event.id, event.route), []).append(key)
        if self._lanes.enter(key, event):
            self._offer(event)

    def _offer(self, event: Event) -> None:
        self._ready.append(event)
        self._takers.wake()

    def later(self, event: Event, delay: float) -> None:
        """Delay a delivery here, to be retried after `delay` seconds.

        If the delivery has no lane or must not stay in flight, it is put back into the underlying queue.
        """
        if (event.id, event.route) not in self._keys or not self._queue.may_wait(event):
            self._queue.later(event, delay)
            self._leave(event)
            return
        self._later.add(event, delay)

    def may_wait(self, event: Event) -> bool:
        """Return whether the underlying queue allows the delivery to stay in flight."""
        return self._queue.may_wait(event)

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery by `parts`. The lane of the delivery continues when all parts are settled."""
        keys = self._keys.get((event.id, event.route))
        if keys is not None:
            more = len(parts) - 1
            self._lanes.add(keys[0], more)
            keys += [keys[0]] * more
        self._queue.split(event, parts)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Settle deliveries. Offer the deliveries that have waited for them to the worker."""
        self._queue.settle(events, size, outcome, reason)
        for event in events:
            self._leave(event)

    def _leave(self, event: Event) -> None:
        identity = (event.id, event.route)
        keys = self._keys.get(identity)
        if keys is None:
            return
        successor = self._lanes.leave(keys.pop())
        if not keys:
            del self._keys[identity]
        if successor is not None:
            self._offer(successor)

    async def settled(self) -> None:
        """Wait until all deliveries are settled."""
        await self._queue.settled()

    def due_in(self) -> float | None:
        """Return the seconds until the next delayed delivery is due; None if no delivery is delayed."""
        return min((due for due in (self._queue.due_in(), self._later.due_in()) if due is not None), default=None)

    async def give_back(self, taken: Sequence[Event]) -> None:
        """Stop, and put the `taken` deliveries and the deliveries that wait here back into the underlying queue.

        The order of each lane is kept. Delayed deliveries become due at once, because other deliveries of their lane
        wait for them.
        """
        self._cancel()
        if self._feeding is not None:
            await asyncio.wait([self._feeding])
        await self._queue.give_back([*taken, *self._held()])

    def holds_up(self, taken: Sequence[Event]) -> bool:
        """Return whether a shutdown must wait; the underlying queue decides.

        The deliveries that wait here count as `taken`.
        """
        return self._queue.holds_up([*taken, *self._held()])

    def close(self, taken: Sequence[Event]) -> int:
        """Stop the underlying queue. The deliveries that wait here count as `taken`. Return the number of lost deliveries."""
        self._cancel()
        return self._queue.close([*taken, *self._held()])

    def _cancel(self) -> None:
        self._later.stop()
        if self._feeding is not None:
            self._feeding.cancel()

    def _held(self) -> list[Event]:
        """Return the deliveries that wait here.

        The ready and the delayed deliveries come first. The deliveries that wait for an earlier delivery of their lane
        follow.
        """
        return [*self._ready, *self._later, *self._lanes]
