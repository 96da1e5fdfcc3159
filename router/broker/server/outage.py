"""A Redis outage as one component sees it: when it begins, its reasons, and when it is over; floor 4."""

from __future__ import annotations

from collections.abc import Hashable

from router.contracts import Clock

KINDS = 10
"""The largest number of different reasons logged in one outage. A reason may hold a number that changes each time."""


class Outage:
    """An outage, judged by the attempts of tasks. It is over when each task that failed has had an answer from Redis.

    A component may use Redis in several tasks (`who`), and Redis may accept the commands of one task and refuse those
    of another. Only an answer ends the failure of a task; a new attempt does not.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: dict[Hashable, str] = {}
        self._logged: set[str] = set()
        self._since = 0.0

    @property
    def reason(self) -> str | None:
        """The reason why Redis can't be used; None while it can."""
        return next(reversed(self._failing.values()), None)

    def failed(self, reason: str, who: Hashable = "", *, ended: bool = False) -> bool:
        """Record a failed attempt; return whether to log it: as the first of the outage, or for a new reason.

        `ended` means that a connection ended, which does not prove an outage: log it only if the next attempt fails
        too.
        """
        first = not self._failing
        if first:
            self._since = self._clock.monotonic()
            self._logged.clear()
        self._failing[who] = reason
        if (ended and first) or reason in self._logged or len(self._logged) >= KINDS:
            return False
        self._logged.add(reason)
        return True

    def succeeded(self, who: Hashable = "") -> float | None:
        """Record an answer; return the length of the outage in seconds if this ends a logged outage, else None."""
        if self._failing.pop(who, None) is None or self._failing or not self._logged:
            return None
        return self._clock.monotonic() - self._since

    def dismiss(self, who: Hashable) -> None:
        """Forget a task that ended without an answer: it will never report a success."""
        self._failing.pop(who, None)
