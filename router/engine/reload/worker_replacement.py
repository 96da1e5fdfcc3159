"""The replacement of one sink's worker by a successor, or its removal, after a change of the configuration; floor 5.

The successor continues with the same queue, or gets the deliveries of the old queue, so no delivery is lost. It starts
after the calls of the old worker have returned. Two workers of one queue at the same time would break the order of
deliveries. The replacement runs in the background.
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
"""Seconds allowed for closing a queue in Redis."""


class WorkerReplacement:
    """The replacement of the worker `old` by `successor`, which is None if the sink was removed from the configuration.

    If a removed sink has a queue in Redis, its deliveries stay in Redis until an operator decides about them. If the
    queue is in memory, its deliveries are attempted for `patience` seconds after the old sources have stopped
    (`sources_left`). The deliveries that are left then become dead letters.
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
        """True when the replacement has ended. After that, the caller must start a successor itself."""
        self._name = name
        self._patience = patience
        self._sources_left = sources_left
        self._before = before
        self._named = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"replacement of sink {name}")

    def name(self, successor: SinkPart) -> None:
        """Set the successor, because the sink was added to the configuration again during its removal."""
        self.successor = successor
        self._named.set()

    async def wait(self) -> None:
        """Wait until the replacement has ended."""
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """Stop the replacement. Call this method at a shutdown: the router closes the old worker itself."""
        self._task.cancel()

    async def _run(self) -> None:
        """Wait for an earlier replacement, end the old worker, move its deliveries, and start the successor."""
        try:
            if self._before is not None:
                await self._before.wait()
                self._before = None  # its parts can be freed
            if self.successor is None:
                await self._drain()
            elif self.successor.worker.queue is not self.old.worker.queue:
                await self._sources_left.wait()  # an old source may still put deliveries into the old queue
            await self.old.worker.retire()
            await self.old.context.close()
            await self._pass_on(self.old.worker.queue)
            if self.successor is not None:
                start(self.successor, after=self.old)
        except Exception:
            log.exception("a sink could not be replaced, which is a fault of the router", sink=self._name)
        finally:
            self.done = True

    async def _drain(self) -> None:
        """Wait while the old worker empties a memory queue.

        Return when the queue is empty, after `patience` seconds, or when a successor is set.
        """
        await self._sources_left.wait()
        if self.old.worker.queue.durable:
            return
        ends = {asyncio.create_task(self.old.worker.settled()), asyncio.create_task(self._named.wait())}
        await asyncio.wait(ends, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _pass_on(self, queue: Queue) -> None:
        """Move the deliveries of `queue` to the queue of the successor. Do nothing if the successor uses the same queue.

        If there is no successor, turn the deliveries into dead letters.
        """
        new = self.successor
        if new is not None and new.worker.queue is queue:
            return
        with contextlib.suppress(Exception):  # after an error, the entries stay pending until a reader claims them
            await queue.end(QUEUE_PATIENCE)
        left = queue.leave(handed_over=new is not None)
        if new is None:
            if left:
                message = "the sink was removed from the configuration: its deliveries become dead letters"
                log.error(message, sink=self._name, number=len(left))
            detail = f"the sink {self._name} was removed from the configuration"
            for event in left:
                self.old.worker.outcomes.give_up(queue, event, Reason.ORPHANED, detail)
            return
        new.worker.outcomes.moved(len(left))
        _move(left, new.worker.queue)
        if queue.durable and not new.worker.queue.durable:
            self._left_behind(queue.held)

    def _left_behind(self, number: int) -> None:
        if number:
            message = "the queue is in memory now: the deliveries left in Redis wait until an operator moves them"
            log.warning(message, sink=self._name, number=number, cure="event-router queue list")


def start(part: SinkPart, after: SinkPart | None = None) -> None:
    """Start a new worker. Also start its queue, unless the previous worker (`after`) has used the same queue."""
    queue = part.worker.queue
    if after is None or queue is not after.worker.queue:
        queue.start()
    part.worker.start()


def _move(events: Iterable[Event], queue: Queue) -> None:
    """Put deliveries into another queue, grouped by source, because each source has its own outbox."""
    groups: dict[tuple[str, bool], list[Event]] = {}
    for event in events:
        groups.setdefault((event.source, event._receipt is None), []).append(event)
    for group in groups.values():
        queue.put(group, size_of(group))
