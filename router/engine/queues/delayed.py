"""Deliveries that wait in this process for their next attempt; floor 5."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from itertools import count

from router.events import Event


class Delayed:
    """Deliveries in the order of their due times.

    `due` is called with each delivery at its due time. `now` returns monotonic seconds.
    """

    def __init__(self, now: Callable[[], float], due: Callable[[Event], None]) -> None:
        self._now = now
        self._due = due
        self._heap: list[tuple[float, int, Event]] = []
        self._order = count()
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Event]:
        return (event for _, _, event in sorted(self._heap))

    def add(self, event: Event, delay: float) -> None:
        """Delay a delivery by `delay` seconds."""
        added = (self._now() + delay, next(self._order), event)
        heapq.heappush(self._heap, added)
        # Set a timer only if the new delivery is due first. A new timer for each retry would cost as much as the heap.
        if self._alarm is None or self._heap[0] is added:
            self._set_alarm()

    def due_in(self) -> float | None:
        """Return the seconds until the next delivery is due; None if no delivery waits."""
        return self._heap[0][0] - self._now() if self._heap else None

    def clear(self) -> list[Event]:
        """Remove and return all deliveries, due or not."""
        events = list(self)
        self._heap.clear()
        self._set_alarm()
        return events

    def stop(self) -> None:
        """Stop calling `due`. The deliveries stay in this object."""
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        self.stop()
        delay = self.due_in()
        if delay is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(delay, 0.0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            self._due(heapq.heappop(self._heap)[2])
        self._set_alarm()
