"""The replacement of one sink's worker when the configuration changes: it makes room for another, or for nobody; floor 5.

The deliveries stay: a successor goes on with the queue it finds. It begins when the calls under way are over, so that two
workers are never at one queue and the order is kept; nobody else waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from router.contracts import Queue
from router.engine.parts import SinkPart
from router.errors import Reason
from router.events import Event, size_of

log = structlog.stdlib.get_logger(__name__)

QUEUE_PATIENCE = 5.0
"""Seconds that the last words to a queue in Redis may take."""


class WorkerReplacement:
    """The replacement of one sink's worker: `old` makes room for `successor`, None when the sink is gone from the configuration.

    Deliveries of a sink that is gone wait in Redis for whoever decides about them. Those in memory have `patience` seconds
    to be delivered, counted from when no source hands in any more (`sources_left`); the rest become dead letters.
    """

    def __init__(
        self,
        name: str,
        old: SinkPart,
        successor: SinkPart | None,
        *,
        patience: float,
        sources_left: asyncio.Event,
        before: WorkerReplacement | None = None,
    ) -> None:
        self.old = old
        self.successor = successor
        self.done = False
        """Whether it is over: a successor that is named later begins by itself."""
        self._name = name
        self._patience = patience
        self._sources_left = sources_left
        self._before = before
        self._named = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"replacement of sink {name}")

    def name(self, successor: SinkPart) -> None:
        """The sink is back in the configuration before it was gone."""
        self.successor = successor
        self._named.set()

    async def wait(self) -> None:
        """Return when it is over."""
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """The router ends: whatever is in the queue is its worker's."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            if self._before is not None:
                await self._before.wait()
            if self.successor is None:
                await self._work_off()
            elif self.successor.worker.queue is not self.old.worker.queue:
                await self._sources_left.wait()  # one that leaves may still put something into the old queue
            await self.old.worker.retire()
            await self.old.context.close()
            await self._pass_on(self.old.worker.queue)
            if self.successor is not None:
                start(self.successor, after=self.old)
        except Exception:
            log.exception("a sink did not make room, which is a fault of the router", sink=self._name)
        finally:
            self.done = True

    async def _work_off(self) -> None:
        """Deliver what is in memory, as long as there is time and nobody takes it over."""
        await self._sources_left.wait()
        if self.old.worker.queue.durable:
            return
        ends = {asyncio.create_task(self.old.worker.settled()), asyncio.create_task(self._named.wait())}
        await asyncio.wait(ends, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _pass_on(self, queue: Queue) -> None:
        """See that nothing in the queue is forgotten where no successor goes on with it."""
        new = self.successor
        if new is not None and new.worker.queue is queue:
            return
        with contextlib.suppress(Exception):  # what can't be told now is found by whoever reads the queue next
            await queue.end(QUEUE_PATIENCE)
        left = queue.leave(handed_over=new is not None)
        if new is None:
            if left:
                log.error("the sink is gone: its deliveries become dead letters", sink=self._name, number=len(left))
            gone = f"the sink {self._name} is gone from the configuration"
            for event in left:
                self.old.worker.outcomes.give_up(queue, event, Reason.ORPHANED, gone)
            return
        new.worker.outcomes.moved(len(left))
        _move(left, new.worker.queue)
        if queue.durable and not new.worker.queue.durable:
            new.worker.book.forget(new.worker.queue.events)
            self._left_behind(queue.held)

    def _left_behind(self, number: int) -> None:
        if number:
            message = "the queue is in memory now, and deliveries are left in Redis that nobody works off"
            log.warning(message, sink=self._name, number=number, cure="event-router queue list")


def start(part: SinkPart, after: SinkPart | None = None) -> None:
    """Let a new worker begin, and its queue where that is not the one before's."""
    queue = part.worker.queue
    if after is None or queue is not after.worker.queue:
        queue.start()
    part.worker.start()


def _move(events: Iterable[Event], queue: Queue) -> None:
    """Put deliveries into another queue, those of each source together: each source has its own way into Redis."""
    groups: dict[tuple[str, bool], list[Event]] = {}
    for event in events:
        groups.setdefault((event.source, event._receipt is None), []).append(event)
    for group in groups.values():
        queue.put(group, size_of(group))
