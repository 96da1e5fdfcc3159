"""One sink at work: what becomes of each of its deliveries; floor 5.

A sink that fails, hangs or raises harms itself alone. Its `slots` call it; its `gate` holds them back while it does not
work; its queue may keep the deliveries of each key in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec
import structlog

from router.config.models import HostKeys
from router.contracts import Clock, DeadLetters, Queue, Sign, WorkQueue
from router.core.accounts.books import SinkBook
from router.core.accounts.records import LONGEST_ERROR
from router.core.accounts.snapshot import Fault
from router.core.delivery import retry
from router.core.delivery.breaker import Ticket
from router.core.delivery.pace import Pace
from router.core.ids import Ids
from router.core.rendering import OptionsTemplate
from router.core.rendering.expressions import Expiry
from router.engine.calling.calls import Caller
from router.engine.dead_letters import dead_letter_factory
from router.engine.delivery.delivery_log import DeliveryLog
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.fallback import HANDED_OVER, HandOver, relay
from router.engine.delivery.gate import Gate
from router.engine.delivery.pausing import Pausing
from router.engine.delivery.preparing import Dead, Preparing, Send, Shown, Suppressed, about
from router.engine.delivery.sink_health import SinkHealth
from router.engine.delivery.slots import GRACE, Slot, Slots, contained
from router.engine.log_limits import LogLimits
from router.errors import (
    PartialError,
    PermanentError,
    PluginError,
    Reason,
    RouterError,
    SinkError,
    TransientError,
    text_of,
)
from router.escaping import cut
from router.events import Event, History, Outcome, size_of
from router.ops.metrics import SinkMeter
from router.plugin_contracts import Result

log = structlog.stdlib.get_logger(__name__)

TURN = 0.05
"""Seconds that a worker may go on without giving others their turn: one turn of the event loop may read thousands of
events, so in a flood a worker has to get more done between two of them."""

REOPEN = retry.RetryPolicy(initial=1.0, max_delay=30.0)
"""How often opening a sink is tried again; for ever, whatever its age."""

Chance = Callable[[], float]
Pair = tuple[Event, Any]

_received_at = attrgetter("received_at")


class SinkWorker:
    """Delivers what is put into its queue.

    `templates` gives the compiled options by route, and by None for any other route; `expires` until when the deliveries
    of a route are worth making. `line` stands in front of the queue of a sink whose deliveries keep their order. `mode`
    holds back what `deliver: print` must not send. `hand_over` puts deliveries into the queues of the sink's fallbacks. `redact` takes
    secrets out of what is told of failures.
    """

    def __init__(
        self,
        name: str,
        *,
        keys: HostKeys,
        concurrency: int,
        batch: int,
        caller: Caller,
        templates: Mapping[str | None, OptionsTemplate],
        mode: DeliveryMode | None,
        queue: Queue,
        book: SinkBook,
        dead_letters: DeadLetters,
        clock: Clock,
        ids: Ids,
        chance: Chance,
        meter: SinkMeter | None = None,
        expires: Mapping[str, Expiry] | None = None,
        line: WorkQueue | None = None,
        hand_over: HandOver | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.name = name
        self.book = book
        self.queue = queue
        self._line = line or queue
        self._caller = caller
        self._mode = mode
        self._templates: Mapping[str | None, OptionsTemplate] = {}
        self._pace = None if keys.rate is None else Pace(*keys.rate)
        self._most = _most(batch if caller.takes_batches else 1, self._pace)
        self._timeout = keys.timeout
        self._policy = retry.RetryPolicy(
            keys.retry.initial, keys.retry.max_delay, keys.retry.max_age, keys.retry.attempts
        )
        self._max_wait = keys.batch.max_wait if caller.takes_batches else 0.0
        self._fallback = keys.fallback if hand_over is not None else []
        self._hand_over = hand_over
        self._redact = redact
        self._dead_letters = dead_letters
        self._clock = clock
        self._ids = ids
        self._chance = chance
        self._meter = meter or SinkMeter()
        self._parted = False  # whether a delivery may be for one address alone
        self._opener: Slot | None = None
        self._open = asyncio.Event()
        self._log = log.bind(sink=name)
        self._trouble = SinkHealth(self._log, clock)
        self._notes = LogLimits(self._log, clock)
        self._debug = DeliveryLog(clock)
        self._gate = Gate(keys.breaker, clock=clock, trouble=self._trouble, waiting=lambda: queue.events)
        self._pausing = Pausing(self._gate, clock)
        self.gone: frozenset[str] = frozenset()
        """Routes that had options of their own and are no more."""
        self._preparing = self.use(templates, expires or {})
        self._slots = Slots(
            name,
            concurrency,
            timeout=keys.timeout,
            clock=clock,
            work=self._work,
            left_behind=self._left_behind,
        )

    def use(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        gone: AbstractSet[str] = frozenset(),
    ) -> Preparing:
        """Render by these templates from now on. Routes that had their own before, or are in `gone`, and are not there now are gone."""
        self.gone = frozenset((self.overriding | self.gone | gone) - templates.keys())
        self._templates = templates
        # It may have been split here, or earlier, by whoever queued it or had it replayed.
        self._parted |= any(template.fields.addresses for template in templates.values())
        self._preparing = Preparing(
            templates,
            expires,
            mode=self._mode,
            book=self.book,
            clock=self._clock,
            notes=self._notes,
            gone=self.gone,
        )
        return self._preparing

    @property
    def overriding(self) -> frozenset[str]:
        """The routes that have options of their own."""
        own = self._templates.get(None)
        return frozenset(route for route, template in self._templates.items() if route and template is not own)

    def start(self) -> None:
        """Start the workers."""
        self._slots.start()

    def check(self) -> None:
        """Look after attempts that are over their time; called several times a second."""
        self._slots.check()

    def signs(self) -> Iterator[Sign]:
        """What it is at."""
        return self._slots.signs()

    @property
    def replaced(self) -> int:
        """Workers that ended by a fault of the router and were replaced."""
        return self._slots.replaced

    @property
    def in_hand(self) -> int:
        """Deliveries that the workers have taken and not settled."""
        return len(self._slots.hand)

    @property
    def fault(self) -> Fault | None:
        """Why the sink does not deliver at present, None while it does."""
        return self._trouble.fault

    @property
    def breaker_open(self) -> bool:
        """Whether the sink is left alone at present, because it fails."""
        return self._gate.open

    async def settled(self) -> None:
        """Wait until nothing is left."""
        await self._line.settled()

    def may_settle_within(self, seconds: float) -> bool:
        """Whether an end within this time is worth waiting for.

        An attempt under way is; and what the queue must not leave, where it may be tried, or is due again, by then.
        """
        if self._slots.attempting:
            return True
        if not self._line.holds_up(self._slots.hand) or (self._gate.wait() or 0.0) > seconds:
            return False
        due = self._line.due_in()
        return self._line.events > self._line.delayed or (due is not None and due <= seconds)

    async def retire(self) -> None:
        """Make room for another worker of the same queue: finish the calls under way, give back the rest, close the sink.

        A call takes at most `timeout`; `check` has to be called on until then.
        """
        await self._line.give_back(await self._slots.retire())
        await self._close_sink()

    def orphan(self, events: Iterable[Event]) -> None:
        """Make dead letters of deliveries in hand, for their sink is gone from the configuration."""
        for event in events:
            self._give_up(event, Reason.ORPHANED, f"the sink {self.name} is gone from the configuration")

    async def close(self) -> int:
        """End the workers and close the sink; returns how many deliveries are lost (dropped, `shutdown`)."""
        lost = self._line.close(self._slots.hand)
        await self._slots.close()
        await self._close_sink()
        return lost

    async def _close_sink(self) -> None:
        if not self._open.is_set():
            return
        self._open.clear()
        closing = asyncio.create_task(contained(self._caller.close()))
        for patience in (self._timeout, GRACE):
            done, _ = await asyncio.wait({closing}, timeout=patience)
            if done:
                break
            closing.cancel()
        if not closing.done():
            self._log.error("the sink ignores that it has to close and was left behind", timeout=self._timeout)
        elif closing.cancelled():
            self._log.warning("the sink did not close", error=f"timed out after {self._timeout:g} s")
        elif (error := closing.exception()) is not None:
            self._log.warning("the sink did not close", error=self._told(error))

    # One slot.

    async def _work(self, slot: Slot) -> None:
        await self._opened(slot)
        turn_began = self._clock.monotonic()
        while not self._slots.retiring:
            if self._clock.monotonic() - turn_began > TURN:
                await asyncio.sleep(0)  # a plugin that never awaits would keep the loop until its queue is empty
                turn_began = self._clock.monotonic()
            if self._gate.ticket is None:
                await self._gate.passable()
            slot.hand, size = await self._line.take(self._most)
            if self._max_wait and len(slot.hand) < self._most:
                size += await slot.wait(self._wait_for_more(slot))
            slot.hand = await self._attempt(slot, slot.hand, size)
            while (
                slot.hand and not self._slots.retiring
            ):  # the sink is at fault: what it failed with stays first in line
                slot.hand = await self._attempt(slot, slot.hand, size_of(slot.hand))

    async def _wait_for_more(self, slot: Slot) -> int:
        """Fill the batch in hand for at most `batch.max_wait`; returns the bytes that came."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait):
                while len(slot.hand) < self._most:
                    events, more = await self._line.take(self._most - len(slot.hand))
                    slot.hand = slot.hand + events
                    size += more
        return size

    async def _opened(self, slot: Slot) -> None:
        """Wait until the sink is open: one slot opens it for all, another one does if that was left behind at it."""
        if self._opener is not None and not self._opener.abandoned:
            await self._open.wait()
            return
        self._opener = slot
        attempt = 0
        while not self._open.is_set():
            try:
                await self._slots.call(slot, self._caller.open())
            except Exception as error:  # noqa: BLE001  # whatever a plugin raises, it is tried again
                attempt += 1
                self._trouble.happened("the sink can't be opened", self._told(error))
                await asyncio.sleep(retry.delay(REOPEN, attempt, self._chance()))
            else:
                self._open.set()
                self._trouble.ended("the sink is open")

    def _left_behind(self, slot: Slot, fault: Exception | None) -> None:
        """Fail what a slot had in hand: its plugin does not come back, or a `fault` of ours has ended it."""
        if fault is None:
            self._log.error("the plugin ignores its timeout and was left behind", timeout=self._timeout)
        hand, slot.hand = slot.hand, []
        if hand:
            told = None if fault is None else TransientError(f"a fault of the router: {type(fault).__name__}")
            self._failed(slot.ticket, hand, told or self._slots.late())

    # One attempt, and what becomes of it.

    async def _attempt(self, slot: Slot, events: list[Event], size: int) -> list[Event]:
        """Deliver what is in hand; returns what has to stay there."""
        paid = 0
        while True:
            ticket = self._gate.ticket
            if ticket is None:
                events = slot.hand = self._held(events)
                if not events:
                    return []
                size = size_of(events)
                ticket = await slot.wait(self._gate.enter())
                paid = 0
            slot.ticket = ticket
            pairs = await self._pairs(slot, events)
            if self._pausing:
                pairs = self._not_paused(pairs)
            if len(pairs) < len(events):
                events = slot.hand = [event for event, _ in pairs]
                size = size_of(events)
            if not events or self._gate.paused:  # the other side asked for time meanwhile
                self._gate.give_back(ticket)
                if not events:
                    return []
                continue
            if self._pace is None or len(events) <= paid:
                break
            wait = self._pace.reserve(len(events) - paid, self._clock.monotonic())
            if wait <= 0:
                break
            paid = len(events)
            self._gate.give_back(ticket)
            await slot.wait(asyncio.sleep(wait))
        return await self._called(slot, ticket, pairs, events, size)

    async def _called(
        self, slot: Slot, ticket: Ticket, pairs: list[Pair], events: list[Event], size: int
    ) -> list[Event]:
        began = self._clock.monotonic()
        try:
            results = await self._call(slot, pairs)
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises is the failure of these deliveries
            slot.hand = []  # from here on a fault of ours must not have them judged twice
            self._debug.called(pairs, began, self._preparing)
            self._heed(pairs, repeat(error))
            return self._failed(ticket, events, error)
        finally:
            self._meter.called(self._clock.monotonic() - began)
        slot.hand = []
        self._debug.called(pairs, began, self._preparing)
        if results is None:
            self._delivered(ticket, events, size)
            return []
        self._heed(pairs, results)
        return self._sort_out(ticket, events, results)

    def _heed(self, pairs: Iterable[Pair], results: Iterable[Result]) -> None:
        """Begin no attempt any more that an answer asks not to make: before anybody else has a turn."""
        for (event, options), error in zip(pairs, results, strict=False):
            if error is not None:
                self._pausing.heed(error, self._preparing.destination(event, options))

    def _not_paused(self, pairs: list[Pair]) -> list[Pair]:
        """Put off what goes to an address that is to be left alone; of several addresses each is then a delivery of its own."""
        may_go: list[Pair] = []
        for event, options in pairs:
            addresses = self._preparing.destination(event, options).addresses
            left = self._pausing.left(*addresses)
            if not left:
                may_go.append((event, options))
            elif len(addresses) == 1:
                self._line.later(event, left)
            else:
                for part in self._parts(event, addresses):
                    self._line.later(part, self._pausing.left(str(part.address)))
        return may_go

    def _held(self, events: list[Event]) -> list[Event]:
        """What stays in hand until the sink may be tried; what may not stay goes back to its queue."""
        kept = []
        for event in events:
            if self._line.keep(event):
                kept.append(event)
            else:
                self._line.later(event, self._gate.wait() or self._gate.reset)
        return kept

    async def _call(self, slot: Slot, pairs: Sequence[Pair]) -> Sequence[Result] | None:
        if self._caller.takes_batches:
            outcome: Sequence[Result] | None = await self._slots.call(slot, self._caller.deliver_batch(pairs))
            return outcome
        await self._slots.call(slot, self._caller.deliver(*pairs[0]))
        return None

    async def _pairs(self, slot: Slot, events: list[Event]) -> list[Pair]:
        """Each delivery with its rendered options; those that can't or need not be sent are settled here."""
        preparing = self._preparing
        if preparing.shared is not None and not self._parted:
            return list(zip(events, repeat(preparing.shared), strict=False))
        pairs: list[Pair] = []
        over = 0
        for place, event in enumerate(events):
            prepared = await preparing.prepare(event)
            if isinstance(prepared, Send):
                pairs.append((event, prepared.options))
                continue
            over += 1
            slot.hand = [kept for kept, _ in pairs] + events[place + 1 :]
            if isinstance(prepared, Suppressed):
                self._settle(event, Outcome.SUPPRESSED, prepared.reason)
            elif isinstance(prepared, Dead):
                self._give_up(event, prepared.reason, prepared.detail, told=prepared.told)
            else:
                self._shown(event, prepared)
        return pairs

    def _shown(self, event: Event, shown: Shown) -> None:
        """Settle what was printed. Where some addresses may be sent to, each address goes on as a delivery of its own."""
        if not shown.allowed:
            self._settle(event, Outcome.PRINTED, to=shown.refused)
            return
        for part in self._parts(event, [*shown.allowed, *shown.refused]):
            if part.address in shown.allowed:
                self._line.later(part, 0.0)
            else:
                self._settle(part, Outcome.PRINTED)

    def _delivered(self, ticket: Ticket, events: Sequence[Event], size: int) -> None:
        self._meter.delivered(map(_received_at, events), self._clock.now())
        self._line.settle(events, size, Outcome.DELIVERED)
        if self._debug.on:
            self._debug.settled(events, Outcome.DELIVERED)
        self._gate.report(ticket, None)
        if self._trouble.active and self._gate.ticket is not None:
            self._trouble.ended("the sink delivers again")

    def _sort_out(self, ticket: Ticket, events: list[Event], results: Sequence[Result]) -> list[Event]:
        delivered = [event for event, result in zip(events, results, strict=True) if result is None]
        failed = [(event, result) for event, result in zip(events, results, strict=True) if result is not None]
        fault = next((result for _, result in failed if isinstance(result, SinkError)), None)
        if delivered:
            self._meter.delivered(map(_received_at, delivered), self._clock.now())
            self._line.settle(delivered, size_of(delivered), Outcome.DELIVERED)
            self._debug.settled(delivered, Outcome.DELIVERED)
        if fault is not None or not delivered:
            error = fault or failed[0][1]
            self._gate.report(ticket, error, self._told(error))
        else:
            self._gate.report(ticket, None)
        for _, result in failed:
            self._meter.attempt(_result(result))
        chance = self._chance()
        return [kept for event, result in failed for kept in self._fail(event, result, chance)]

    def _failed(self, ticket: Ticket, events: Sequence[Event], error: Exception) -> list[Event]:
        """All of these failed together: they get one delay, and keep their order. Returns what stays in hand."""
        self._gate.report(ticket, error, self._told(error))
        self._meter.attempt(_result(error), len(events))
        chance = self._chance()
        return [kept for event in events for kept in self._fail(event, error, chance)]

    def _fail(self, event: Event, error: Exception, chance: float) -> list[Event]:
        """One delivery failed; returns what of it has to stay in hand until the sink works again."""
        if isinstance(error, PartialError):
            return self._split(event, error, chance)
        now = self._clock.now()
        calls = event._history.calls + 1 if event._history else 1
        age = retry.age(event._history, now)
        told = self._told(error)
        decision = retry.decide(self._policy, attempt=event.attempt, age=age, error=error, chance=chance)
        if isinstance(decision, retry.GiveUp):
            self._give_up(event, decision.reason, told, attempts=calls)
            return []
        if isinstance(decision, retry.Hold):
            history = History(now - age, calls, told, now, self._gate.reset)
            return self._held([msgspec.structs.replace(event, _history=history)])
        delay = decision.delay
        counted = isinstance(decision, retry.Retry)
        message = "delivery failed" if counted else "the other side asks for time"
        self._trouble.happened(message, told, attempt=event.attempt, retry_in=round(delay, 1), **about(event))
        history = History(now - age, calls, told, now, delay)
        self._line.later(msgspec.structs.replace(event, attempt=event.attempt + counted, _history=history), delay)
        return []

    def _split(self, event: Event, error: PartialError, chance: float) -> list[Event]:
        """Make a delivery of its own of each address that failed; the others have got it."""
        if event.address is not None or not error.failures:
            own = next(iter(error.failures.values()), None)
            if own is not None:
                return self._fail(event, own, chance)
            self._settle(event, Outcome.DELIVERED)
            return []
        calls = event._history.calls + 1 if event._history else 1
        told = self._told(error)
        parts = zip(self._parts(event, error.failures, calls, told), error.failures.values(), strict=True)
        return [kept for part, failure in parts for kept in self._fail(part, failure, chance)]

    def _parts(
        self, event: Event, addresses: Iterable[str], attempts: int | None = None, error: str | None = None
    ) -> list[Event]:
        """A delivery of its own for each of these addresses; the whole is handed over to them."""
        self._parted = True
        parts = [msgspec.structs.replace(event, address=address) for address in addresses]
        self._line.split(event, parts)
        self._debug.settled([event], Outcome.HANDED_OVER, attempt=attempts, error=error)
        return parts

    def _give_up(
        self, event: Event, reason: Reason, detail: str, *, attempts: int | None = None, told: str | None = None
    ) -> None:
        """Hand it over to the fallbacks, or else make a dead letter; the log is `told` what may stand there of the detail."""
        detail = self._redact(detail)
        error = detail if told is None else self._redact(told)
        if attempts is None:
            history = event._history
            attempts = history.calls if history else 0
        if self._fallback and reason in HANDED_OVER and self._relayed(event, reason, error, attempts):
            return
        now = self._clock.now()
        letter = dead_letter_factory.of_delivery(self._ids.next(now), event, reason, detail, now=now, attempts=attempts)
        fields: dict[str, Any] = {"attempt": attempts, "reason": str(reason), **about(event)}
        self._notes.say("delivery given up", reason, event.route, error=error, **fields)
        self._debug.settled([event], Outcome.DEAD_LETTERED, reason, attempt=attempts, error=error)
        settle = partial(self._line.settle, [event], len(event.raw), Outcome.DEAD_LETTERED, reason)
        if self._waits(event):
            self._dead_letters.add([msgspec.structs.replace(letter, written=settle)])
        else:
            self._dead_letters.add([letter])
            settle()

    def _told(self, error: BaseException) -> str:
        """What is said of a failure, in logs, letters and status alike: its text, with the class where it is an accident.

        A plugin's words, or the other side's, may hold a credential. They are cut: they stay with a delivery that waits.
        """
        text = cut(self._redact(text_of(error)), LONGEST_ERROR)
        if isinstance(error, RouterError):
            return text or type(error).__name__
        return f"{type(error).__name__}: {text}" if text else type(error).__name__

    def _relayed(self, event: Event, reason: Reason, error: str, attempts: int) -> bool:
        """Hand it over to the fallbacks; returns whether one of them took it."""
        assert self._hand_over is not None
        over = partial(self._line.settle, [event], len(event.raw), Outcome.HANDED_OVER)
        taken = relay(event, self._fallback, self._hand_over, over, wait=self._waits(event))
        if taken:
            self._debug.settled([event], Outcome.HANDED_OVER, reason, attempt=attempts, error=error)
            to = ", ".join(taken)
            message = "delivery given up, its fallback gets it"
            self._notes.say(message, reason, event.route, error=error, reason=str(reason), to=to, **about(event))
        return bool(taken)

    def _waits(self, event: Event) -> bool:
        """Whether a source or Redis keeps this delivery until it is settled: then that waits for what follows it."""
        return event._receipt is not None

    def _settle(self, event: Event, outcome: Outcome, reason: Reason | None = None, *, to: Sequence[str] = ()) -> None:
        """Settle one delivery that was not attempted, or got to every address that is not named as failed."""
        self._line.settle([event], len(event.raw), outcome, reason)
        self._debug.settled([event], outcome, reason, addresses=to)


def _most(batch: int, pace: Pace | None) -> int:
    """Deliveries in one call: no more than `rate` lets through at once."""
    return batch if pace is None else min(batch, pace.number)


def _result(error: Exception) -> str:
    """How an attempt that failed counts: whatever is not said to be of another kind may pass."""
    if isinstance(error, PartialError):
        return "partial"
    if isinstance(error, SinkError):
        return "sink_fault"
    return "permanent" if isinstance(error, PermanentError | PluginError) else "transient"
