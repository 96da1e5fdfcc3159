"""The watch for orphaned queues: queues with deliveries for sinks that the configuration no longer has; floor 4.

An orphaned queue exists until an operator moves its deliveries or turns them into dead letters. So the router warns
about orphaned queues.
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
from router.wording import counted

log = structlog.stdlib.get_logger(__name__)

EVERY = 60.0
"""The minimum number of seconds between two scans of the database."""

PAUSE = 0.005
"""Seconds between two commands of a scan, so that Redis can serve other clients. Each command examines a thousand keys."""

SHARE = 20
"""The pause between two scans is at least this multiple of a scan's duration."""


class Orphans:
    """Watches for orphaned queues under one prefix. `served` returns the names of the sinks that exist now."""

    def __init__(
        self, server: Server, *, prefix: str, served: Callable[[], AbstractSet[str]], every: float = EVERY
    ) -> None:
        self._queues = QueueAdmin(server, prefix=prefix)
        self._served = served
        self._found: Mapping[str, int] = {}
        # This `Health` logs nothing, because the Redis queues log the outages of this server.
        health = Health(server.shown, delays=(1.0, every))
        self._repeating = Repeating("orphans", self._watch, every, health)

    @property
    def waiting(self) -> Mapping[str, int]:
        """The number of deliveries in each orphaned queue, by sink name, as of the last scan."""
        served = self._served()
        return {name: number for name, number in self._found.items() if name not in served}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning for each queue in `waiting`."""
        return tuple(warning(name, number) for name, number in self.waiting.items())

    def start(self) -> None:
        """Start scanning."""
        self._repeating.start()

    async def close(self) -> None:
        """Stop scanning and close the connection."""
        await self._repeating.close()
        await self._queues.close()

    def hurry(self) -> None:
        """Scan now, because sinks were added or removed."""
        self._repeating.hurry()

    async def refresh(self) -> None:
        """Count again the deliveries of the queues that the last scan found. Raises the errors of `PlainLink`."""
        before = self._found
        if before:
            found = await self._queues.waiting(before)
            if self._found is before:  # otherwise a scan has ended during the count, and the scan's result is newer
                self._found = found

    async def look(self, *, pause: float = 0.0) -> Mapping[str, int]:
        """Scan now and log new orphaned queues; return the new value of `waiting`. Raises the errors of `PlainLink`."""
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
    """Return the warning about an orphaned queue with this number of deliveries."""
    wait = counted(number, "delivery waits", "deliveries wait")
    return f"{wait} in the queue of {name}, and no sink of the configuration reads this queue: run `event-router queue list`"
