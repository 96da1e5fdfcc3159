"""The count of open deliveries per entry of a source with acknowledgements; pure.

A source passes entries on in batches. An entry becomes deliveries or a dead letter. An entry is complete when all its
deliveries are settled. The source acknowledges only complete entries.
"""

from __future__ import annotations


class Ledger:
    """The number of open deliveries of each entry of one batch, by the entry's position.

    An entry becomes complete once: by `expect` with 0, or by the `settle` of its last delivery. If `expect` is never
    called for an entry, the entry stays incomplete, and the source does not acknowledge it.
    """

    __slots__ = ("_open", "left")

    def __init__(self, entries: int) -> None:
        self._open = [0] * entries
        self.left = entries
        """The number of entries that are not complete."""

    def expect(self, position: int, deliveries: int) -> bool:
        """Set the number of deliveries made from an entry; return True if the number is 0, which completes the entry."""
        if deliveries:
            self._open[position] = deliveries
            return False
        self.left -= 1
        return True

    def add(self, position: int, deliveries: int) -> None:
        """Expect `deliveries` more deliveries of an entry, because one of its deliveries was split."""
        self._open[position] += deliveries

    def open(self, position: int) -> int:
        """Return the number of an entry's deliveries that are not settled."""
        return self._open[position]

    def settle(self, position: int) -> bool:
        """Settle one delivery of an entry; return whether the entry is complete now.

        Raises `ValueError` if no delivery was open, because an entry must not be acknowledged twice.
        """
        left = self._open[position] - 1
        if left < 0:
            raise ValueError(f"entry {position} has nothing left to settle")
        self._open[position] = left
        if left:
            return False
        self.left -= 1
        return True
