"""One sink at work: its queue, its workers, and what becomes of each delivery; floor 5.

A sink that fails, hangs or raises harms itself alone. Each worker is a task; one that does not come back from its plugin
in time is cancelled, and one that swallows even that is left behind and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import msgspec
import structlog

from router.config import HostKeys
from router.contracts import Clock, DeadLetters, Queue, Result
from router.core import retry
from router.core.books import SinkBook
from router.core.ids import Ids
from router.core.rendering import OptionsTemplate
from router.engine import letters
from router.engine.calls import Caller
from router.engine.delivery_mode import DeliveryMode
from router.engine.memory_queue import size_of
from router.engine.notes import Notes
from router.errors import AddressError, PartialError, Reason, RouterError, SinkError, TemplateError, TransientError
from router.events import Event, History, Outcome
from router.ops.logs import Repeating

log = structlog.stdlib.get_logger(__name__)

GRACE = 1.0
"""Seconds that a cancelled attempt has to come back before its worker is left behind."""

REOPEN = retry.RetryPolicy(initial=1.0, max_delay=30.0)
"""How often opening a sink is tried again; for ever, whatever its age."""

Chance = Callable[[], float]
Pair = tuple[Event, Any]


class Slot:
    """One worker: its task, what it has in hand, and until when its attempt may take (monotonic seconds)."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.hand: list[Event] = []
        self.deadline: float | None = None
        self.expired = False
        self.abandoned = False


class _AbandonedError(Exception):
    """This worker has been replaced: it has nothing to say any more."""


