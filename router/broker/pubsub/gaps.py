"""The gaps of a pub/sub source: how often and for how long it was deaf; floor 4."""

from __future__ import annotations

from structlog.stdlib import BoundLogger

from router.contracts import Clock


class Gaps:
    """Counts, measures and logs the times in which a source was not subscribed, after it had been."""

    def __init__(self, clock: Clock, log: BoundLogger) -> None:
        self.count = 0
        """The number of times the subscription was lost."""
        self.seconds = 0.0
        """The seconds without the subscription, in all gaps that have ended."""
        self._clock = clock
        self._log = log
        self._began: float | None = None

    def begin(self, why: str, complete_until: float) -> None:
        """Note a loss; a gap that is open goes on. All that was published until `complete_until` has come."""
        if self._began is None:
            self.count += 1
            self._began = complete_until
            self._log.warning("subscription lost; events published until it is back are missed", reason=why)

    def end(self, *, back: bool) -> None:
        """Close the open gap, if there is one; `back` says that the subscription is."""
        if self._began is None:
            return
        seconds = self._clock.monotonic() - self._began
        self._began = None
        self.seconds += seconds
        if back:
            self._log.warning("subscription is back", gap_seconds=round(seconds, 3), gaps=self.count)
