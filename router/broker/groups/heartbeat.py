"""The heartbeat by which a router notices that another router runs under the same name; floor 4.

A router is a consumer of its groups under its name. Two routers with the same name would both treat the pending entries
of this consumer as their own. So each process writes a unique word to a key, and reads the word that was there before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog
from redis import exceptions as failures

from router.broker.server.client import Server
from router.broker.server.link import Link
from router.broker.server.repeating import Repeating

log = structlog.stdlib.get_logger(__name__)

PROCESS = os.urandom(8).hex()
"""A word that is unique to this process."""

LASTS = 60.0
"""Seconds after the last write until the key expires. The key of a process that died expires in this way."""

NEVER = 86400.0
"""Seconds until the next attempt if the user has no permission for the command SET."""

LEAVE_WITHIN = 1.0
"""Seconds allowed for removing the key when the heartbeat is closed."""

CONFUSED = (
    "another router runs under the same name and reads the same entries: give each router its own name with --instance"
)


class Heartbeat:
    """Writes the word `process` to `key` three times in `lasts` seconds, and logs an error if another process does this
    too.

    `name` is the name of the router. `lasts` is the time in seconds until the key expires. While the user has no
    permission for the command SET, nothing is checked.
    """

    def __init__(self, server: Server, key: str, name: str, *, lasts: float = LASTS, process: str = PROCESS) -> None:
        self._key = key
        self._name = name
        self._lasts = lasts
        self._process = process
        self._alone = True
        self._written = False  # True if the word may have been sent to the server
        self._ours = False  # True after the first word was written successfully
        self._link = Link(server)
        # Connection failures are logged by sources and queues.
        self._repeating = Repeating("heartbeat", self._beat, lasts / 3)

    def start(self) -> None:
        """Start the heartbeat."""
        self._repeating.start()

    async def close(self) -> None:
        """Stop the heartbeat, and remove the key."""
        await self._repeating.close()
        if self._written and self._alone:
            with contextlib.suppress(failures.RedisError, OSError, TimeoutError):
                async with asyncio.timeout(LEAVE_WITHIN):
                    await self._link.courtesy("DEL", self._key)
        self._written = self._ours = False
        await self._link.close()

    async def _beat(self) -> float | None:
        words = ("SET", self._key, self._process, "PX", round(self._lasts * 1000), "GET")
        self._written = True  # even if `close` cancels this call before the answer is read
        try:
            before = await self._link.call(*words)
        except failures.NoPermissionError:
            self._written = self._ours
            return NEVER
        if self._ours and self._alone and before not in {None, self._process.encode()}:
            self._alone = False
            log.error(CONFUSED, router=self._name, key=self._key)
        self._ours = True
        return None
