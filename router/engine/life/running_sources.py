"""The sources at work: each runs in a task of its own, and one that ends by itself ends the router; floor 5."""

from __future__ import annotations

import asyncio

import structlog

from router.contracts import Source

log = structlog.stdlib.get_logger(__name__)


class RunningSources:
    """The tasks in which sources read."""

    def __init__(self) -> None:
        self.crashed = asyncio.Event()
        """Set when a source has ended that was not told to."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._told: set[int] = set()

    def start(self, source: Source) -> None:
        """Let a source read that is started."""
        task = asyncio.create_task(source.run(), name=f"source {source.name}")
        self._tasks[id(source)] = task
        task.add_done_callback(lambda task: self._ended(source, task))

    async def stop(self, source: Source) -> None:
        """Stop a source; returns when the last batch has been handed on."""
        self._told.add(id(source))
        await source.stop()

    def _ended(self, source: Source, task: asyncio.Task[None]) -> None:
        self._tasks.pop(id(source), None)
        told = id(source) in self._told
        self._told.discard(id(source))
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = "a source ended by itself, which is a fault of the router"
            log.critical(message, source=source.name, exc_info=error)
        if error is not None or not told:
            self.crashed.set()
