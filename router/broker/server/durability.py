"""The check of a Redis server's durability every minute: its eviction policy and its append-only file; floor 4."""

from __future__ import annotations

import structlog
from redis.exceptions import ResponseError

from router.broker.server.client import Server
from router.broker.server.link import Link
from router.broker.server.repeating import Repeating
from router.core.accounts.durability_risks import judge, power_cut

log = structlog.stdlib.get_logger(__name__)

EVERY = 60.0
"""Seconds between two checks."""


class Durability:
    """Watches the settings of the server that stores the Redis queues.

    A bad setting causes a warning, never a refusal.
    """

    def __init__(self, server: Server, *, every: float = EVERY) -> None:
        self.warnings: tuple[str, ...] = ()
        """The warnings about settings that endanger the queues, as of the last answer."""
        self.power_cut: tuple[str, ...] = ()
        """The warning about losses by a power cut. Empty if nothing can be lost, or if the settings are unknown."""
        self._config_allowed = True
        self._link = Link(server)
        self._repeating = Repeating("durability", self._ask, every)  # without Health, because the queues report outages

    def start(self) -> None:
        """Start the checks."""
        self._repeating.start()

    async def close(self) -> None:
        """End the checks and close the connection."""
        await self._repeating.close()
        await self._link.close()

    async def _ask(self) -> None:
        info = await self._info()
        found = judge(info)
        for warning in found:
            if warning not in self.warnings:
                log.warning(warning)
        self.warnings, self.power_cut = found, power_cut(info)

    async def _info(self) -> dict[str, str]:
        answers = [await self._link.call("INFO", section) for section in ("memory", "persistence")]
        lines = [line for answer in answers for line in answer.decode().splitlines()]
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        return info | await self._settings()

    async def _settings(self) -> dict[str, str]:
        """Return the setting `appendfsync`, which the answer to INFO lacks.

        After a refusal, CONFIG GET is not sent again, because the server writes each refusal to the ACL LOG.
        """
        if not self._config_allowed:
            return {}
        try:
            answer = await self._link.call("CONFIG", "GET", "appendfsync")
        except ResponseError:
            self._config_allowed = False
            return {}
        return {"appendfsync": answer[1].decode()} if answer else {}
