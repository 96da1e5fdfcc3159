"""The worker of one sink: takes deliveries from its queue, prepares them and calls the sink; floor 5.

A sink that fails, hangs or raises affects no other sink. `Slots` calls the sink. `Gate` delays attempts while the sink
is failing. `Results` decides what happens to each delivery. `Ordered` keeps the order of deliveries with the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from itertools import repeat

import structlog

from router.config.models import HostKeys
from router.contracts import Clock, Queue, Sign, WorkQueue
from router.core.accounts.books import SinkBook
from router.core.accounts.snapshot import Failure, Fault
from router.core.delivery.breaker import Ticket
from router.core.delivery.pace import Pace
from router.core.delivery.shared_deliveries import Pair, UniformBatch
from router.engine.calling.calls import SinkCalls, delivers_all
from router.engine.calling.slots import Slot, Slots
from router.engine.delivery.gate import Gate
from router.engine.delivery.opening import Opening
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.preparing import Preparing, Send
from router.engine.delivery.results import Chance, Results
from router.engine.delivery.sink_health import SinkHealth
from router.errors import TransientError
from router.events import Event, size_of

log = structlog.stdlib.get_logger(__name__)

TURN = 0.05
"""Seconds that a worker may run without yielding to the event loop. In a burst, one turn of the loop reads thousands of
events, so a worker must process many deliveries per turn.
"""


class SinkWorker:
    """The worker of one sink, with one slot per concurrent call.

    `preparing` renders the options of each delivery. `outcomes` settles the delivery. `line` is the ordered queue if
    the sink keeps an order of its deliveries, else None. A sink that takes batches gets at most `batch` deliveries per
    call.
    """

    def __init__(
        self,
        *,
        keys: HostKeys,
        concurrency: int,
        batch: int,
        caller: SinkCalls,
        preparing: Preparing,
        queue: Queue,
        outcomes: Outcomes,
        clock: Clock,
        chance: Chance,
        line: WorkQueue | None = None,
    ) -> None:
        self.name = outcomes.sink
        self.queue = queue
        self.outcomes = outcomes
        self.preparing = preparing
        self.line = line or queue
        """The queue from which deliveries are taken: the ordered queue if there is one, else `queue`."""
        self._caller = caller
        self._pace = None if keys.rate is None else Pace(*keys.rate)
        self._most = _most(batch if caller.takes_batches else 1, self._pace)
        self._max_wait = keys.batch.max_wait if caller.takes_batches else 0.0
        self._clock = clock
        self._log = log.bind(sink=self.name)
        self._health = SinkHealth(self._log, clock)
        self._gate = Gate(keys.breaker, clock=clock, health=self._health, waiting=lambda: queue.events)
        self._results = Results(
            keys,
            line=self.line,
            gate=self._gate,
            outcomes=outcomes,
            preparing=preparing,
            health=self._health,
            clock=clock,
            chance=chance,
        )
        self._slots = Slots(
            self.name,
            concurrency,
            timeout=keys.timeout,
            clock=clock,
            work=self._work,
            left_behind=self._left_behind,
        )
        self._opening = Opening(
            caller, self._slots, timeout=keys.timeout, outcomes=outcomes, health=self._health, chance=chance
        )

    @property
    def book(self) -> SinkBook:
        """The book of the sink's deliveries in this process."""
        return self.outcomes.book

    @property
    def timeout(self) -> float:
        """The seconds allowed for a call of the sink."""
        return self._slots.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._slots.timeout = seconds

    def start(self) -> None:
        """Start the slots."""
        self._slots.start()

    def signs(self) -> Iterator[Sign]:
        """Return the progress of the slots, for the watchdog."""
        return self._slots.signs()

    @property
    def replaced(self) -> int:
        """The number of slots that ended because of a fault of the router, and were replaced."""
        return self._slots.replaced

    @property
    def in_flight(self) -> int:
        """The number of unsettled deliveries that the slots have taken from the queue."""
        return len(self._slots.in_flight)

    @property
    def fault(self) -> Fault | None:
        """The reason why the sink does not deliver, and the time at which the failures began; None while the sink
        delivers.
        """
        return self._health.fault

    @property
    def breaker_open(self) -> bool:
        """True while the circuit breaker is open. Then deliveries wait, because the sink fails."""
        return self._gate.open

    @property
    def last_failure(self) -> Failure | None:
        """The last failure that was followed by a retry; None if there was no such failure."""
        return self._health.last_failure

    def next_attempt_in(self) -> float | None:
        """Return the seconds until the next planned attempt; None if no attempt is planned or the breaker's probe is
        under way.

        While the breaker is open, or the service has asked the router to wait, no delivery may be attempted before this
        time. Otherwise, the result is the time until the next retry.
        """
        wait = self._gate.wait() if self._gate.ticket is None else self.line.due_in()
        return None if wait is None else max(wait, 0.0)

    async def settled(self) -> None:
        """Wait until all deliveries are settled."""
        await self.line.settled()

    def may_settle_within(self, seconds: float) -> bool:
        """Return whether a shutdown should wait, because a delivery may be settled within `seconds`.

        The result is True while an attempt is under way. It is also True if the shutdown would lose a delivery, and an
        attempt may be made within this time.
        """
        if self._slots.attempting:
            return True
        if not self.line.holds_up(self._slots.in_flight) or (self._gate.wait() or 0.0) > seconds:
            return False
        due = self.line.due_in()
        return self.line.events > self.line.delayed or (due is not None and due <= seconds)

    async def retire(self) -> None:
        """End this worker, so that another worker may use its queue.

        The method waits for the calls under way, for about `timeout` seconds at most. Then it puts the other deliveries
        back into the queue and closes the sink.
        """
        await self.line.give_back(await self._slots.retire())
        await self._opening.close()

    async def close(self) -> int:
        """End the slots and close the sink.

        Drop the deliveries that would be lost (reason `shutdown`), and return their number.
        """
        lost = self.line.close(self._slots.in_flight)
        await self._slots.close()
        await self._opening.close()
        return lost

    # The loop of one slot.

    async def _work(self, slot: Slot) -> None:
        await self._opening.opened(slot)
        turn_began = self._clock.monotonic()
        while not self._slots.retiring:
            if self._clock.monotonic() - turn_began > TURN:
                # Without this pause, a plugin that never awaits would block the event loop until its queue is empty.
                await asyncio.sleep(0)
                turn_began = self._clock.monotonic()
            if slot.events or slot.kept:  # the sink as a whole failed, or these deliveries were not part of the probe
                size = size_of(slot.take_up())
            else:
                most = self._most if self._gate.ticket is not None else await self._admitted()
                slot.events, size = await self.line.take(most)
                if self._max_wait and len(slot.events) < most:
                    size += await slot.wait(self._wait_for_more(slot))
            slot.events = await self._attempt(slot, slot.events, size)

    async def _admitted(self) -> int:
        """Wait until attempts may begin.

        Return the largest number of deliveries for one attempt, which is 1 for a probe.
        """
        await self._gate.passable()
        return 1 if self._gate.ticket is None else self._most

    async def _wait_for_more(self, slot: Slot) -> int:
        """Wait for more deliveries for the slot, for at most `batch.max_wait` seconds.

        Return the size of the added payloads in bytes.
        """
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait):
                while len(slot.events) < self._most:
                    events, more = await self.line.take(self._most - len(slot.events))
                    slot.events = [*slot.events, *events]
                    size += more
        return size

    def _left_behind(self, slot: Slot, fault: Exception | None) -> None:
        """Record a failure of the deliveries of a replaced slot.

        `fault` is the fault of the router that ended the slot; None means that the plugin did not return.
        """
        if fault is None:
            self._log.error("the plugin ignored its timeout; its call was abandoned", timeout=self._slots.timeout)
        events, slot.events = slot.events, []
        if events:
            error = None if fault is None else TransientError(f"a fault of the router: {type(fault).__name__}")
            self._results.failed(slot.ticket, events, error or self._slots.late())

    # One attempt to deliver.

    async def _attempt(self, slot: Slot, events: Sequence[Event], size: int) -> list[Event]:
        """Attempt deliveries as soon as the gate and the rate limit allow it.

        Return the deliveries that must stay in the slot.
        """
        paid = 0
        while True:
            ticket = self._gate.ticket
            if ticket is None:
                events = slot.events = self._results.held(events)
                if not events:
                    return []
                size = size_of(events)
                ticket = await slot.wait(self._gate.enter())
                paid = 0
                if ticket.probe and len(events) > 1:
                    events = slot.keep_all_but_one()
                    size = size_of(events)
            slot.ticket = ticket
            pairs = await self._pairs(slot, events)
            if self._gate.spares_addresses:
                pairs = self._results.not_paused(pairs)
            if len(pairs) < len(events):
                events = slot.events = [event for event, _ in pairs]
                size = size_of(events)
            if not events or self._gate.paused:  # the service asked to wait during the preparation
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
        return await self._call_sink(slot, ticket, pairs, events, size)

    async def _call_sink(
        self, slot: Slot, ticket: Ticket, pairs: Sequence[Pair], events: Sequence[Event], size: int
    ) -> list[Event]:
        """Call the sink with prepared deliveries. Return the deliveries that must stay in the slot."""
        began = self._clock.monotonic()
        try:
            results = await self._slots.call(slot, self._caller.deliver(pairs))
        except Exception as error:  # noqa: BLE001  # any error of the plugin is the failure of these deliveries
            slot.events = []  # if a fault of the router follows, `_left_behind` must not fail these deliveries again
            self.outcomes.note_call(pairs, self._clock.monotonic() - began, self.preparing)
            return self._results.call_failed(ticket, pairs, error)
        finally:
            took = self._clock.monotonic() - began
            self.outcomes.meter.observe_call(took)
        slot.events = []
        self.outcomes.note_call(pairs, took, self.preparing)
        if results is None or delivers_all(results):
            self._results.delivered(ticket, events, size, repeat(None) if results is None else results)
            return []
        return self._results.call_returned(ticket, pairs, results)

    async def _pairs(self, slot: Slot, events: Sequence[Event]) -> Sequence[Pair]:
        """Return each delivery with its rendered options.

        Handle deliveries that can't be sent now or need not be sent.
        """
        preparing = self.preparing
        if preparing.shared is not None:
            return UniformBatch(events, preparing.shared)
        pairs: list[Pair] = []
        records = await slot.wait(preparing.look_up(events)) if preparing.looks_up else repeat(None)
        for place, (event, found) in enumerate(zip(events, records, strict=False)):
            if preparing.prints:
                prepared = await preparing.prepare(event, found)
            else:
                prepared = preparing.prepare_to_send(event, found)  # without a coroutine for each delivery
            if isinstance(prepared, Send):
                pairs.append((event, prepared.options))
                continue
            slot.events = [*(prepared_event for prepared_event, _ in pairs), *events[place + 1 :]]
            self._results.not_sent(event, prepared)
        return pairs


def _most(batch: int, pace: Pace | None) -> int:
    """Return the largest number of deliveries per call: `batch`, but not more than `rate` allows at once."""
    return batch if pace is None else min(batch, pace.number)
