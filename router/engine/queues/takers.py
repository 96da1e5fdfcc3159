"""The workers that wait for deliveries of a queue; floor 5."""

from __future__ import annotations

import asyncio
from collections import deque


class Takers:
    """The workers that wait for deliveries. They are woken one at a time, in the order in which they began to wait."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> bool:
        """True if any worker waits."""
        return any(not taker.done() for taker in self._waiting)

    async def wait(self) -> None:
        """Wait until `wake` is called.

        If a worker is cancelled just after it was woken, the next worker is woken instead.
        """
        taker = asyncio.get_running_loop().create_future()
        self._waiting.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self.wake()
            raise

    def wake(self) -> None:
        """Wake the worker that has waited longest."""
        while self._waiting:
            taker = self._waiting.popleft()
            if not taker.done():
                taker.set_result(None)
                return
