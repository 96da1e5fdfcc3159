"""The circuit breaker of a sink: closed, open, half-open; pure.

While the breaker is open, no attempt is made and deliveries wait. After `reset` seconds one attempt is made, the probe.
The result of the probe closes the breaker or opens it again. `reset` does not grow, so a sink that works again is
noticed within `reset` seconds.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from router.core.delivery.retry import requested_delay
from router.errors import DeliveryError, GoneError, PartialError, PermanentError, PluginError, SinkError, TransientError


class State(Enum):
    """The state of a breaker.

    Closed: attempts are made. Open: no attempt is made. Half-open: the probe is under way.
    """

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class Verdict(Enum):
    """The meaning of an attempt's result for the sink."""

    WORKS = auto()
    FAILED = auto()
    AT_FAULT = auto()
    """The sink can't deliver any message: the breaker opens at once."""
    NOTHING = auto()
    """The result does not show whether the sink works."""


def verdict(error: Exception | None) -> Verdict:
    """Return the meaning of an attempt's result (None: delivered) for the sink, as opposed to the message.

    Of the exceptions outside the plugin contract, only `OSError` counts against the sink, because it is a failure of
    the network. All others count against the message: a plugin's bug that affects some messages must not hold back the
    others. An error with a Retry-After does not open the breaker, because the sink is paused for that time anyway. A
    failure of scope `address` does not open the breaker either: only the server of one recipient fails, and other
    recipients may have other servers.
    """
    if error is None:
        return Verdict.WORKS
    if isinstance(error, SinkError):
        return Verdict.AT_FAULT
    if isinstance(error, PermanentError | GoneError | PartialError | PluginError) or requested_delay(error) is not None:
        return Verdict.NOTHING
    if isinstance(error, TransientError) and error.scope == "address":
        return Verdict.NOTHING
    return Verdict.FAILED if isinstance(error, DeliveryError | OSError) else Verdict.NOTHING


class Ticket(msgspec.Struct, frozen=True):
    """The permission for one attempt.

    If the breaker opens or closes during the attempt (`turn` changes), the result is ignored.
    """

    turn: int
    probe: bool


class Breaker:
    """The breaker of one sink. It opens after `failures` failed attempts in a row, or at once after a `SinkError`.

    All times are monotonic seconds.
    """

    __slots__ = ("_consecutive", "_failures", "_reset", "_turn", "probe_at", "state", "ticket")

    def __init__(self, failures: int, reset: float) -> None:
        self._failures = failures
        self._reset = reset
        self._consecutive = 0
        self._turn = 0
        self.state = State.CLOSED
        self.probe_at = 0.0
        """The time from which the next probe may be made, while the breaker is open."""
        self.ticket: Ticket | None = Ticket(0, probe=False)
        """The ticket of every attempt while the breaker is closed, else None."""

    def enter(self, now: float) -> Ticket | None:
        """Return a ticket for an attempt now; None if the attempt must wait."""
        if self.state is State.OPEN and now >= self.probe_at:
            self._turn += 1
            self.state = State.HALF_OPEN
            return Ticket(self._turn, probe=True)
        return self.ticket

    def report(self, ticket: Ticket, result: Verdict, now: float, after: float = 0.0) -> bool:
        """Record the result of an attempt; return whether the breaker opened or closed.

        `after` is the delay in seconds that the sink's service asked for. The result of an attempt that began before
        the breaker last opened or closed is ignored.
        """
        if ticket.turn != self._turn:
            return False
        if result is Verdict.WORKS:
            self._consecutive = 0
            return self._close() if ticket.probe else False
        if result is Verdict.NOTHING:
            if ticket.probe:  # the result does not show whether the sink works: the next delivery becomes the probe
                self._open(now)
            return False
        self._consecutive += 1
        if ticket.probe or result is Verdict.AT_FAULT or self._consecutive >= self._failures:
            self._open(now + max(self._reset, after))
            return not ticket.probe
        return False

    def give_back(self, ticket: Ticket, now: float) -> None:
        """Give back a ticket that was not used for an attempt."""
        self.report(ticket, Verdict.NOTHING, now)

    def _open(self, probe_at: float) -> None:
        self.state = State.OPEN
        self.ticket = None
        self.probe_at = probe_at
        self._turn += 1

    def _close(self) -> bool:
        self.state = State.CLOSED
        self._turn += 1
        self.ticket = Ticket(self._turn, probe=False)
        return True
