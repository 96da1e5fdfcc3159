"""Whether a Redis keeps what it is given: its eviction policy and its append-only file, asked every minute; floor 4."""

from __future__ import annotations

import structlog
from redis.exceptions import ResponseError

from router.broker.server.client import Server
from router.broker.server.link import Link
from router.broker.server.repeating import Repeating
from router.core.accounts.durability_risks import judge, power_cut

log = structlog.stdlib.get_logger(__name__)

EVERY = 60.0
"""Seconds between two questions."""


class Durability:
    """Watches the server that holds Redis queues. What is wrong is a warning, never a refusal."""

    def __init__(self, server: Server, *, every: float = EVERY) -> None:
        self.warnings: tuple[str, ...] = ()
        """What endangers the queues, as of the last answer."""
        self.power_cut: tuple[str, ...] = ()
        """What a power cut may take of them, where the server tells."""
        self._tells = True
        self._link = Link(server)
        self._repeating = Repeating("durability", self._ask, every)  # of failures those who carry work tell

    def start(self) -> None:
        """Begin to ask."""
        self._repeating.start()

    async def close(self) -> None:
        """Ask no more."""
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
        """Return what INFO lacks. Who may not ask for it is not asked again: each refusal stands in the server's ACL LOG."""
        if not self._tells:
            return {}
        try:
            answer = await self._link.call("CONFIG", "GET", "appendfsync")
        except ResponseError:
            self._tells = False
            return {}
        return {"appendfsync": answer[1].decode()} if answer else {}
