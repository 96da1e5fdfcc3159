"""Deliveries with equal keys, one after another; pure.

A key has a lane while something of it is open. The first goes; what comes behind waits until the first is over, however
long that takes and however often it is tried. Lanes know nothing of each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ordering(Generic[T]):
    """The lanes of one sink; they hold nothing of a key of which nothing is open."""

    __slots__ = ("_lines", "_open", "waiting")

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._lines: dict[str, deque[T]] = {}
        self.waiting = 0
        """What waits behind others."""

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        """Return whether any delivery of this key is open."""
        return key in self._open

    def __iter__(self) -> Iterator[T]:
        """All that waits, lane by lane."""
        return (item for line in self._lines.values() for item in line)

    def enter(self, key: str, item: T) -> bool:
        """Take a delivery in; return whether it may go now, else it waits here."""
        if key not in self._open:
            self._open[key] = 1
            return True
        self._lines.setdefault(key, deque()).append(item)
        self.waiting += 1
        return False

    def add(self, key: str, number: int) -> None:
        """Note that the delivery that goes in this lane was split: so many more have to be over.

        Raises `KeyError` when none goes.
        """
        self._open[key] += number

    def leave(self, key: str) -> T | None:
        """Note that a delivery that went is over; return the delivery that may go now. Raises `KeyError` when none went."""
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
