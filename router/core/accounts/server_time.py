"""The check whether the clock of a Redis server was set back; pure."""

from __future__ import annotations

STEP = 1.0
"""The tolerance in seconds. The server's clock may seem to be behind by this much, because a reply may take this
long.
"""


class ServerTime:
    """The clock of a server, compared with the router's monotonic clock at each reply."""

    def __init__(self) -> None:
        self.went_back = True
        """True if the server's clock was set back and the due times are not corrected yet. The value is True at first,
        because the clock was not observed before the start.
        """
        self._ahead: float | None = None

    def heard(self, seconds: float, now: float) -> None:
        """Record the server's time (`seconds` since the epoch) from a reply that arrived at `now` (monotonic
        seconds).
        """
        ahead = seconds - now
        if self._ahead is not None and ahead < self._ahead - STEP:
            self.went_back = True
        self._ahead = ahead