class SinkWorker:
    """Delivers what is put into it.

    `templates` gives the compiled options by route, and by None for any other route. `mode` holds back what
    `deliver: print` must not send.
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
    ) -> None:
        self.name = name
        self.book = book
        self.queue = queue
        self._caller = caller
        self._most = batch if caller.takes_batches else 1
        self._concurrency = concurrency
        self._timeout = keys.timeout
        self._policy = retry.RetryPolicy(
            keys.retry.initial, keys.retry.max_delay, keys.retry.max_age, keys.retry.attempts
        )
        self._max_wait = keys.batch.max_wait if caller.takes_batches else 0.0
        self._templates = templates
        self._shared = _shared(templates.values())
        self._mode = mode
        self._dead_letters = dead_letters
        self._clock = clock
        self._ids = ids
        self._chance = chance
        self._slots: list[Slot] = []
        self._left_behind: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._parted = False  # whether any delivery was ever split by address
        self._open = False
        self._closing = False
        self._log = log.bind(sink=name)
        self._fault = Repeating(self._log)
        self._notes = Notes(self._log, clock)

    def start(self) -> None:
        """Start the workers."""
        self._slots = [self._start_slot() for _ in range(self._concurrency)]

    def check(self) -> None:
        """Look after attempts that are over their time; called several times a second."""
        now = self._clock.monotonic()
        for place, slot in enumerate(self._slots):
            if slot.deadline is None or now < slot.deadline or slot.task is None:
                continue
            if not slot.expired:
                slot.expired = True
                slot.deadline = now + GRACE
                slot.task.cancel()
            else:
                self._slots[place] = self._replace(slot)

    async def settled(self) -> None:
        """Wait until nothing is left."""
        await self.queue.settled()

    def may_settle_within(self, seconds: float) -> bool:
        """Whether a delivery waits, is in hand, or is due again within this time."""
        due = self.queue.next_due()
        return self.queue.events > self.queue.delayed or (due is not None and due <= self._clock.now() + seconds)

    async def close(self) -> int:
        """End the workers and close the sink; returns how many deliveries are lost (dropped, `shutdown`)."""
        self._closing = True
        hand = [event for slot in self._slots for event in slot.hand]
        lost = self.queue.close(hand)
        tasks = [slot.task for slot in self._slots if slot.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        await self._close_sink()
        return lost

    async def _close_sink(self) -> None:
        if not self._open:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._caller.close()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # its end must not hold up ours
            self._log.warning("the sink did not close", error=_told(error))

    # One worker.

    def _start_slot(self) -> Slot:
        slot = Slot()
        slot.task = asyncio.create_task(self._work(slot), name=f"sink {self.name}")
        return slot

    def _replace(self, slot: Slot) -> Slot:
        """Leave a worker behind whose plugin does not come back, fail what it has in hand and start another."""
        slot.abandoned = True
        slot.deadline = None
        if slot.task:
            self._left_behind.add(slot.task)
            slot.task.add_done_callback(self._left_behind.discard)
        self._log.error("the plugin ignores its timeout and was left behind", timeout=self._timeout)
        hand, slot.hand = slot.hand, []
        self._failed(hand, self._timed_out())
        return self._start_slot()

    async def _work(self, slot: Slot) -> None:
        with contextlib.suppress(_AbandonedError):
            await self._opened(slot)
            while True:
                slot.hand, size = await self.queue.take(self._most)
                if self._max_wait and len(slot.hand) < self._most:
                    size += await self._wait_for_more(slot)
                await self._deliver(slot, slot.hand, size)
                slot.hand = []

    async def _wait_for_more(self, slot: Slot) -> int:
        """Fill the batch in hand for at most `batch.max_wait`; returns the bytes that came."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait):
                while len(slot.hand) < self._most:
                    events, more = await self.queue.take(self._most - len(slot.hand))
                    slot.hand = slot.hand + events
                    size += more
        return size

    async def _opened(self, slot: Slot) -> None:
        """Open the sink, once for all workers; try again until it succeeds."""
        async with self._opening:
            attempt = 0
            while not self._open:
                try:
                    await self._timed(slot, self._caller.open())
                except Exception as error:  # noqa: BLE001  # whatever a plugin raises, it is tried again
                    attempt += 1
                    self._fault.happened("the sink can't be opened", error=_told(error))
                    now = self._clock.now()
                    passing = TransientError(str(error))
                    decision = retry.decide(
                        REOPEN, attempt=attempt, first_failed_at=now, error=passing, now=now, chance=self._chance()
                    )
                    assert isinstance(decision, retry.RetryAt)
                    await asyncio.sleep(decision.due - now)
                else:
                    self._open = True
                    self._fault.ended("the sink is open")

    async def _timed(self, slot: Slot, call: Any) -> Any:
        """Await a call of the plugin for at most `timeout`. Raises what it raises, `TransientError` when it is late."""
        slot.expired = False
        slot.deadline = self._clock.monotonic() + self._timeout
        try:
            result = await call
        except asyncio.CancelledError:
            if slot.abandoned:
                raise _AbandonedError from None
            if self._closing:
                raise
            if slot.expired and slot.task:
                slot.task.uncancel()
                raise self._timed_out() from None
            raise TransientError("the plugin cancelled itself") from None
        except BaseException as error:
            if slot.abandoned:
                raise _AbandonedError from None
            if not isinstance(error, Exception):
                raise RuntimeError(f"{type(error).__name__}: {error}") from error  # noqa: TRY004  # SystemExit ends a delivery, not us
            raise
        else:
            if slot.abandoned:
                raise _AbandonedError
            if slot.expired and slot.task:
                slot.task.uncancel()
            return result
        finally:
            slot.deadline = None

    def _timed_out(self) -> TransientError:
        return TransientError(f"timed out after {self._timeout:g} s")

    # A batch and what becomes of it.

    async def _deliver(self, slot: Slot, events: list[Event], size: int) -> None:
        pairs = await self._pairs(slot, events)
        if not pairs:
            return
        if len(pairs) < len(events):
            slot.hand = [event for event, _ in pairs]
            size = size_of(slot.hand)
        try:
            results = await self._call(slot, pairs)
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises is the failure of this delivery
            self._failed(slot.hand, error)
            return
        if results is None:
            self._delivered(slot.hand, size)
        else:
            self._sort_out(slot.hand, results)

    async def _call(self, slot: Slot, pairs: Sequence[Pair]) -> Sequence[Result] | None:
        if self._caller.takes_batches:
            outcome: Sequence[Result] | None = await self._timed(slot, self._caller.deliver_batch(pairs))
            return outcome
        await self._timed(slot, self._caller.deliver(*pairs[0]))
        return None

    async def _pairs(self, slot: Slot, events: list[Event]) -> list[Pair]:
        """Each delivery with its rendered options; those that can't or need not be sent are settled here."""
        if self._shared is not None and self._mode is None and not self._parted:
            return list(zip(events, repeat(self._shared), strict=False))
        pairs: list[Pair] = []
        for place, event in enumerate(events):
            slot.hand = [kept for kept, _ in pairs] + events[place:] if self._mode else slot.hand
            pair = await self._rendered(event)
            if pair is not None:
                pairs.append(pair)
        return pairs

    def _template(self, route: str) -> OptionsTemplate:
        return self._templates.get(route) or self._templates[None]

    async def _rendered(self, event: Event) -> Pair | None:
        template = self._template(event.route)
        if template.static is not None and event.address is None and self._mode is None:
            return event, template.static
        try:
            rendered = template.render(event, self._clock.now())
        except TemplateError as error:
            self._give_up(event, Reason.TEMPLATE, str(error))
            return None
        except AddressError as error:
            self._give_up(event, Reason.ADDRESS, str(error))
            return None
        if rendered.suppressed:
            self._settle(event, Outcome.SUPPRESSED, rendered.suppressed)
            return None
        if rendered.degraded:
            self.book.degraded += 1
            message = "a text could not be rendered: the JSON line is sent instead"
            self._notes.say(message, event.route, error=rendered.degraded, **_about(event))
        if self._mode is not None:
            allowed = await self._mode.allowed(event, rendered)
            if allowed is not None:
                self._hold_back(event, allowed)
                return None
        return event, rendered.options

    def _hold_back(self, event: Event, allowed: list[str]) -> None:
        """What was shown counts as delivered; an address that may be sent to goes on as a delivery of its own."""
        if not allowed:
            self._settle(event, Outcome.DELIVERED)
            return
        for part in self._parts(event, allowed):
            self.queue.later(part, self._clock.now())

    def _delivered(self, events: Sequence[Event], size: int) -> None:
        self.queue.settle(events, size, Outcome.DELIVERED)
        if self._fault.active:
            self._fault.ended("the sink delivers again")

    def _sort_out(self, events: list[Event], results: Sequence[Result]) -> None:
        delivered = [event for event, result in zip(events, results, strict=True) if result is None]
        if delivered:
            self._delivered(delivered, size_of(delivered))
        chance = self._chance()
        for event, result in zip(events, results, strict=True):
            if result is not None:
                self._fail(event, result, chance)

    def _failed(self, events: Iterable[Event], error: Exception) -> None:
        """All of these failed together: they get one delay, and keep their order."""
        chance = self._chance()
        for event in events:
            self._fail(event, error, chance)

    def _fail(self, event: Event, error: Exception, chance: float) -> None:
        if isinstance(error, PartialError):
            self._split(event, error, chance)
            return
        now = self._clock.now()
        before = event._history
        history = History(before.first_failed_at if before else now, (before.calls if before else 0) + 1, _told(error))
        decision = retry.decide(
            self._policy,
            attempt=event.attempt,
            first_failed_at=history.first_failed_at,
            error=error,
            now=now,
            chance=chance,
        )
        if isinstance(decision, retry.GiveUp):
            self._give_up(event, decision.reason, history.last_error, attempts=history.calls)
            return
        message = "the sink is at fault, not the message" if isinstance(error, SinkError) else "delivery failed"
        retry_in = round(decision.due - now, 1)
        self._fault.happened(
            message, error=history.last_error, attempt=event.attempt, retry_in=retry_in, **_about(event)
        )
        attempt = event.attempt + decision.counted
        self.queue.later(msgspec.structs.replace(event, attempt=attempt, _history=history), decision.due)

    def _split(self, event: Event, error: PartialError, chance: float) -> None:
        """Make a delivery of its own of each address that failed; the others have got it."""
        if event.address is not None or not error.failures:
            own = next(iter(error.failures.values()), None)
            if own is None:
                self._delivered([event], len(event.raw))
            else:
                self._fail(event, own, chance)
            return
        for part, failure in zip(self._parts(event, error.failures), error.failures.values(), strict=True):
            self._fail(part, failure, chance)

    def _parts(self, event: Event, addresses: Iterable[str]) -> list[Event]:
        """A delivery of its own for each of these addresses; the whole is handed over to them."""
        self._parted = True
        parts = [msgspec.structs.replace(event, address=address) for address in addresses]
        self.queue.split(event, parts)
        return parts

    def _give_up(self, event: Event, reason: Reason, detail: str, *, attempts: int | None = None) -> None:
        """Make a dead letter; the delivery is over when that is written, for sources that wait to hear of it."""
        now = self._clock.now()
        if attempts is None:
            history = event._history
            attempts = history.calls if history else 0
        letter = letters.of_delivery(self._ids.next(now), event, reason, detail, now=now, attempts=attempts)
        self._notes.say("delivery given up", reason, event.route, error=detail, reason=str(reason), **_about(event))
        settle = partial(self._settle, event, Outcome.DEAD_LETTERED, reason)
        if event._receipt is None:
            self._dead_letters.add([letter])
            settle()
        else:
            self._dead_letters.add([msgspec.structs.replace(letter, written=settle)])

    def _settle(self, event: Event, outcome: Outcome, reason: Reason | None = None) -> None:
        self.queue.settle([event], len(event.raw), outcome, reason)


def _shared(templates: Iterable[OptionsTemplate]) -> Any:
    """The one options object of all deliveries, None where routes or events make a difference."""
    options = [template.static for template in templates]
    return options[0] if options and all(one is not None and one == options[0] for one in options) else None


def _about(event: Event) -> dict[str, str]:
    about = {"event_id": event.id, "source": event.source, "channel": event.channel}
    about["route"] = event.route
    if event.address is not None:
        about["address"] = event.address
    return about


def _told(error: BaseException) -> str:
    """What is said of a failure: its text where a sink chose it, with the class where it is an accident."""
    text = str(error)
    if isinstance(error, RouterError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
