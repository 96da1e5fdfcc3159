"""The real clock; floor 5."""

from __future__ import annotations

import time


class SystemClock:
    """Implements `contracts.Clock`.

    Both methods are functions of `time` without a wrapper, because they are called ten times for an event that comes
    alone.
    """

    now = staticmethod(time.time)
    """Return the seconds since the epoch, UTC."""

    monotonic = staticmethod(time.monotonic)
    """Return seconds that never go back."""
