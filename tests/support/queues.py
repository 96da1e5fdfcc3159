"""Redis queues for tests: quick ones, with what hands deliveries over to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.queues.enqueuer import Enqueuer
from router.broker.queues.parts.queue_common import GROUP, QueueHost, Timing
from router.broker.queues.parts.queue_rounds import QueueRounds
from router.broker.queues.redis_queue import RedisQueue
from router.broker.server import client
from router.broker.server.outage import Outage
from router.config.models import QueueConfig
from router.core.accounts.books import SinkBook
from router.engine.clock import SystemClock
from router.engine.delivery.outcomes import Outcomes
from router.engine.log_limits import LogLimits
from router.errors import Reason
from router.events import Event, Outcome, size_of
from router.ops.metrics import SinkMeter
from tests.support.engine import Letters
from tests.support.limits import limits
from tests.support.waiting import PATIENCE, until

QUICK = Timing(block=0.1, tick=0.02, claim=0.05, linger=0.2, first_delay=0.01, longest_delay=0.1)
PREFIX = "event-router"


class Line:
    """One router's queue of sink `s`, and the way into it; `options` are those of `contracts.QueueLimits`."""

    def __init__(
        self,
        url: str,
        *,
        consumer: str = "one",
        config: dict[str, Any] | None = None,
        sink: str = "s",
        enqueuer: Enqueuer | None = None,
        outage_buffer: int = 64 * 1024**2,
        isolation: CrashIsolation | None = None,
        timing: Timing = QUICK,
        told: Outage | None = None,
        rounds: QueueRounds | None = None,
        **options: Any,
    ) -> None:
        clock = SystemClock()
        server = client.server(url)
        self.book = SinkBook()
        self.outcomes = Outcomes(sink, book=self.book, meter=SinkMeter(), dead_letters=Letters(), clock=clock)
        self.enqueuer = enqueuer or Enqueuer(
            server,
            prefix=PREFIX,
            buffer_bytes=outage_buffer,
            say=LogLimits(structlog.get_logger(), clock).say,
            outage=Outage(clock),
            delays=(0.01, 0.1),
        )
        own = limits(QueueConfig(**(config or {})), **options)
        self.inbox = self.enqueuer.inbox(sink, own, self.book, self.outcomes.dropped)
        self.given_up: list[tuple[Event, Reason]] = []
        self.hold_letters = False
        """Whether no letter is ever written."""
        self.queue = RedisQueue(
            sink,
            QueueHost(
                server,
                PREFIX,
                consumer,
                clock,
                isolation or CrashIsolation(),
                rounds or QueueRounds(server, GROUP),
                told or Outage(clock),
            ),
            inbox=self.inbox,
            limits=own,
            give_up=self.give_up,
            book=self.book,
            timing=timing,
        )

    def give_up(self, event: Event, reason: Reason, detail: str) -> None:
        assert detail
        self.given_up.append((event, reason))
        if self.hold_letters:
            return
        self.queue.settle([event], len(event.raw), Outcome.DEAD_LETTERED, reason)

    def start(self) -> Line:
        self.queue.start()
        return self

    def put(self, *events: Event) -> None:
        self.queue.put(list(events), size_of(events))

    async def take(self, most: int = 500, within: float = PATIENCE) -> list[Event]:
        async with asyncio.timeout(within):
            return (await self.queue.take(most))[0]

    async def take_all(self, number: int, within: float = PATIENCE) -> list[Event]:
        """Take this many, without settling any."""
        taken: list[Event] = []
        async with asyncio.timeout(within):
            while len(taken) < number:
                taken += (await self.queue.take(500))[0]
        return taken

    async def deliver_all(self, number: int, within: float = PATIENCE) -> list[Event]:
        """Take and settle this many."""
        taken: list[Event] = []
        async with asyncio.timeout(within):
            while len(taken) < number:
                events = (await self.queue.take(500))[0]
                self.deliver(events)
                taken += events
        return taken

    def deliver(self, events: Sequence[Event]) -> None:
        self.outcomes.delivered(self.queue, events, size_of(events))

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def refreshed(self) -> SinkBook:
        """The shared book, with everything in it that was settled."""
        await self.until(lambda: self.queue.settlement.flushed)
        await self.queue.refresh()
        return self.queue.shared_book

    async def die(self) -> None:
        """End as kill -9 would: Redis hears nothing of it."""
        await self.queue.cut()
        await self.enqueuer.close(0)

    async def end(self) -> None:
        """End in order."""
        await self.enqueuer.close(1.0)
        await self.queue.end(1.0)
