"""When an entry of an acknowledged source is complete; pure.

A source hands over entries in batches. Each becomes some deliveries, or a dead letter; it is complete when all of that is
over, and only then may the source acknowledge it.
"""

from __future__ import annotations


class Ledger:
    """Counts what is still open of each entry of one batch, by its position in it.

    An entry is complete once: `expect` with 0, or the `settle` that closes the last of what was expected. What never was
    expected is never complete: it stays with the source.
    """

    __slots__ = ("_open", "left")

    def __init__(self, entries: int) -> None:
        self._open = [0] * entries
        self.left = entries
        """Entries that are not complete."""

    def expect(self, position: int, deliveries: int) -> bool:
        """So many deliveries were made of this entry; returns whether it is complete already, for there are none."""
        if deliveries:
            self._open[position] = deliveries
            return False
        self.left -= 1
        return True

    def add(self, position: int, deliveries: int) -> None:
        """A delivery of this entry was split: so many more have to be over."""
        self._open[position] += deliveries

    def open(self, position: int) -> int:
        """Return how many deliveries of this entry are not over."""
        return self._open[position]

    def settle(self, position: int) -> bool:
        """Settle one delivery of this entry; returns whether the entry is complete now.

        Raises `ValueError` when nothing of it was open: an entry must not be acknowledged twice.
        """
        still = self._open[position] - 1
        if still < 0:
            raise ValueError(f"entry {position} has nothing left to settle")
        self._open[position] = still
        if still:
            return False
        self.left -= 1
        return True
