"""The Redis queue of one sink: a stream with a consumer group, and a sorted set of delayed deliveries; floor 4.

A delivery in flight is a pending entry of this router's consumer. The entry leaves the stream when the delivery is
settled. If the delivery is to be retried, it moves to the sorted set. So the delivery count of an entry shows how often
a router died while the delivery was in flight. Routers with the same configuration share the work. If a router dies, a
peer claims its entries after their idle time.

The parts of a queue are in the folder `parts`:

- `queue_in_flight`: the deliveries in flight
- `queue_reader`: reading and recovery
- `queue_settlement`: reporting outcomes to Redis
- `queue_books`: the books, and delayed deliveries
- `queue_renewal`: the renewal of entries
- `queue_rounds`: the script call for all queues of a router
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from redis import exceptions as failures

from router.broker.queues.inbox import Inbox
from router.broker.queues.parts.queue_books import QueueBooks
from router.broker.queues.parts.queue_common import MOST, QueueContext, QueueHost, Timing
from router.broker.queues.parts.queue_in_flight import QueueInFlight
from router.broker.queues.parts.queue_reader import QueueReader
from router.broker.queues.parts.queue_renewal import QueueRenewal
from router.broker.queues.parts.queue_settlement import Settlement, entry_of
from router.broker.server import client
from router.broker.server.link import COMMAND, Link, cancelled
from router.contracts import QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.errors import Reason
from router.events import Event, Outcome, size_of

_TASKS = ("read", "settle", "keep")


class RedisQueue:
    """Implements `contracts.Queue` in Redis for the deliveries of one sink.

    `inbox` enqueues new deliveries. `give_up` turns a delivery into a dead letter, and settles the delivery when the
    letter is written. `book` counts the deliveries of this router alone. The book over all routers is in Redis.
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
        self.in_flight = in_flight = QueueInFlight(host.isolation)
        self.books = QueueBooks(context, writing, book)
        self.renewal = renewal = QueueRenewal(context, writing, in_flight, self.books)
        self.settlement = Settlement(context, writing, in_flight, put_off=renewal.wake)
        self._reader = QueueReader(context, self._reading, writing, in_flight, renewal=renewal, give_up=give_up)
        self.shared_book = self.books.shared
        """The book of the sink over all routers, at most about a second old."""
        self.tasks: list[asyncio.Task[None]] = []
        self.configure(limits)

    def configure(self, limits: QueueLimits) -> None:
        """Replace the limits of the queue and of its inbox."""
        self.limits = limits
        self._inbox.configure(limits)
        self.in_flight.ready.hold = min(limits.hold, MOST)
        self.renewal.idle = limits.idle
        self.settlement.overriding = limits.overriding
        self._reader.configure(limits)
        self.in_flight.ready.make_room()

    @property
    def reason(self) -> str | None:
        """The reason why the queue can't be used; None while it can be used."""
        return self._context.health.reason

    @property
    def held(self) -> int:
        """The number of deliveries in the queue at the last `refresh`, including deliveries in flight at any router."""
        return self.books.held

    @property
    def unreadable(self) -> int:
        """The number of entries in flight that this router can't read."""
        return len(self.in_flight.unreadable)

    # The methods for workers.

    @property
    def events(self) -> int:
        """The number of unsettled deliveries.

        During a shutdown only deliveries in flight and deliveries on their way to Redis count. All other deliveries
        stay in Redis.
        """
        return self._inbox.waiting + (self.in_flight.open if self._context.ending.begun else self.held)

    @property
    def delayed(self) -> int:
        """The number of deliveries among `events` that wait for their next attempt."""
        return 0 if self._context.ending.begun else self.books.delayed

    def due_in(self) -> float | None:
        """Return the seconds until the next delayed delivery is due; None if no delivery is delayed."""
        due = self.books.due
        return None if self._context.ending.begun or due is None else due - self._context.clock.monotonic()

    def put(self, events: Sequence[Event], size: int) -> None:
        """Enqueue deliveries. Never waits."""
        self._inbox.put(events, size)

    async def take(self, most: int) -> tuple[list[Event], int]:
        """Wait for deliveries. Returns the next deliveries (at least one, at most `most`) and their total size in
        bytes.
        """
        in_flight, ready = self.in_flight, self.in_flight.ready
        while True:
            first = ready.first
            if first is None:
                await ready.arrival()
            elif in_flight.shut_out:
                await in_flight.isolation.opened()
            elif self.renewal.overdue:
                await self.renewal.catch_up()
            elif first.count is not None:
                event = await self._reader.recovery.take_alone()
                if event is not None:
                    return [event], len(event.raw)
            else:
                events = ready.take(most)
                return events, size_of(events)

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:  # noqa: ARG002  # the books count the bytes of records
        """Settle deliveries in flight, all with the same outcome."""
        self.settlement.settle(events, outcome, reason)

    def may_wait(self, event: Event) -> bool:
        """Return whether a delivery may stay in flight for long.

        A delivery that must be alone in flight may not wait (False), because all other deliveries wait for this
        delivery.
        """
        return self.in_flight.may_wait(entry_of(event))

    def later(self, event: Event, delay: float) -> None:
        """Return a delivery to the queue, to be retried after `delay` seconds."""
        self.settlement.later(event, delay)

    async def give_back(self, taken: Sequence[Event]) -> None:
        """Put deliveries that were not attempted back at the front of the queue, in this order."""
        if taken:
            self.in_flight.take_up(map(entry_of, taken))
            self.in_flight.ready.give_back(list(taken))

    def leave(self, *, handed_over: bool) -> list[Event]:  # noqa: ARG002  # the deliveries stay in Redis
        """Return an empty list, because no delivery waits only in this process."""
        return []

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery in flight by `parts`.

        The entry of the delivery is replaced in Redis when all parts are deferred or settled.
        """
        self.settlement.split(event, parts)

    async def settled(self) -> None:
        """Begin the shutdown, and wait until no delivery is in flight.

        The queue still reads due deliveries for `Timing.linger` seconds at most, but does not wait for new deliveries.
        """
        ending, in_flight = self._context.ending, self.in_flight
        if not ending.begun:
            ending.begin()
            in_flight.ready.make_room()
            self.renewal.wake()
            if self.tasks:
                unblocking = self._reader.stop_waiting()
                self.tasks.append(asyncio.create_task(unblocking, name=f"queue {self._context.sink}: unblock"))
        while not self._reader.ended or in_flight.open or self._inbox.waiting:
            if ending.lingered:  # deliveries that no worker has taken by now stay in Redis
                left = in_flight.ready.entries
                in_flight.ready.remove(left)
                in_flight.let_go(left)
            await in_flight.change(0.05)

    def holds_up(self, taken: Sequence[Event]) -> bool:
        """Return whether a drain must wait for deliveries of which no attempt is under way.

        If workers have taken deliveries, return False: these deliveries stay pending in Redis, so they are not lost. If
        `taken` is empty, return True, because deliveries may be on their way to or from Redis.
        """
        return not taken

    def close(self, taken: Sequence[Event]) -> int:  # noqa: ARG002  # these stay pending
        """Offer no more deliveries. Returns 0 as the number of lost deliveries, because all deliveries are in Redis."""
        self._context.ending.begin(at_once=True)
        self.in_flight.ready.make_room()
        return 0

    # Start and end.

    def start(self) -> None:
        """Start the tasks of the queue. Redis need not be reachable yet."""
        self.in_flight.isolation.join(self.in_flight)
        self._context.rounds.join(self.renewal, self._context.timing.tick)
        jobs = zip(
            _TASKS, (self._reader.run(), self.settlement.run(), self.renewal.run(self._reader.look)), strict=True
        )
        name = f"queue {self._context.sink}"
        self.tasks = [asyncio.create_task(job, name=f"{name}: {task}") for task, job in jobs]

    def signs(self) -> Iterator[Sign]:
        """Yield the progress of each connection, for the watchdog."""
        part = f"queue of {self._context.sink}"
        yield Sign(part, COMMAND, self._reading.since)
        yield Sign(f"{part}: renewal", COMMAND, self._writing.since)
        yield Sign(f"{part}: books", COMMAND, self._context.rounds.since)
        if not self._context.ending.begun and any(task.done() for task in self.tasks):
            yield Sign(part, "a task ended unexpectedly", None, ended=True)

    async def refresh(self) -> None:
        """Read the shared book."""
        await self.renewal.tick()

    async def end(self, patience: float) -> None:
        """Report outcomes, release the remaining entries, read the books once more, and disconnect.

        Call this method after the drain. Everything before the disconnection takes at most `patience` seconds.
        """
        self._context.ending.begin(at_once=True)
        with contextlib.suppress(TimeoutError, failures.RedisError, OSError):
            async with asyncio.timeout(patience):
                await self._stop_tasks()
                await self.settlement.flush()
                await self.renewal.set_free()
                await self.renewal.tick()
        await self.cut()
        self.in_flight.leave_alone()
        self.in_flight.isolation.part(self.in_flight)
        for who in _TASKS:
            self._context.health.dismiss(who)

    async def cut(self) -> None:
        """Stop at once and disconnect. Deliveries with an outcome that was not reported stay pending."""
        await self._stop_tasks()
        await self._context.rounds.leave(self.renewal)
        await self._reading.close()
        await self._writing.close()

    async def _stop_tasks(self) -> None:
        tasks, self.tasks = self.tasks, []
        await cancelled(tasks)
