"""A queue whose deliveries go one after another where their keys are equal; floor 5.

It stands between a sink's queue and its worker. What waits behind another, and what failed and is due later, stays in
hand here: given back to a queue that others share, it could be overtaken, or delivered by another router meanwhile.
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
"""Deliveries that are kept here; when there are more, nothing is taken from the queue until some are over."""

AGAIN = 1.0
"""Seconds until the queue gives a delivery again that may not wait here."""


class Ordered:
    """Implements `contracts.WorkQueue` on top of one; `key` gives the lane of a delivery, or None.

    `now` gives seconds that never go back.
    """

    def __init__(self, queue: WorkQueue, *, key: Callable[[Event], str | None], now: Callable[[], float]) -> None:
        self._queue = queue
        self._key = key
        self._lanes: Ordering[Event] = Ordering()
        self._keys: dict[tuple[str, str], list[str]] = {}  # the lane of each delivery in one, as often as it is there
        self._ready: deque[Event] = deque()
        self._later = Delayed(now, self._go)
        self._takers = Takers()
        self._feeding: asyncio.Task[None] | None = None

    @property
    def events(self) -> int:
        """Deliveries that are not settled."""
        return self._queue.events

    @property
    def delayed(self) -> int:
        """Deliveries that wait for their next attempt, or behind others."""
        return self._queue.delayed + len(self._later) + self._lanes.waiting

    async def take(self, most: int) -> tuple[list[Event], int]:
        """The next deliveries, at least one and at most `most`, no two of a lane; waits until there are some."""
        while not self._ready:
            self._feed(most)
            await self._takers.wait()
        events = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        if self._ready:
            self._takers.wake()
        elif self._takers.waiting:  # they were woken by nobody yet: a slow delivery must not hold up the other lanes
            self._feed(most)
        return events, size_of(events)

    def _feed(self, most: int) -> None:
        """See to it that deliveries are taken from the queue as long as nothing is ready here."""
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
            self._go(event)
            return
        if key in self._lanes and not self._queue.keep(event):
            self._queue.later(event, AGAIN)
            return
        self._keys.setdefault((event.id, event.route), []).append(key)
        if self._lanes.enter(key, event):
            self._go(event)

    def _go(self, event: Event) -> None:
        self._ready.append(event)
        self._takers.wake()

    def later(self, event: Event, delay: float) -> None:
        """Keep a delivery to be tried again after `delay` seconds.

        One without a lane, or that may not stay, goes back to the queue.
        """
        if (event.id, event.route) not in self._keys or not self._queue.keep(event):
            self._queue.later(event, delay)
            self._leave(event)
            return
        self._later.add(event, delay)

    def keep(self, event: Event) -> bool:
        """Return what the queue behind says."""
        return self._queue.keep(event)

    def split(self, event: Event, parts: list[Event]) -> None:
        """A delivery was handed over to `parts`: its lane is free when they are all over."""
        keys = self._keys.get((event.id, event.route))
        if keys is not None:
            more = len(parts) - 1
            self._lanes.add(keys[0], more)
            keys += [keys[0]] * more
        self._queue.split(event, parts)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Deliveries are over; what waited behind them may go."""
        self._queue.settle(events, size, outcome, reason)
        for event in events:
            self._leave(event)

    def _leave(self, event: Event) -> None:
        identity = (event.id, event.route)
        keys = self._keys.get(identity)
        if keys is None:
            return
        next_one = self._lanes.leave(keys.pop())
        if not keys:
            del self._keys[identity]
        if next_one is not None:
            self._go(next_one)

    async def settled(self) -> None:
        """Wait until nothing is left."""
        await self._queue.settled()

    def due_in(self) -> float | None:
        """Seconds until the next delayed delivery is due, None when none waits."""
        return min((due for due in (self._queue.due_in(), self._later.due_in()) if due is not None), default=None)

    async def give_back(self, hand: Sequence[Event]) -> None:
        """Give back to the queue what is in `hand` and what is kept here, and end; the order of each lane stays.

        What waits for its next attempt goes back as due: behind it in its lane may wait more.
        """
        self._cancel()
        if self._feeding is not None:
            await asyncio.wait([self._feeding])
        await self._queue.give_back([*hand, *self._kept()])

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Return what the queue behind says; deliveries kept here are in hand for it."""
        return self._queue.holds_up([*hand, *self._kept()])

    def close(self, hand: Sequence[Event]) -> int:
        """End; what is kept here ends with what is in `hand`."""
        self._cancel()
        return self._queue.close([*hand, *self._kept()])

    def _cancel(self) -> None:
        self._later.stop()
        if self._feeding is not None:
            self._feeding.cancel()

    def _kept(self) -> list[Event]:
        """Return the deliveries that go first in their lanes, then those that wait behind them."""
        return [*self._ready, *self._later, *self._lanes]
