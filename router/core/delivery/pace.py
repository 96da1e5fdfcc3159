"""The rate limit of a sink; pure.

The limiter stores the times of the last deliveries (a sliding log). A token bucket is not strict enough: a full bucket
lets twice the rate through in its first period. Services limit the number of calls in every period of, for example, a
minute.
"""

from __future__ import annotations

from collections import deque


class Pace:
    """A limit of `number` deliveries in any period of `seconds` (monotonic)."""

    __slots__ = ("_seconds", "_taken", "number")

    def __init__(self, number: int, seconds: float) -> None:
        self.number = number
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=number)

    def reserve(self, number: int, now: float) -> float:
        """Reserve `number` deliveries (at most `self.number`); return the seconds until all of them may be made."""
        at = now
        if self._taken:
            at = max(at, self._taken[-1])
        free = self.number - number
        if len(self._taken) > free:
            at = max(at, self._taken[-free - 1] + self._seconds)
        self._taken.extend([at] * number)
        return at - now
