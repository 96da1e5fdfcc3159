"""Whether the router's own Redis answers, asked once a second on a connection of its own; floor 4.

The connections that carry work notice a dead server only when there is work. Who asks whether the router is ready wants
to know before that.
"""

from __future__ import annotations

from redis import exceptions as failures

from router.broker.server import answers, client
from router.broker.server.health import Health
from router.broker.server.link import Link
from router.broker.server.repeating import Repeating

EVERY = 1.0
"""Seconds between two questions."""

PATIENCE = 3.0
"""Seconds after which a server that does not answer can't be reached."""


class ServerCheck:
    """Asks one server whether it is there. Raises `ConfigError` for a URL that isn't one."""

    def __init__(self, url: str, *, client_name: str = "event-router", every: float = EVERY) -> None:
        server = client.server(url, client_name=client_name)
        self._link = Link(server, PATIENCE)
        self._health = Health(server.shown, delays=(every, every))
        self._repeating = Repeating("server check", self._ping, every, self._health)

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._health.address

    @property
    def reason(self) -> str | None:
        """Why the server can't be reached; None while it can, and before the first answer."""
        return self._health.reason

    def start(self) -> None:
        """Begin to ask."""
        self._repeating.start()

    async def close(self) -> None:
        """Ask no more."""
        await self._repeating.close()
        await self._link.close()

    async def _ping(self) -> None:
        """Ask. A full disk or a missing permission is an answer, and is told where it matters."""
        try:
            await self._link.call("PING")
        except failures.MasterDownError:
            raise
        except failures.ResponseError as error:
            if answers.said(error).startswith("BUSY "):  # a script that does not end: nothing else is answered either
                raise
