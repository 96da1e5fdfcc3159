"""The paused addresses of a sink; pure.

The service has asked the router to wait for each of these addresses (Retry-After).
"""

from __future__ import annotations

from collections.abc import Iterable

MOST = 10_000
"""The largest number of paused addresses. Beyond it the oldest pause is dropped, and its address is attempted again."""


class Pauses:
    """The addresses to which no attempts are made for now. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, address: str, until: float, now: float) -> None:
        """Pause an address until `until`. A longer pause of the address stays as it is."""
        until = max(until, self._until.pop(address, until))
        if len(self._until) >= MOST:
            self._until = {other: end for other, end in self._until.items() if end > now}
        if len(self._until) >= MOST:
            del self._until[next(iter(self._until))]
        self._until[address] = until

    def left(self, addresses: Iterable[str], now: float) -> float:
        """Return the seconds until all pauses of these addresses are over; 0 if no address is paused."""
        longest = 0.0
        for address in addresses:
            left = self._until.get(address, now) - now
            if left > 0:
                longest = max(longest, left)
            else:
                self._until.pop(address, None)
        return longest
