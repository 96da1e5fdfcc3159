"""The order of deliveries with equal keys (`order_by`); pure.

A key has a lane while deliveries with that key are open. Only the first delivery of a lane is attempted. The other
deliveries wait until the first one is settled, however long its retries take. Lanes are independent of each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ordering(Generic[T]):
    """The lanes of one sink. A lane is removed with its last delivery, so memory is bounded by open deliveries."""

    __slots__ = ("_lines", "_open", "waiting")

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._lines: dict[str, deque[T]] = {}
        self.waiting = 0
        """The number of deliveries that wait for an earlier delivery of their lane."""

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        """Return whether any delivery of this key is open."""
        return key in self._open

    def __iter__(self) -> Iterator[T]:
        """Iterate over the waiting deliveries, lane by lane."""
        return (item for line in self._lines.values() for item in line)

    def enter(self, key: str, item: T) -> bool:
        """Add a delivery to its lane.

        Return True if the delivery may be attempted now, and False if it must wait in the lane.
        """
        if key not in self._open:
            self._open[key] = 1
            return True
        self._lines.setdefault(key, deque()).append(item)
        self.waiting += 1
        return False

    def add(self, key: str, number: int) -> None:
        """Record that the lane's first delivery was split, and that the lane now has `number` more open deliveries.

        The next delivery of the lane waits until all parts of the split delivery are settled. Raises `KeyError` if the
        lane is empty.
        """
        self._open[key] += number

    def leave(self, key: str) -> T | None:
        """Record that a delivery at the head of a lane is settled. Return the next delivery to attempt, or None.

        Raises `KeyError` if the lane is empty.
        """
        still = self._open[key] - 1
        if still:
            self._open[key] = still
            return None
        line = self._lines.get(key)
        if line is None:
            del self._open[key]
            return None
        item = line.popleft()
        self.waiting -= 1
        if not line:
            del self._lines[key]
        self._open[key] = 1
        return item
