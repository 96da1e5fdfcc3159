"""The check whether a server's clock was set back; pure."""

from __future__ import annotations

STEP = 1.0
"""Seconds that the server's clock may seem to lose against ours: an answer rarely takes longer than that."""


class ServerTime:
    """The clock of a server, compared with our monotonic clock at each answer."""

    def __init__(self) -> None:
        self.went_back = True
        """True if the clock was set back and due times are not corrected yet.

        True at first, because it was unobserved.
        """
        self._ahead: float | None = None

    def heard(self, seconds: float, now: float) -> None:
        """Note the server's time (`seconds` since the epoch) from an answer that arrived at `now` (monotonic)."""
        ahead = seconds - now
        if self._ahead is not None and ahead < self._ahead - STEP:
            self.went_back = True
        self._ahead = ahead
