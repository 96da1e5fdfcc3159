"""The Redis client of a plugin: a small pool of connections that raises delivery errors; floor 4."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis import exceptions as failures

from router.broker.server import answers, client
from router.broker.server.client import Server
from router.broker.server.link import Link, Word
from router.errors import ConfigError, DeliveryError, PermanentError, SinkError, TransientError

CONNECTIONS = 4
"""The largest number of connections of one pool."""

_OF_SINK = re.compile("(MOVED|ASK|DENIED) |.*(unknown command|DB index is out of range)")
"""Error answers that show a wrong server or database. Every delivery of the sink would get such an answer."""

T = TypeVar("T")


class RedisPool:
    """Implements `plugin_contracts.RedisClient`: up to `CONNECTIONS` connections to one server, opened on demand.

    `patience` is the number of seconds allowed for a call, including the wait for a free connection.
    """

    def __init__(self, server: Server, patience: float = client.TIMEOUT) -> None:
        self._server = server
        self._patience = patience
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Link] = []
        self._closed = False

    async def call(self, *words: Word) -> Any:
        """Send one command and return its answer. Raises a delivery error."""
        return await self._with_link(lambda link: link.call(*words))

    async def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send commands together; return one result for each command: its answer, or a delivery error.

        Raises a delivery error if the server can't be reached.
        """
        found: list[Any] = await self._with_link(lambda link: _pipeline(link, commands))
        return [self._failure(each) if isinstance(each, Exception) else each for each in found]

    async def _with_link(self, use: Callable[[Link], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._patience), self._room:
                if self._closed:
                    raise TransientError("the sink is closed")
                link = self._idle.pop() if self._idle else Link(self._server, self._patience)
                try:
                    return await use(link)
                finally:
                    await self._put_back(link)
        except Exception as error:
            if client.unexpected(error) is not None:
                raise  # a fault of the plugin, such as a command with a value of the wrong type
            raise self._failure(error) from None

    async def _put_back(self, link: Link) -> None:
        if self._closed:
            await link.close()
        else:
            self._idle.append(link)

    def _failure(self, error: Exception) -> DeliveryError:
        """Return the delivery error for a failed command: a `TransientError`, `SinkError` or `PermanentError`."""
        if isinstance(error, DeliveryError):
            return error
        known = client.explain(error, self._server.shown)
        if not isinstance(known, ConfigError):
            return TransientError(str(known))
        if isinstance(error, failures.ResponseError):
            text = answers.error_text(error)
            if not answers.is_denial(text) and not _OF_SINK.match(text):
                return PermanentError(str(known))
        return SinkError(str(known))

    async def close(self) -> None:
        """Close the connections. Calls under way and later calls fail."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()


async def _pipeline(link: Link, commands: Sequence[Sequence[Word]]) -> list[Any]:
    found = await link.pipeline(commands)
    if any(isinstance(each, failures.ReadOnlyError | failures.AuthenticationError) for each in found):
        await link.close()  # after a failover another server may answer at this address
    return found
