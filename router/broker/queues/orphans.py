"""What waits in queues of sinks that are gone, looked for once a minute; floor 4.

Such a queue is kept until somebody decides what becomes of it, so somebody has to hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from router.broker.queues.queue_admin import QueueAdmin
from router.broker.server.client import Backoff, Server
from router.broker.server.link import cancelled

log = structlog.stdlib.get_logger(__name__)

EVERY = 60.0
"""Seconds between two looks; more where one takes long."""

PAUSE = 0.005
"""Seconds between two parts of a look, each of a thousand keys: a large database has other things to do."""

SHARE = 20
"""A look is followed by so many times its own length without one."""


class Orphans:
    """Watches the queues under one prefix. `served` says which sinks are there to work off theirs now."""

    def __init__(
        self, server: Server, *, prefix: str, served: Callable[[], AbstractSet[str]], every: float = EVERY
    ) -> None:
        self._queues = QueueAdmin(server, prefix=prefix)
        self._served = served
        self._every = every
        self._found: Mapping[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many deliveries wait in the queue of each sink that is gone, as of the last look."""
        served = self._served()
        return {name: number for name, number in self._found.items() if name not in served}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The same in words."""
        return tuple(warning(name, number) for name, number in self.waiting.items())

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="orphans")

    async def close(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])
        await self._queues.close()

    def hurry(self) -> None:
        """Sinks have come or gone: look soon."""
        self._hurried.set()

    async def refresh(self) -> None:
        """Count anew in the queues that the last look found. Raises what `Queues` raises."""
        before = self._found
        if before:
            found = await self._queues.waiting(before)
            if self._found is before:  # no look came in between
                self._found = found

    async def look(self, *, pause: float = 0.0) -> Mapping[str, int]:
        """Look now; says what waits. Raises what `Queues` raises."""
        before = self.waiting
        self._found = await self._queues.waiting(await self._queues.names(pause=pause))
        found = self.waiting
        for name, number in found.items():
            if name not in before:
                log.warning(warning(name, number))
        return found

    async def _watch(self) -> None:
        backoff = Backoff(1.0, self._every)
        while True:
            began = time.monotonic()
            try:
                await self.look(pause=PAUSE)
            except Exception:  # noqa: BLE001  # those who carry work tell of that
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()
                await self._pause(max(self._every, SHARE * (time.monotonic() - began)))

    async def _pause(self, seconds: float) -> None:
        self._hurried.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()


def warning(name: str, number: int) -> str:
    """What is to be said of a queue that no sink works off."""
    wait = "1 delivery waits" if number == 1 else f"{number} deliveries wait"
    return (
        f"{wait} in the queue of {name}, and no sink of the configuration works it off: see `event-router queue list`"
    )
