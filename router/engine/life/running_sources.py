"""The tasks of running sources; floor 5. If a source ends unexpectedly, the router shuts down."""

from __future__ import annotations

import asyncio

import structlog

from router.contracts import Source

log = structlog.stdlib.get_logger(__name__)


class RunningSources:
    """The tasks in which sources read, one per source."""

    def __init__(self) -> None:
        self.crashed = asyncio.Event()
        """Set when a source has failed, or has ended without a call of `stop`."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stopped: set[int] = set()

    def start(self, source: Source) -> None:
        """Start reading from a source. Its `start` must have succeeded before."""
        task = asyncio.create_task(source.run(), name=f"source {source.name}")
        self._tasks[id(source)] = task
        task.add_done_callback(lambda task: self._ended(source, task))

    async def stop(self, source: Source, patience: float) -> None:
        """Stop a source; return when its last batch was passed to the receiver.

        `patience` is in seconds, as for `contracts.Source.stop`.
        """
        self._stopped.add(id(source))
        await source.stop(patience)

    def _ended(self, source: Source, task: asyncio.Task[None]) -> None:
        self._tasks.pop(id(source), None)
        stopped = id(source) in self._stopped
        self._stopped.discard(id(source))
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = "a source ended because of a fault of the router; the router shuts down"
            log.critical(message, source=source.name, exc_info=error)
        if error is not None or not stopped:
            self.crashed.set()
