"""The Redis queue of one sink: a stream read by a consumer group, and a sorted set for what is due later; floor 4.

A delivery in hand is a pending entry of this router's consumer. It leaves the stream when it is settled, or for the sorted
set when it is to be tried again, so an entry's delivery count tells how often a router died with it in hand. Routers with
the same configuration share the work; one that dies leaves entries that a peer takes over once nobody renews them.

The parts: what is in hand (`queue_hand`), reading and recovery (`queue_reader`), what is told of deliveries that are over
(`queue_settlement`), the books and what is due later (`queue_books`), renewal (`queue_keeper`), and what all queues of a
router ask Redis in one step (`queue_rounds`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from redis import exceptions as failures

from router.broker.queues.inbox import Inbox
from router.broker.queues.parts.queue_books import QueueBooks
from router.broker.queues.parts.queue_common import MOST, QueueContext, QueueHost, Timing
from router.broker.queues.parts.queue_hand import QueueHand
from router.broker.queues.parts.queue_keeper import QueueKeeper
from router.broker.queues.parts.queue_reader import QueueReader
from router.broker.queues.parts.queue_settlement import Settlement, entry_of
from router.broker.server import client
from router.broker.server.link import COMMAND, Link, cancelled
from router.contracts import QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.errors import Reason
from router.events import Event, Outcome, size_of

_TASKS = ("read", "settle", "keep")


class RedisQueue:
    """Implements `contracts.Queue` on Redis for the deliveries of one sink.

    `inbox` hands new deliveries over to Redis. `give_up` makes a dead letter of one and settles it when that is written.
    `book` is this router's own; everybody's is in Redis.
    """

    durable = True

    def __init__(
        self,
        sink: str,
        host: QueueHost,
        *,
        inbox: Inbox,
        give_up: Callable[[Event, Reason, str], None],
        book: SinkBook,
        limits: QueueLimits,
        timing: Timing | None = None,
    ) -> None:
        self._context = context = QueueContext(sink, host, timing or Timing())
        self._inbox = inbox
        self._reading = Link(host.server, context.timing.block + client.TIMEOUT)
        self._writing = writing = Link(host.server)
        self.hand = hand = QueueHand(host.isolation)
        self.books = QueueBooks(context, writing, book)
        self.keeper = keeper = QueueKeeper(context, writing, hand, self.books)
        self.settlement = Settlement(context, writing, hand, put_off=keeper.wake)
        self._reader = QueueReader(context, self._reading, writing, hand, keeper=keeper, give_up=give_up)
        self.shared_book = self.books.shared
        """Everybody's book of the sink, as of the last `refresh`, which is never long ago."""
        self.tasks: list[asyncio.Task[None]] = []
        self.configure(limits)

    def configure(self, limits: QueueLimits) -> None:
        """Take other limits from now on, and so does the way into the queue."""
        self._inbox.configure(limits)
        self.hand.ready.hold = min(limits.hold, MOST)
        self.keeper.idle = limits.idle
        self.settlement.overriding = limits.overriding
        self._reader.configure(limits)
        self.hand.ready.make_room()

    @property
    def reason(self) -> str | None:
        """Why the queue can't be used; None while it can."""
        return self._context.health.reason

    @property
    def held(self) -> int:
        """Deliveries that the queue held at the last `refresh`, whoever has them in hand."""
        return self.books.held

    @property
    def unreadable(self) -> int:
        """Entries in hand that this router can't read."""
        return len(self.hand.unreadable)

    # What the worker uses.

    @property
    def events(self) -> int:
        """Deliveries that are not settled; once the router ends those in hand, for the others stay where they are."""
        return self._inbox.waiting + (self.hand.open if self._context.ending.begun else self.held)

    @property
    def delayed(self) -> int:
        """Those of them that wait for their next attempt."""
        return 0 if self._context.ending.begun else self.books.delayed

    def due_in(self) -> float | None:
        """Seconds until the next delayed delivery is due, None when none waits."""
        due = self.books.due
        return None if self._context.ending.begun or due is None else due - self._context.clock.monotonic()

    def put(self, events: list[Event], size: int) -> None:
        """Hand deliveries over to Redis. Never waits."""
        self._inbox.put(events, size)

    async def take(self, most: int) -> tuple[list[Event], int]:
        """The next deliveries, at least one and at most `most`, and their bytes; waits until there are some."""
        hand, ready = self.hand, self.hand.ready
        while True:
            first = ready.first
            if first is None:
                await ready.arrival()
            elif hand.shut_out:
                await hand.isolation.opened()
            elif self.keeper.overdue:
                await self.keeper.catch_up()
            elif first.count is not None:
                event = await self._reader.recovery.take_alone()
                if event is not None:
                    return [event], len(event.raw)
            else:
                events = ready.take(most)
                return events, size_of(events)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:  # noqa: ARG002  # the books count the bytes of records
        """Deliveries in hand are over, all in the same way."""
        self.settlement.settle(events, outcome, reason)

    def keep(self, event: Event) -> bool:
        """Whether a delivery in hand may stay there for long: not one that must be alone in hand, all others wait for it."""
        return self.hand.keep(entry_of(event))

    def later(self, event: Event, delay: float) -> None:
        """Hand back a delivery that was taken, to be tried again after `delay` seconds."""
        self.settlement.later(event, delay)

    async def give_back(self, hand: Sequence[Event]) -> None:
        """Hand back deliveries that were taken and not attempted: they are the next to be taken, in this order."""
        if hand:
            self.hand.take_up(map(entry_of, hand))
            self.hand.ready.give_back(list(hand))

    def leave(self, *, handed_over: bool) -> list[Event]:  # noqa: ARG002  # nothing is
        """Take out nothing: what waits stands in Redis."""
        return []

    def split(self, event: Event, parts: list[Event]) -> None:
        """A delivery in hand was handed over to `parts`; its entry gives way to theirs once each is put off or over."""
        self.settlement.split(event, parts)

    async def settled(self) -> None:
        """Take no more from Redis but what stands there ready, and wait until nothing is in hand."""
        ending, hand = self._context.ending, self.hand
        if not ending.begun:
            ending.begin()
            hand.ready.make_room()
            self.keeper.wake()
            if self.tasks:
                unblocking = self._reader.stop_waiting()
                self.tasks.append(asyncio.create_task(unblocking, name=f"queue {self._context.sink}: unblock"))
        while not self._reader.ended or hand.open or self._inbox.waiting:
            if ending.lingered:  # what no worker has taken by now stays where it is
                left = hand.ready.entries
                hand.ready.remove(left)
                hand.let_go(left)
            await hand.change(0.05)

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Whether an end has to wait: for a moment, for what is on its way to or from Redis. What waits in `hand` stands there."""
        return not hand

    def close(self, hand: Sequence[Event]) -> int:  # noqa: ARG002  # it stays pending
        """End: nothing is lost with this process, for it all stands in Redis."""
        self._context.ending.begin(at_once=True)
        self.hand.ready.make_room()
        return 0

    # Its life.

    def start(self) -> None:
        """Begin to read. Redis need not be there."""
        self.hand.isolation.join(self.hand)
        self._context.rounds.join(self.keeper.wake, self._context.timing.tick)
        jobs = zip(_TASKS, (self._reader.run(), self.settlement.run(), self.keeper.run(self._reader.look)), strict=True)
        name = f"queue {self._context.sink}"
        self.tasks = [asyncio.create_task(job, name=f"{name}: {task}") for task, job in jobs]

    def signs(self) -> Iterator[Sign]:
        """What it is at."""
        part = f"queue of {self._context.sink}"
        yield Sign(part, COMMAND, self._reading.since)
        yield Sign(f"{part}: keeper", COMMAND, self._writing.since)
        yield Sign(f"{part}: books", COMMAND, self._context.rounds.since)
        if not self._context.ending.begun and any(task.done() for task in self.tasks):
            yield Sign(part, "a task has ended by itself", None, ended=True)

    async def refresh(self) -> None:
        """Read the shared book."""
        await self.books.tick()

    async def end(self, patience: float) -> None:
        """After the drain: tell Redis what is over, set free what is left, read the books once more, hang up."""
        self._context.ending.begin(at_once=True)
        with contextlib.suppress(TimeoutError, failures.RedisError, OSError):
            async with asyncio.timeout(patience):
                await self._stop_tasks()
                await self.settlement.flush()
                await self.keeper.set_free()
                await self.books.tick()
        await self.cut()
        self.hand.leave_alone()
        self.hand.isolation.part(self.hand)
        for who in _TASKS:
            self._context.health.dismiss(who)

    async def cut(self) -> None:
        """Stop at once and hang up: what Redis was not told stays pending."""
        await self._stop_tasks()
        await self._context.rounds.part(self.keeper.wake)
        await self._reading.close()
        await self._writing.close()

    async def _stop_tasks(self) -> None:
        tasks, self.tasks = self.tasks, []
        await cancelled(tasks)
