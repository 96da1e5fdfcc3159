"""How many deliveries a sink may get in a time; pure.

A log of the last ones and not a bucket: a bucket that starts full lets twice the rate through in its first period, and
what a service counts is "so many in any minute".
"""

from __future__ import annotations

from collections import deque


class Pace:
    """At most `number` deliveries in any `seconds` (of a clock that never goes back)."""

    __slots__ = ("_seconds", "_taken", "number")

    def __init__(self, number: int, seconds: float) -> None:
        self.number = number
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=number)

    def reserve(self, number: int, now: float) -> float:
        """Take the next place for so many deliveries at once (at most `self.number`); returns the seconds until then."""
        at = now
        if self._taken:
            at = max(at, self._taken[-1])
        free = self.number - number
        if len(self._taken) > free:
            at = max(at, self._taken[-free - 1] + self._seconds)
        self._taken.extend([at] * number)
        return at - now
