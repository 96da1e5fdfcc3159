"""The dialer of a pub/sub source: opens a connection, and starts further attempts while earlier ones hang; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from router.broker.pubsub.subscriber import Subscriber
from router.broker.server.client import Backoff
from router.broker.server.link import cancelled
from router.contracts import Clock

TRIES_AT_ONCE = 5
"""The maximum number of concurrent connection attempts. An attempt that hangs does not delay the next attempt."""

OVERTAKE_AFTER = 1.0
"""Seconds without a result after which the next attempt starts, while the current attempt continues."""


class Dialer:
    """Calls `open_one` until one call succeeds.

    Each failure is passed to `failed`, which may raise an exception to end the attempts.
    """

    def __init__(
        self,
        open_one: Callable[[], Coroutine[None, None, Subscriber]],
        failed: Callable[[BaseException], None],
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self.tried = 0.0
        """The time (`clock.monotonic`, seconds) at which the dialer last did something, for the watchdog."""
        self._open = open_one
        self._failed = failed
        self._backoff = backoff
        self._clock = clock

    async def connect(self) -> Subscriber:
        """Return the first connection that opens. Raises the exception that `failed` raises, if any."""
        tries: set[asyncio.Task[Subscriber]] = set()
        try:
            while True:
                if len(tries) < TRIES_AT_ONCE:
                    tries.add(asyncio.create_task(self._open()))
                opened = await self._first(tries, self._backoff.next())
                if opened is not None:
                    return opened
        finally:
            await _discard(tries)

    async def _first(self, tries: set[asyncio.Task[Subscriber]], pause: float) -> Subscriber | None:
        """Return the first connection that opens; return None when the next attempt is due.

        The tasks of the returned connection and of failed attempts are removed from `tries`.
        """
        now = self._clock.monotonic
        begun = now()
        while True:
            self.tried = now()
            left = begun + (max(pause, OVERTAKE_AFTER) if tries else pause) - now()
            if left <= 0:
                return None
            if not tries:
                await asyncio.sleep(left)
                continue
            done, _ = await asyncio.wait(tries, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tries.discard(task)
                error = task.exception()
                if error is None:
                    tries.update(done - {task})
                    return task.result()
                self._failed(error)


async def _discard(tries: set[asyncio.Task[Subscriber]]) -> None:
    """Cancel the remaining attempts, and close the connections that they have opened."""
    await cancelled(tries)
    for task in tries:
        if not task.cancelled() and task.exception() is None:
            await task.result().close()
