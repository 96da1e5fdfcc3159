"""The real clock; floor 5."""

from __future__ import annotations

import time


class SystemClock:
    """Implements `contracts.Clock`."""

    def now(self) -> float:
        """Return the seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()
