"""The results of attempts, and of deliveries that could not be attempted; floor 5.

After its attempt, a delivery is settled, delayed until the next attempt, or split into one delivery per address. If the
sink as a whole fails, the delivery stays with the worker until the sink works again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import msgspec

from router.config.models import HostKeys
from router.contracts import Clock, WorkQueue
from router.core.delivery import retry
from router.core.delivery.breaker import Ticket
from router.core.delivery.shared_deliveries import Pair
from router.engine.delivery.delivery_log import about
from router.engine.delivery.gate import Gate
from router.engine.delivery.outcomes import Outcomes, calls_of
from router.engine.delivery.preparing import Dead, Postponed, Preparing, Shown, Suppressed
from router.engine.delivery.sink_health import SinkHealth
from router.errors import (
    GoneError,
    PartialError,
    PermanentError,
    PluginError,
    Reason,
    SinkError,
    TransientError,
    text_of,
)
from router.events import Event, History, Outcome, size_of
from router.plugin_contracts import Result

Chance = Callable[[], float]


class Results:
    """The handling of one sink's results.

    `line` is the queue from which the worker takes deliveries. `chance` returns a random number for the jitter of
    retries. If a method returns deliveries, they must stay with the worker, unless its docstring says otherwise.
    """

    def __init__(
        self,
        keys: HostKeys,
        *,
        line: WorkQueue,
        gate: Gate,
        outcomes: Outcomes,
        preparing: Preparing,
        health: SinkHealth,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._policy = retry.RetryPolicy(
            keys.retry.initial, keys.retry.max_delay, keys.retry.max_age, keys.retry.attempts
        )
        self._fallback = keys.fallback
        self._line = line
        self._gate = gate
        self._outcomes = outcomes
        self._preparing = preparing
        self._health = health
        self._clock = clock
        self._chance = chance

    def delivered(
        self, ticket: Ticket, events: Sequence[Event], size: int, answers: Iterable[str | None] = repeat(None)
    ) -> None:
        """Settle the deliveries of a call as delivered. `answers` are the sink's answers, one for each delivery."""
        self._outcomes.delivered(self._line, events, size, answers)
        self._gate.report(ticket, None)
        if self._health.active and self._gate.ticket is not None:
            self._health.ended("the sink delivers again")

    def call_returned(self, ticket: Ticket, pairs: Sequence[Pair], results: Sequence[Result]) -> list[Event]:
        """Handle the results of a call, one for each delivery."""
        self._heed(pairs, results)
        taken: list[Event] = []
        answers: list[str | None] = []
        failed: list[tuple[Event, Exception]] = []
        for (event, _), result in zip(pairs, results, strict=True):
            if isinstance(result, Exception):
                failed.append((event, result))
            else:
                taken.append(event)
                answers.append(result)
        if not failed:
            self.delivered(ticket, taken, size_of(taken), answers)
            return []
        if taken:
            self._outcomes.delivered(self._line, taken, size_of(taken), answers)
        fault = next((error for _, error in failed if isinstance(error, SinkError)), None)
        if fault is not None or not taken:
            error = fault or failed[0][1]
            self._gate.report(ticket, error, self._outcomes.error_text(error))
        else:
            self._gate.report(ticket, None)
        for _, error in failed:
            self._outcomes.trace(error)
            self._outcomes.meter.attempt(_result(error))
        chance = self._chance()
        return [kept for event, error in failed for kept in self._fail(event, error, chance)]

    def call_failed(self, ticket: Ticket, pairs: Sequence[Pair], error: Exception) -> list[Event]:
        """Handle the failure of a whole call."""
        self._heed(pairs, repeat(error))
        return self.failed(ticket, [event for event, _ in pairs], error)

    def failed(self, ticket: Ticket, events: Sequence[Event], error: Exception) -> list[Event]:
        """Handle a failure of several deliveries. All deliveries get the same delay, so that their order is kept."""
        self._outcomes.trace(error)
        self._gate.report(ticket, error, self._outcomes.error_text(error))
        self._outcomes.meter.attempt(_result(error), len(events))
        chance = self._chance()
        return [kept for event in events for kept in self._fail(event, error, chance)]

    def held(self, events: Iterable[Event]) -> list[Event]:
        """Return the deliveries that may stay with the worker until the sink works again.

        Put the other deliveries back into their queue.
        """
        kept = []
        for event in events:
            if self._line.may_wait(event):
                kept.append(event)
            else:
                self._line.later(event, self._gate.wait() or self._gate.reset)
        return kept

    def not_sent(self, event: Event, prepared: Suppressed | Dead | Shown | Postponed) -> None:
        """Handle a delivery that can't be sent now or need not be sent.

        If only some addresses of the delivery are allowed, it is split into one delivery per address.
        """
        if isinstance(prepared, Suppressed):
            self._outcomes.settle(self._line, event, Outcome.SUPPRESSED, prepared.reason)
        elif isinstance(prepared, Dead):
            self._give_up(event, prepared.reason, prepared.detail, told=prepared.told)
        elif isinstance(prepared, Postponed):
            self._put_off(event, prepared.error)
        elif not prepared.allowed:
            self._outcomes.settle(self._line, event, Outcome.PRINTED, to=prepared.refused)
        else:
            for part in self._parts(event, [*prepared.allowed, *prepared.refused]):
                if part.address in prepared.allowed:
                    self._line.later(part, 0.0)
                else:
                    self._outcomes.settle(self._line, part, Outcome.PRINTED)

    def not_paused(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Delay deliveries to paused addresses; return the deliveries that may be attempted now.

        If a delivery has several addresses and one of them is paused, the delivery is split into one delivery per
        address.
        """
        may_go: list[Pair] = []
        for event, options in pairs:
            addresses = self._preparing.destination(event, options).addresses
            wait = self._gate.address_wait(*addresses)
            if not wait:
                may_go.append((event, options))
            elif len(addresses) == 1:
                self._line.later(event, wait)
            else:
                for part in self._parts(event, addresses):
                    self._line.later(part, self._gate.address_wait(str(part.address)))
        return may_go

    def _heed(self, pairs: Iterable[Pair], results: Iterable[Result]) -> None:
        """Apply the pauses that the service has requested in these results.

        This must happen before another slot can begin an attempt.
        """
        for (event, options), error in zip(pairs, results, strict=False):
            if isinstance(error, Exception):
                self._gate.heed(error, self._preparing.destination(event, options))

    def _put_off(self, event: Event, error: TransientError) -> None:
        """Delay a delivery for which a lookup failed, or give up the delivery.

        The health of the sink is not affected.
        """
        now = self._clock.now()
        age = retry.age(event._history, now)
        text = self._outcomes.error_text(error)
        decision = retry.put_off(self._policy, age=age, error=error, chance=self._chance())
        if isinstance(decision, retry.GiveUp):
            self._give_up(event, decision.reason, text)
            return
        self._health.waits(text)
        history = History(now - age, calls_of(event), text, now, decision.delay)
        self._line.later(msgspec.structs.replace(event, _history=history), decision.delay)

    def _fail(self, event: Event, error: Exception, chance: float) -> list[Event]:
        """Handle the failure of one delivery; return the deliveries that must stay with the worker."""
        if isinstance(error, PartialError):
            return self._split(event, error, chance)
        now = self._clock.now()
        calls = calls_of(event) + 1
        age = retry.age(event._history, now)
        text = self._outcomes.error_text(error)
        decision = retry.decide(self._policy, attempt=event.attempt, age=age, error=error, chance=chance)
        if isinstance(decision, retry.GiveUp):
            self._give_up(event, decision.reason, text, attempts=calls)
            return []
        if isinstance(decision, retry.Suppress):
            self._outcomes.settle(self._line, event, Outcome.SUPPRESSED, decision.reason, detail=text, attempts=calls)
            return []
        if isinstance(decision, retry.Hold):
            history = History(now - age, calls, text, now, self._gate.reset)
            return self.held([msgspec.structs.replace(event, _history=history)])
        delay = decision.delay
        counted = isinstance(decision, retry.Retry)
        message = "delivery failed" if counted else "the service asks the router to wait"
        self._health.happened(message, text, attempt=event.attempt, retry_in=round(delay, 1), **about(event))
        self._health.waits(text)
        history = History(now - age, calls, text, now, delay)
        self._line.later(msgspec.structs.replace(event, attempt=event.attempt + counted, _history=history), delay)
        return []

    def _split(self, event: Event, error: PartialError, chance: float) -> list[Event]:
        """Split a delivery into one delivery for each failed address, and handle the failure of each.

        All other addresses were reached.
        """
        if event.address is not None or not error.failures:
            own = next(iter(error.failures.values()), None)
            if own is not None:
                return self._fail(event, own, chance)
            self._outcomes.settle(self._line, event, Outcome.DELIVERED)
            return []
        for failure in error.failures.values():
            self._outcomes.trace(failure)
        parts = self._parts(event, error.failures, calls_of(event) + 1, self._outcomes.error_text(error))
        failures = zip(parts, error.failures.values(), strict=True)
        return [kept for part, failure in failures for kept in self._fail(part, _of_address(failure), chance)]

    def _parts(
        self, event: Event, addresses: Iterable[str], attempts: int | None = None, told: str | None = None
    ) -> list[Event]:
        self._preparing.parted()
        return self._outcomes.split(self._line, event, addresses, attempts, told)

    def _give_up(
        self, event: Event, reason: Reason, detail: str, *, attempts: int | None = None, told: str | None = None
    ) -> None:
        fallback = self._fallback
        self._outcomes.give_up(self._line, event, reason, detail, told=told, attempts=attempts, fallback=fallback)


def _result(error: Exception) -> str:
    """Return the name of the result under which a failed attempt is counted. Unknown errors count as transient."""
    if isinstance(error, PartialError):
        return "partial"
    if isinstance(error, SinkError):
        return "sink_fault"
    if isinstance(error, GoneError):
        return "gone"
    return "permanent" if isinstance(error, PermanentError | PluginError) else "transient"


def _of_address(failure: Exception) -> Exception:
    """Return the failure of one address as the failure of the delivery to this address.

    A `SinkError` becomes a `TransientError`, because the error concerns only one address.
    """
    if isinstance(failure, SinkError):
        return TransientError(text_of(failure), retry_after=failure.retry_after)
    return failure
