"""The clock of a server, and whether it was set back; pure."""

from __future__ import annotations

STEP = 1.0
"""Seconds that the server's clock may lose against ours and count as going on: an answer takes that long at most, mostly."""


class ServerTime:
    """The clock of a server as its answers tell it, beside a clock of ours that never goes back."""

    def __init__(self) -> None:
        self.went_back = True
        """Whether the clock was set back and nobody has seen to that yet. True at first: nobody watched it before."""
        self._ahead: float | None = None

    def heard(self, seconds: float, now: float) -> None:
        """Take the server's time (`seconds` since the epoch) out of an answer that came at `now`."""
        ahead = seconds - now
        if self._ahead is not None and ahead < self._ahead - STEP:
            self.went_back = True
        self._ahead = ahead
