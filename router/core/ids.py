"""Ids of events and dead letters: unique by themselves, and in the order of time as plain text; pure."""

from __future__ import annotations


class Ids:
    """Makes ids of one router: milliseconds since the epoch, a word that no other process has, a count.

    `boot` is that word: random, chosen once by each process. The hot path takes `prefix` once for a batch and counts
    itself, so that an id costs one string and nothing else.
    """

    __slots__ = ("boot", "count")

    def __init__(self, boot: str) -> None:
        self.boot = boot
        # All counts have the same number of digits, so that their order as text is their order as numbers.
        self.count = 10**12

    def prefix(self, now: float) -> str:
        """What the ids made at `now` (seconds since the epoch) begin with; a count that grows must follow."""
        return f"{int(now * 1000):012x}-{self.boot}-"

    def next(self, now: float) -> str:
        """One id."""
        self.count += 1
        return f"{self.prefix(now)}{self.count}"
