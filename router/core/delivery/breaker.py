"""Whether a sink may be tried: closed, open, half-open; pure.

While it is open no attempt is made, so none is wasted: deliveries wait. After `reset` one probe goes through, and what
becomes of it decides. The time between two probes does not grow: a sink that works again is found within `reset`.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from router.core.delivery.retry import asked
from router.errors import DeliveryError, PartialError, PermanentError, PluginError, SinkError


class State(Enum):
    """Closed: attempts go through. Open: none does. Half-open: one is under way, the probe."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class Verdict(Enum):
    """The meaning of an attempt's result for the sink."""

    WORKS = auto()
    FAILED = auto()
    AT_FAULT = auto()
    NOTHING = auto()


def verdict(error: Exception | None) -> Verdict:
    """Return what an attempt's result (None: delivered) says about its sink rather than about its message.

    An exception that no sink should raise is taken for the message's, unless it tells of the network (`OSError`): a bug
    that some messages hit must not hold back the others. Nor does an answer that asks for time open the breaker: the time
    is kept to.
    """
    if error is None:
        return Verdict.WORKS
    if isinstance(error, SinkError):
        return Verdict.AT_FAULT
    if isinstance(error, PermanentError | PartialError | PluginError) or asked(error) is not None:
        return Verdict.NOTHING
    return Verdict.FAILED if isinstance(error, DeliveryError | OSError) else Verdict.NOTHING


class Ticket(msgspec.Struct, frozen=True):
    """The right to make one attempt. What it leads to counts only while the breaker is as it was then."""

    turn: int
    probe: bool


class Breaker:
    """The breaker of one sink: opened by `failures` failed attempts in a row, or at once by a sink at fault.

    All times are seconds of a clock that never goes back.
    """

    __slots__ = ("_failures", "_reset", "_row", "_turn", "probe_at", "state", "ticket")

    def __init__(self, failures: int, reset: float) -> None:
        self._failures = failures
        self._reset = reset
        self._row = 0
        self._turn = 0
        self.state = State.CLOSED
        self.probe_at = 0.0
        """When the next probe may go, while it is open."""
        self.ticket: Ticket | None = Ticket(0, probe=False)
        """The ticket of every attempt while it is closed, else None."""

    def enter(self, now: float) -> Ticket | None:
        """The ticket for an attempt now, None when it must wait."""
        if self.state is State.OPEN and now >= self.probe_at:
            self._turn += 1
            self.state = State.HALF_OPEN
            return Ticket(self._turn, probe=True)
        return self.ticket

    def report(self, ticket: Ticket, says: Verdict, now: float, after: float = 0.0) -> bool:
        """Take the result of an attempt; returns whether the breaker opened or closed by it.

        `after` is the least delay in seconds that the other side asked for. A result of an attempt that began before the
        breaker opened or closed changes nothing.
        """
        if ticket.turn != self._turn:
            return False
        if says is Verdict.WORKS:
            self._row = 0
            return self._close() if ticket.probe else False
        if says is Verdict.NOTHING:
            if ticket.probe:  # the next delivery is the probe
                self._open(now)
            return False
        self._row += 1
        if ticket.probe or says is Verdict.AT_FAULT or self._row >= self._failures:
            self._open(now + max(self._reset, after))
            return not ticket.probe
        return False

    def give_back(self, ticket: Ticket, now: float) -> None:
        """Take back a ticket with which no attempt was made."""
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
