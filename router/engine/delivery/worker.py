"""One sink at work: takes its deliveries, prepares them and calls the sink; floor 5.

A sink that fails, hangs or raises harms itself alone. Its `slots` call it; its `gate` holds them back while it does not
work; `results` says what becomes of the deliveries; its queue may keep the deliveries of each key in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import repeat

import structlog

from router.config.models import HostKeys
from router.contracts import Clock, Queue, Sign, WorkQueue
from router.core.accounts.books import SinkBook
from router.core.accounts.snapshot import Fault
from router.core.delivery.breaker import Ticket
from router.core.delivery.pace import Pace
from router.engine.calling.calls import Caller
from router.engine.calling.slots import Slot, Slots
from router.engine.delivery.gate import Gate
from router.engine.delivery.opening import Opening
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.preparing import Pair, Preparing, Send
from router.engine.delivery.results import Chance, Results
from router.engine.delivery.sink_health import SinkHealth
from router.errors import TransientError
from router.events import Event, size_of

log = structlog.stdlib.get_logger(__name__)

TURN = 0.05
"""Seconds that a worker may go on without giving others their turn: one turn of the event loop may read thousands of
events, so in a flood a worker has to get more done between two of them."""


class SinkWorker:
    """The worker of one sink: delivers what is put into its queue.

    `preparing` renders the options of each delivery, `outcomes` ends it. `line` stands in front of the queue of a sink whose
    deliveries keep their order. At most `batch` deliveries go into a call of a sink that takes batches.
    """

    def __init__(
        self,
        *,
        keys: HostKeys,
        concurrency: int,
        batch: int,
        caller: Caller,
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
        """Where the deliveries are in hand: the queue, or what keeps their order in front of that."""
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
        """The sink's deliveries in numbers, as far as this process knows."""
        return self.outcomes.book

    def start(self) -> None:
        """Start the workers."""
        self._slots.start()

    def check(self) -> None:
        """Look after attempts that are over their time; called several times a second."""
        self._slots.check()

    def signs(self) -> Iterator[Sign]:
        """Return what the workers are doing, for the watchdog."""
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
        return self._health.fault

    @property
    def breaker_open(self) -> bool:
        """True while the sink is left alone because it fails."""
        return self._gate.open

    async def settled(self) -> None:
        """Wait until nothing is left."""
        await self.line.settled()

    def may_settle_within(self, seconds: float) -> bool:
        """Return whether an end within this time is worth waiting for.

        An attempt under way is; and what the queue must not leave, where it may be tried, or is due again, by then.
        """
        if self._slots.attempting:
            return True
        if not self.line.holds_up(self._slots.hand) or (self._gate.wait() or 0.0) > seconds:
            return False
        due = self.line.due_in()
        return self.line.events > self.line.delayed or (due is not None and due <= seconds)

    async def retire(self) -> None:
        """Make room for another worker of the same queue: finish the calls under way, give back the rest, close the sink.

        A call takes at most `timeout`; `check` has to be called on until then.
        """
        await self.line.give_back(await self._slots.retire())
        await self._opening.close()

    async def close(self) -> int:
        """End the workers and close the sink; returns how many deliveries are lost (dropped, `shutdown`)."""
        lost = self.line.close(self._slots.hand)
        await self._slots.close()
        await self._opening.close()
        return lost

    # One slot.

    async def _work(self, slot: Slot) -> None:
        await self._opening.opened(slot)
        turn_began = self._clock.monotonic()
        while not self._slots.retiring:
            if self._clock.monotonic() - turn_began > TURN:
                await asyncio.sleep(0)  # a plugin that never awaits would keep the loop until its queue is empty
                turn_began = self._clock.monotonic()
            if self._gate.ticket is None:
                await self._gate.passable()
            slot.hand, size = await self.line.take(self._most)
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
                    events, more = await self.line.take(self._most - len(slot.hand))
                    slot.hand = slot.hand + events
                    size += more
        return size

    def _left_behind(self, slot: Slot, fault: Exception | None) -> None:
        """Fail what a slot had in hand: its plugin does not come back, or a `fault` of ours has ended it."""
        if fault is None:
            self._log.error("the plugin ignores its timeout and was left behind", timeout=self._slots.timeout)
        hand, slot.hand = slot.hand, []
        if hand:
            told = None if fault is None else TransientError(f"a fault of the router: {type(fault).__name__}")
            self._results.failed(slot.ticket, hand, told or self._slots.late())

    # One attempt, and what becomes of it.

    async def _attempt(self, slot: Slot, events: list[Event], size: int) -> list[Event]:
        """Deliver what is in hand; returns what has to stay there."""
        paid = 0
        while True:
            ticket = self._gate.ticket
            if ticket is None:
                events = slot.hand = self._results.held(events)
                if not events:
                    return []
                size = size_of(events)
                ticket = await slot.wait(self._gate.enter())
                paid = 0
            slot.ticket = ticket
            pairs = await self._pairs(slot, events)
            if self._gate.spares_addresses:
                pairs = self._results.not_paused(pairs)
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
            results = await self._slots.call(slot, self._caller.deliver(pairs))
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises is the failure of these deliveries
            slot.hand = []  # from here on a fault of ours must not have them judged twice
            self.outcomes.called(pairs, began, self.preparing)
            return self._results.called_in_vain(ticket, pairs, error)
        finally:
            self.outcomes.meter.called(self._clock.monotonic() - began)
        slot.hand = []
        self.outcomes.called(pairs, began, self.preparing)
        if results is None:
            self._results.delivered(ticket, events, size)
            return []
        return self._results.sorted_out(ticket, pairs, results)

    async def _pairs(self, slot: Slot, events: list[Event]) -> list[Pair]:
        """Return each delivery with its rendered options; settle those that can't or need not be sent."""
        preparing = self.preparing
        if preparing.shared is not None:
            return list(zip(events, repeat(preparing.shared), strict=False))
        pairs: list[Pair] = []
        for place, event in enumerate(events):
            prepared = await preparing.prepare(event)
            if isinstance(prepared, Send):
                pairs.append((event, prepared.options))
                continue
            slot.hand = [kept for kept, _ in pairs] + events[place + 1 :]
            self._results.not_sent(event, prepared)
        return pairs


def _most(batch: int, pace: Pace | None) -> int:
    """Deliveries in one call: no more than `rate` lets through at once."""
    return batch if pace is None else min(batch, pace.number)
