"""The requests for reloads: by signal, by a changed file or by HTTP; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from router.core.accounts.snapshot import LoadStatus
from router.engine.reload.reloader import Reloaded, Reloader
from router.errors import Problem
from router.ops import systemd
from router.ops.watching import State, possible_changes, states

log = structlog.stdlib.get_logger(__name__)

ENDING = 5.0
"""Seconds allowed for a reload under way when the router shuts down."""


class ReloadRequests:
    """The executor of reloads, which runs them one after another and reports them to the service manager.

    Several requests by a signal or a changed file during a reload are combined into one request.
    """

    def __init__(self, reloader: Reloader, status: Callable[[], str]) -> None:
        self._reloader = reloader
        self._status = status
        self._lock = asyncio.Lock()
        self._asked: str | None = None
        self._wake = asyncio.Event()
        self._begun = asyncio.Event()
        self._under_way: set[asyncio.Task[Reloaded]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def last(self) -> LoadStatus:
        """The time of the last successful load, and the error of a later failed load, if there was one."""
        return self._reloader.status

    def start(self) -> None:
        """Start executing requests, including the requests that were made while the router was starting."""
        self._begun.set()
        self._worker = asyncio.create_task(self._work(), name="reloads")

    def ask(self, why: str) -> None:
        """Request a reload, without waiting for it. `why` is logged."""
        self._asked = why
        self._wake.set()

    async def watch_files(self) -> None:
        """Request a reload whenever a file of the configuration has changed."""
        reloader = self._reloader
        asked: Mapping[Path, State] | None = None
        async for _ in possible_changes(lambda: reloader.files):
            now = states(reloader.files)
            if now not in (reloader.seen, asked):
                asked = now
                self.ask("a file changed")

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            why, self._asked = self._asked or "", None
            try:
                await self.reload(why)
            except Exception:
                log.exception("a reload failed, which is a fault of the router")

    async def reload(self, why: str) -> Reloaded:
        """Reload the configuration and return the result. If the caller is cancelled, the reload continues."""
        task = asyncio.create_task(self._reload(why), name="reload")
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Reloaded]) -> None:
        self._under_way.discard(task)
        self._reloader.freeing.part_ended()  # also after a reload that replaced no part

    async def _reload(self, why: str) -> Reloaded:
        await self._begun.wait()
        async with self._lock:
            if self._ending:
                return Reloaded(problems=(Problem("the router is shutting down"),))
            log.info("reloading", asked_by=why)
            systemd.reloading("reloading the configuration")
            try:
                result = await self._reloader.reload()
            finally:
                if not self._ending:
                    systemd.ready(self._status_line())
            return result

    def _status_line(self) -> str:
        error = self.last.error
        return self._status() if error is None else f"the configuration on disk was refused: {error}"

    async def stop(self) -> None:
        """Refuse further requests. Wait up to `ENDING` seconds for a reload under way, then cancel it."""
        self._ending = True
        self._begun.set()
        if self._worker is not None:
            self._worker.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=ENDING)
        while left := [task for task in self._under_way if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.1)

    async def close(self) -> None:
        """Cancel the replacements of workers that are still under way. Call this method after the drain."""
        await self._reloader.close()
