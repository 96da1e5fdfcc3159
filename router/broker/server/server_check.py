"""Whether the router's own Redis answers, asked once a second on a connection of its own; floor 4.

The connections that carry work notice a dead server only when there is work. Who asks whether the router is ready wants
to know before that.
"""

from __future__ import annotations

import asyncio
import contextlib

from redis import exceptions as failures
from redis.asyncio.connection import AbstractConnection

from router.broker.server import answers, client
from router.broker.server.link import cancelled

EVERY = 1.0
"""Seconds between two questions."""

PATIENCE = 3.0
"""Seconds after which a server that does not answer can't be reached."""


class ServerCheck:
    """Asks one server whether it is there. Raises `ConfigError` for a URL that isn't one."""

    def __init__(self, url: str, *, client_name: str = "event-router", every: float = EVERY) -> None:
        self.reason: str | None = None
        """Why the server can't be reached; None while it can, and before the first answer."""
        self._server = client.server(url, client_name=client_name)
        self._every = every
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._ask(), name="server check")

    async def close(self) -> None:
        """Ask no more."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])
        await self._hang_up()

    async def _ask(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._ping()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
                self.reason = str(client.explain(error, self.address))
                await self._hang_up()
            else:
                self.reason = None
            await asyncio.sleep(self._every)

    async def _ping(self) -> None:
        """Ask twice before it is taken for gone: whoever ended one connection under way said nothing of the server."""
        # Not by `except`: raised within it, an error of redis-py's would lose the cause that `explain` reads.
        with contextlib.suppress(failures.ConnectionError, OSError):
            return await self._ping_once()
        await self._hang_up()
        return await self._ping_once()

    async def _ping_once(self) -> None:
        if self._connection is None:
            self._connection = await client.dial(self._server)
            return
        with client.broken():
            await self._connection.send_command("PING")
        try:
            await self._connection.read_response()
        except (failures.BusyLoadingError, failures.MasterDownError, failures.AuthenticationError):
            raise
        except failures.ResponseError as error:
            if answers.said(error).startswith("BUSY "):  # a script that does not end: nothing else is answered either
                raise
            # Else it answered; a full disk or a missing permission is told where it matters.

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await client.close(connection)
