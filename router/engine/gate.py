"""The breaker of one sink at work: attempts pass, or wait until they may; floor 5."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from router.config import BreakerConfig
from router.contracts import Clock
from router.core.breaker import Breaker, State, Ticket, Verdict, asked, verdict
from router.engine.trouble import Trouble

CURE = "correct the sink's credential or address and reload, or wait until the other side has"
"""What an operator can do about a sink at fault."""


class Gate:
    """Lets attempts through while the sink works. `waiting` says how many deliveries the sink has to do."""

    def __init__(self, config: BreakerConfig, *, clock: Clock, trouble: Trouble, waiting: Callable[[], int]) -> None:
        self.reset = config.reset
        """Seconds between two probes."""
        self._breaker = Breaker(config.failures, config.reset)
        self._clock = clock
        self._trouble = trouble
        self._waiting = waiting
        self._changed = asyncio.Event()

    @property
    def ticket(self) -> Ticket | None:
        """The ticket for an attempt now; None while attempts must `enter`."""
        return self._breaker.ticket

    def may_pass_within(self, seconds: float) -> bool:
        """Whether an attempt may be made within this time, as far as is known now."""
        if self._breaker.state is State.OPEN:
            return self._breaker.probe_at <= self._clock.monotonic() + seconds
        return True

    async def paused(self) -> None:
        """Wait while no attempt may be made."""
        while self._breaker.ticket is None and self._delay() != 0.0:
            await self._change()

    async def enter(self) -> Ticket:
        """Wait until an attempt may be made. The ticket must be reported on, or given back."""
        while (ticket := self._breaker.enter(self._clock.monotonic())) is None:
            await self._change()
        return ticket

    async def _change(self) -> None:
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delay()):
                await changed.wait()

    def _delay(self) -> float | None:
        """Seconds until the next probe, None while one is under way."""
        if self._breaker.state is State.OPEN:
            return max(self._breaker.probe_at - self._clock.monotonic(), 0.0)
        return None

    def give_back(self, ticket: Ticket) -> None:
        """No attempt was made after all."""
        self._breaker.give_back(ticket, self._clock.monotonic())
        self._wake(ticket)

    def report(self, ticket: Ticket, error: Exception | None, told: str = "") -> None:
        """Take the result of an attempt: None for delivered. `told` is what is said of the error."""
        says = verdict(error)
        if self._breaker.report(ticket, says, self._clock.monotonic(), asked(error)):
            if says is Verdict.WORKS:
                self._trouble.ended("the sink delivers again", waiting=self._waiting())
            elif says is Verdict.AT_FAULT:
                self._say("the sink is at fault, not the message: its deliveries wait", told, cure=CURE)
            else:
                self._say("the sink fails: its deliveries wait", told)
        self._wake(ticket)

    def _say(self, message: str, told: str, **fields: str) -> None:
        self._trouble.stopped(message, told, waiting=self._waiting(), tried_every=f"{self.reset:g} s", **fields)

    def _wake(self, ticket: Ticket) -> None:
        if ticket.probe or self._breaker.ticket is None:
            self._changed.set()
            self._changed = asyncio.Event()
