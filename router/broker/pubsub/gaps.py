"""The gaps of a pub/sub source: times without a subscription, in which events are lost; floor 4."""

from __future__ import annotations

from structlog.stdlib import BoundLogger

from router.contracts import Clock


class Gaps:
    """Counts, measures and logs the gaps of one source."""

    def __init__(self, clock: Clock, log: BoundLogger) -> None:
        self.count = 0
        """The number of times the subscription was lost."""
        self.seconds = 0.0
        """The total length in seconds of all gaps that have ended."""
        self._clock = clock
        self._log = log
        self._began: float | None = None

    def begin(self, why: str, complete_until: float) -> None:
        """Begin a gap, because the subscription is lost for the reason `why`. Do nothing if a gap is open already.

        `complete_until` is the time (monotonic seconds) up to which all published events were received.
        """
        if self._began is None:
            self.count += 1
            self._began = complete_until
            message = "the subscription is lost; events that are published before it is restored are missed"
            self._log.warning(message, reason=why)

    def end(self, *, back: bool) -> None:
        """Close the open gap, if any. `back` is True if the subscription is restored, False if the source stops."""
        if self._began is None:
            return
        seconds = self._clock.monotonic() - self._began
        self._began = None
        self.seconds += seconds
        if back:
            self._log.warning("the subscription is restored", gap_seconds=round(seconds, 3), gaps=self.count)
