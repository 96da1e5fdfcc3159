"""The check of the router's own Redis: one PING a second on a separate connection; floor 4.

The router's other connections notice a dead server only when they send a command. The router's readiness must change
earlier.
"""

from __future__ import annotations

from redis import exceptions as failures

from router.broker.server import answers, client
from router.broker.server.health import Health
from router.broker.server.link import Link
from router.broker.server.repeating import Repeating

EVERY = 1.0
"""Seconds between two PINGs."""

PATIENCE = 3.0
"""Seconds without an answer after which the server counts as unreachable."""


class ServerCheck:
    """Checks at intervals whether a server answers. The constructor raises `ConfigError` for an invalid URL."""

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
        """The reason why the server can't be reached; None while the server answers, and before the first check."""
        return self._health.reason

    def start(self) -> None:
        """Start the checks."""
        self._repeating.start()

    async def close(self) -> None:
        """End the checks and close the connection."""
        await self._repeating.close()
        await self._link.close()

    async def _ping(self) -> None:
        """Send a PING, and wait for the answer.

        An error answer, for example because of a full disk, also shows that the server is alive. Other components
        report such errors.
        """
        try:
            await self._link.call("PING")
        except failures.MasterDownError:
            raise
        except failures.ResponseError as error:
            if answers.error_text(error).startswith("BUSY "):
                raise  # a script runs for too long, so the server refuses all other commands
