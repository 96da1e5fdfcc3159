"""The check whether the clock of a Redis server was set back; pure."""

from __future__ import annotations

STEP = 1.0
"""The seconds that the server's clock may seem to lose against ours, because an answer may take that long."""


class ServerTime:
    """The clock of a server, compared with the router's monotonic clock at each answer."""

    def __init__(self) -> None:
        self.went_back = True
        """True if the clock was set back and due times are not corrected yet.

        True at first, because the clock was not observed before.
        """
        self._ahead: float | None = None

    def heard(self, seconds: float, now: float) -> None:
        """Record the server's time (`seconds` since the epoch) from an answer that arrived at `now` (monotonic)."""
        ahead = seconds - now
        if self._ahead is not None and ahead < self._ahead - STEP:
            self.went_back = True
        self._ahead = ahead
