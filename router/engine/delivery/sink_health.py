"""The health of one sink, with log lines when failures begin, change and end; floor 5.

Thousands of errors may differ only in a number, an id or an address. Errors that differ only in numbers or ids count as
one kind. Errors with different addresses count as different kinds. Therefore, at most one line a second and ten lines a
minute are logged.
"""

from __future__ import annotations

from structlog.stdlib import BoundLogger

from router.contracts import Clock
from router.core.accounts.snapshot import Failure, Fault
from router.engine.log_limits import KINDS, QUIET, kind

PAUSE = 1.0
"""The minimum number of seconds between two log lines about failures of one sink."""


class SinkHealth:
    """The failures of one sink.

    A log line is written when failures begin, when their kind changes, and when the sink works again.
    """

    def __init__(self, log: BoundLogger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self.active = False
        """True while the sink fails."""
        self.last_failure: Failure | None = None
        """The last failure that was followed by a retry; None if there was no such failure. The value stays even if the
        sink works again.
        """
        self._kind = ""  # the kind of the last logged error; empty if no error was logged since the failures began
        self._quiet_until = 0.0
        self._lines = 0  # the number of lines logged in the current minute
        self._minute_ends = 0.0
        self._since = 0.0
        self._began = 0.0
        self._why = ""
        self._times = 0

    @property
    def fault(self) -> Fault | None:
        """The time at which the sink began to fail, and the last error; None while the sink works."""
        return Fault(self._since, self._why) if self.active else None

    def waits(self, error: str) -> None:
        """Record that a delivery waits for its next attempt because of this error."""
        self.last_failure = Failure(self._clock.now(), error)

    def happened(self, message: str, error: str, **fields: object) -> None:
        """Record a failure of the sink.

        Log the failure if its kind differs from the kind of the last logged failure.
        """
        now = self.count(f"{message}: {error}")
        of_this = kind(f"{message}: {error}")
        if of_this == self._kind or now < self._quiet_until:
            return
        if now >= self._minute_ends:
            self._lines, self._minute_ends = 0, now + QUIET
        if self._lines >= KINDS:
            return
        self._lines += 1
        self._kind, self._quiet_until = of_this, now + PAUSE
        self._log.warning(message, error=error, **fields)

    def stopped(self, message: str, error: str, **fields: object) -> None:
        """Record and log a failure that makes all deliveries wait from now on."""
        now = self.count(error)
        self._kind, self._quiet_until = kind(f"{message}: {error}"), now + PAUSE
        self._log.error(message, error=error, **fields)

    def count(self, why: str) -> float:
        """Record a failure without a log line; return the current monotonic time."""
        now = self._clock.monotonic()
        if not self.active:
            self.active, self._since, self._began, self._times = True, self._clock.now(), now, 0
        self._times += 1
        self._why = why
        return now

    def ended(self, message: str, **fields: object) -> None:
        """Record that the sink works. Log `message` if a failure was logged before."""
        self.active = False
        if self._kind:
            self._kind = ""
            seconds = round(self._clock.monotonic() - self._began, 1)
            self._log.info(message, times=self._times, seconds=seconds, **fields)
