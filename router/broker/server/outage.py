"""The trouble of one part of the router with Redis: when it begins, why, and when it is over; floor 4."""

from __future__ import annotations

from collections.abc import Hashable

from router.contracts import Clock

KINDS = 10
"""Reasons that are logged in one outage: they may differ for ever."""


class Outage:
    """The outage as the attempts show it. It is over when each task that failed has had an answer from Redis.

    A part of the router may use Redis in several tasks (`who`), and one of them may be allowed what another one is not.
    Only an attempt that Redis has answered ends anything: to try again is no success.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: dict[Hashable, str] = {}
        self._told: set[str] = set()
        self._since = 0.0

    @property
    def reason(self) -> str | None:
        """Why Redis can't be used; None while it can."""
        return next(reversed(self._failing.values()), None)

    def failed(self, reason: str, who: Hashable = "", *, ended: bool = False) -> bool:
        """Note a failed attempt; return whether it is to be logged, as the first or for a new reason.

        `ended` says that a connection ended, which says nothing of the server: that is logged if the next attempt fails too.
        """
        first = not self._failing
        if first:
            self._since = self._clock.monotonic()
            self._told.clear()
        self._failing[who] = reason
        if (ended and first) or reason in self._told or len(self._told) >= KINDS:
            return False
        self._told.add(reason)
        return True

    def succeeded(self, who: Hashable = "") -> float | None:
        """Note an answer; return how many seconds the outage was, if it was logged and is over with this, else None."""
        if self._failing.pop(who, None) is None or self._failing or not self._told:
            return None
        return self._clock.monotonic() - self._since

    def dismiss(self, who: Hashable) -> None:
        """Forget a task that ended without an answer: nobody will say that its trouble is over."""
        self._failing.pop(who, None)
