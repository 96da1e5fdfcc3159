"""The real clock; floor 5."""

from __future__ import annotations

import time


class SystemClock:
    """Implements `contracts.Clock`.

    For speed, both methods are functions of the module `time` without a wrapper: a single event causes ten calls of the
    clock.
    """

    now = staticmethod(time.time)
    """Return the seconds since the epoch, UTC."""

    monotonic = staticmethod(time.monotonic)
    """Return the seconds of a clock that never goes back."""
