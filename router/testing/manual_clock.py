"""A clock whose time changes only when a test advances it; floor 7."""

from __future__ import annotations

from datetime import UTC, datetime

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
"""The default start time of a clock."""


class ManualClock:
    """A clock that a test advances. It can be the `clock` of a context or of a `RecordingRouter`.

    `start` is an aware datetime.
    """

    def __init__(self, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError("`start` has no time zone: write, for example, datetime(2026, 1, 2, tzinfo=UTC)")
        self._start = start.timestamp()
        self._elapsed = 0.0

    def now(self) -> float:
        """Return the seconds since the epoch, UTC."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return the number of seconds by which the clock was advanced in total."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Advance the clock. Raises `ValueError` for a negative number: time never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock can't be advanced by {seconds:g} s: the number must not be negative")
        self._elapsed += seconds
