"""What waits in queues of sinks that are gone, looked for once a minute; floor 4.

Such a queue is kept until somebody decides what becomes of it, so somebody has to hear of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from router.broker.queues.queue_admin import QueueAdmin
from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.repeating import Repeating

log = structlog.stdlib.get_logger(__name__)

EVERY = 60.0
"""Seconds between two looks; more where one takes long."""

PAUSE = 0.005
"""Seconds between two parts of a look, each of a thousand keys: a large database has other things to do."""

SHARE = 20
"""The pause between two looks, at least, as a multiple of the duration of a look."""


class Orphans:
    """Watches the queues under one prefix. `served` says which sinks are there to work off theirs now."""

    def __init__(
        self, server: Server, *, prefix: str, served: Callable[[], AbstractSet[str]], every: float = EVERY
    ) -> None:
        self._queues = QueueAdmin(server, prefix=prefix)
        self._served = served
        self._found: Mapping[str, int] = {}
        health = Health(server.shown, delays=(1.0, every))  # those who carry work tell of failures
        self._repeating = Repeating("orphans", self._watch, every, health)

    @property
    def waiting(self) -> Mapping[str, int]:
        """The number of deliveries in the queue of each sink that is gone, as of the last look."""
        served = self._served()
        return {name: number for name, number in self._found.items() if name not in served}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One warning for each queue in `waiting`."""
        return tuple(warning(name, number) for name, number in self.waiting.items())

    def start(self) -> None:
        """Begin to look."""
        self._repeating.start()

    async def close(self) -> None:
        """Look no more."""
        await self._repeating.close()
        await self._queues.close()

    def hurry(self) -> None:
        """Sinks have come or gone: look soon."""
        self._repeating.hurry()

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

    async def _watch(self) -> float:
        began = time.monotonic()
        await self.look(pause=PAUSE)
        return max(self._repeating.every, SHARE * (time.monotonic() - began))


def warning(name: str, number: int) -> str:
    """Return the warning about a queue that no sink works off."""
    wait = "1 delivery waits" if number == 1 else f"{number} deliveries wait"
    return (
        f"{wait} in the queue of {name}, and no sink of the configuration works it off: see `event-router queue list`"
    )
