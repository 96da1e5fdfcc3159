"""A task that does one thing at intervals: questions that are asked of Redis while the router runs; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from router.broker.server.health import Health
from router.broker.server.link import cancelled


class Repeating:
    """Does `work` every `every` seconds, from `start` to `close`; the work may return another pause.

    A failure does not end it. `health` hears of each attempt and says when the next one is due after a failure.
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
        """Begin, with the first time at once."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def hurry(self) -> None:
        """End the pause."""
        self._hurried.set()

    async def close(self) -> None:
        """End; harmless twice."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._work()
            except Exception as error:  # noqa: BLE001  # whatever it is, there is a next time
                pause = None if self._health is None else self._health.failed(error)
            else:
                if self._health is not None:
                    self._health.succeeded()
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.every if pause is None else pause):
                    await self._hurried.wait()
