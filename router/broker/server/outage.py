"""A Redis outage from the point of view of one component: its beginning, its reasons and its end; floor 4."""

from __future__ import annotations

from collections.abc import Hashable

from router.contracts import Clock

KINDS = 10
"""The largest number of different reasons that are logged in one outage. A reason may contain a number that always changes."""


class Outage:
    """An outage, judged by the attempts of tasks. The outage is over when each failed task has received an answer from
    Redis.

    `who` identifies a task. Redis may accept the commands of one task and refuse the commands of another task. Only an
    answer of Redis ends the failure of a task. A new attempt alone does not.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: dict[Hashable, str] = {}
        self._logged: set[str] = set()
        self._since = 0.0

    @property
    def reason(self) -> str | None:
        """The reason why Redis can't be used; None while it can be used."""
        return next(reversed(self._failing.values()), None)

    def failed(self, reason: str, who: Hashable = "", *, ended: bool = False) -> bool:
        """Record a failed attempt; return True if the failure must be logged: it is the first failure, or has a new
        reason.

        `ended` is True if the failure is the end of a connection. The end of a connection does not prove an outage, so
        it is logged only if the next attempt fails too.
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
        """Record an answer of Redis. If this ends a logged outage, return the outage's length in seconds, else None."""
        if self._failing.pop(who, None) is None or self._failing or not self._logged:
            return None
        return self._clock.monotonic() - self._since

    def dismiss(self, who: Hashable) -> None:
        """Forget a failing task that has ended: such a task will never report a success."""
        self._failing.pop(who, None)
