"""A task that calls a function at intervals, for periodic commands to Redis; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from router.broker.server.health import Health
from router.broker.server.link import cancelled
from router.core.accounts.beats import until_beat


class Repeating:
    """Calls `work` every `every` seconds, from `start` to `close`.

    `work` may return the seconds until the next call, or None for the usual time. Objects with the same `every` call
    their functions at the same times (see `core.accounts.beats`). An exception of `work` does not end the task. If
    `health` is given, each call is reported to `health`, which decides how long to wait after a failure.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[float | None]], every: float, health: Health | None = None
    ) -> None:
        self.every = every
        self._name = name
        self._work = work
        self._health = health
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task. `work` is called for the first time at once."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def hurry(self) -> None:
        """End the current pause, so that `work` is called at once."""
        self._hurried.set()

    async def close(self) -> None:
        """Stop the task. A second call does nothing."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._work()
            except Exception as error:  # noqa: BLE001  # after any error the work is tried again
                pause = None if self._health is None else self._health.failed(error)
            else:
                if self._health is not None:
                    self._health.succeeded()
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next() if pause is None else pause):
                    await self._hurried.wait()

    def _until_next(self) -> float:
        return until_beat(asyncio.get_running_loop().time(), self.every)
