"""The gate of one sink: delays attempts while the breaker is open or the service has asked the router to wait; floor 5.

A service may ask the router to wait for the whole sink or for a single address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from router.config.models import BreakerConfig
from router.contracts import Clock
from router.core.delivery.breaker import Breaker, State, Ticket, Verdict, verdict
from router.core.delivery.pauses import Pauses
from router.core.delivery.retry import requested_delay
from router.engine.delivery.sink_health import SinkHealth
from router.errors import PartialError, TransientError

CURE = "correct the sink's credential or address and reload, or wait until the service is repaired"
"""The advice to the operator if the cause of a failure is the sink, and not the message."""


class Destination(NamedTuple):
    """The destination of a delivery: its addresses, and whether the addresses are literal texts of the
    configuration.
    """

    addresses: tuple[str, ...]
    literal: bool


class Gate:
    """The gate of one sink. `waiting` returns, for log lines, the number of unsettled deliveries of the sink."""

    def __init__(self, config: BreakerConfig, *, clock: Clock, health: SinkHealth, waiting: Callable[[], int]) -> None:
        self.reset = config.reset
        """Seconds between two probes."""
        self._breaker = Breaker(config.failures, config.reset)
        self._clock = clock
        self._health = health
        self._waiting = waiting
        self._changed = asyncio.Event()
        self._paused_until = 0.0  # 0 if the service has not asked the router to wait
        self._pauses = Pauses()

    @property
    def ticket(self) -> Ticket | None:
        """The ticket for an attempt now; None if the worker must wait for a ticket with `enter`."""
        return None if self.paused else self._breaker.ticket

    @property
    def open(self) -> bool:
        """True while the breaker is open, because the sink fails."""
        return self._breaker.ticket is None

    @property
    def paused(self) -> bool:
        """True while the sink is paused, because the service asked the router to wait."""
        if self._paused_until and self._clock.monotonic() >= self._paused_until:
            self._paused_until = 0.0
        return self._paused_until > 0.0

    @property
    def spares_addresses(self) -> bool:
        """True if some addresses may be paused."""
        return bool(self._pauses)

    def heed(self, error: Exception, to: Destination) -> None:
        """Apply the pause that the service has requested with a failure.

        The pause applies to the sink or to the addresses in `to`. Do nothing if the service has requested no pause.
        """
        if isinstance(error, PartialError):
            for address, failure in error.failures.items():
                self.heed(failure, Destination((address,), to.literal))
            return
        seconds = requested_delay(error)
        if seconds is None or not isinstance(error, TransientError):
            return
        now = self._clock.monotonic()
        if not to.addresses or (error.scope or ("sink" if to.literal else "address")) == "sink":
            self._paused_until = max(self._paused_until, now + seconds)
            return
        for address in to.addresses:
            self._pauses.add(address, now + seconds, now)

    def address_wait(self, *addresses: str) -> float:
        """Return the seconds until a delivery to these addresses may be attempted."""
        return self._pauses.left(addresses, self._clock.monotonic())

    def wait(self) -> float | None:
        """Return the seconds until an attempt may be made; None while a probe is under way, because the result of the
        probe decides.
        """
        if self._breaker.state is State.HALF_OPEN:
            return None
        opens_at = self._breaker.probe_at if self._breaker.state is State.OPEN else 0.0
        return max(max(opens_at, self._paused_until) - self._clock.monotonic(), 0.0)

    async def passable(self) -> None:
        """Wait until an attempt may be made. Use `enter` to get the ticket."""
        while self.ticket is None and self.wait() != 0.0:
            await self._change()

    async def enter(self) -> Ticket:
        """Wait until an attempt may be made, and return its ticket.

        The caller must pass the ticket to `report` or `give_back`.
        """
        while self.paused or (ticket := self._breaker.enter(self._clock.monotonic())) is None:
            await self._change()
        return ticket

    async def _change(self) -> None:
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait()):
                await changed.wait()

    def give_back(self, ticket: Ticket) -> None:
        """Give back a ticket that was not used for an attempt."""
        self._breaker.give_back(ticket, self._clock.monotonic())
        self._wake(ticket)

    def report(self, ticket: Ticket, error: Exception | None, told: str = "") -> None:
        """Record the result of an attempt: its error, or None if it succeeded. `told` is the text of the error for the log."""
        says = verdict(error)
        wait = 0.0 if error is None else requested_delay(error) or 0.0
        if self._breaker.report(ticket, says, self._clock.monotonic(), wait):
            if says is Verdict.WORKS:
                self._health.ended("the sink delivers again", waiting=self._waiting())
            elif says is Verdict.AT_FAULT:
                self._log_stop(
                    "the fault is in the sink, not in the message: all deliveries of this sink wait", told, cure=CURE
                )
            else:
                self._log_stop("the sink fails: all deliveries of this sink wait", told)
        self._wake(ticket)

    def _log_stop(self, message: str, told: str, **fields: str) -> None:
        self._health.stopped(message, told, waiting=self._waiting(), tried_every=f"{self.reset:g} s", **fields)

    def _wake(self, ticket: Ticket) -> None:
        if ticket.probe or self._breaker.ticket is None:
            self._changed.set()
            self._changed = asyncio.Event()
