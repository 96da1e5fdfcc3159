"""Until when the addresses of a sink are left alone, because the other side asked for that; pure."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 10_000
"""Addresses that are remembered; beyond that the one that was told first is forgotten, and asked again."""


class Pauses:
    """The addresses that are left alone. All times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, address: str, until: float, now: float) -> None:
        """Leave an address alone until then, or longer where it was to be already."""
        until = max(until, self._until.pop(address, until))
        if len(self._until) >= MOST:
            self._until = {other: end for other, end in self._until.items() if end > now}
        if len(self._until) >= MOST:
            del self._until[next(iter(self._until))]
        self._until[address] = until

    def left(self, addresses: Iterable[str], now: float) -> float:
        """Seconds until none of these addresses has to be left alone any more; 0 where none has to be now."""
        longest = 0.0
        for address in addresses:
            left = self._until.get(address, now) - now
            if left > 0:
                longest = max(longest, left)
            else:
                self._until.pop(address, None)
        return longest
