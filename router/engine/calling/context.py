"""The contexts of sinks and lookups: log, HTTP client, threads and clock; floor 5."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from structlog.stdlib import BoundLogger

from router.broker.plugins.message_memory import RedisMessageMemory
from router.broker.plugins.redis_pool import RedisPool
from router.broker.server import keys as redis_keys
from router.broker.server.client import Server
from router.config.models import HostKeys
from router.contracts import Clock
from router.engine.calling.threads import DaemonThreads
from router.errors import ConfigError, SinkError
from router.ops.http import GuardedClient
from router.plugin_contracts import HttpClient, MessageMemory, RedisClient

FindServer = Callable[[str | None], Server]
"""A function that returns the Redis server of a URL (None: the router's own). It raises `ConfigError` for an invalid URL."""

if TYPE_CHECKING:
    import ssl


class PluginContext:
    """The part of a context that sinks and lookups share.

    `make_http` returns an HTTP client that uses the given TLS context. If the context is None, the client uses the
    system's trust store.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        log: BoundLogger,
        threads: DaemonThreads,
        make_http: Callable[[ssl.SSLContext | None], GuardedClient],
    ) -> None:
        self.name = name
        self.clock = clock
        self.log = log
        self._threads = threads
        self._make_http = make_http
        self._http: GuardedClient | None = None
        self._others: list[GuardedClient] = []

    @property
    def http(self) -> HttpClient:
        """The guarded HTTP client, created on first use."""
        if self._http is None:
            self._http = self._make_http(None)
        return self._http

    def http_with(self, tls: ssl.SSLContext) -> HttpClient:
        """Return another guarded HTTP client. Its TLS connections use the context `tls`."""
        client = self._make_http(tls)
        self._others.append(client)
        return client

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this sink or lookup.

        Return the result of the function or raise its exception.
        """
        return await self._threads.run(function, *args)

    async def close(self) -> None:
        """Close the HTTP clients and end the threads."""
        for client in (self._http, *self._others):
            if client is not None:
                await client.close()
        self._threads.close()


class Context(PluginContext):
    """Implements `plugin_contracts.SinkContext` for one sink. It must be created in the thread of the event loop.

    `server` finds Redis servers; it is None with `deliver: print`. The names of the router's keys in Redis begin with `prefix`.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        base: Path,
        threads: DaemonThreads,
        keys: HostKeys,
        server: FindServer | None = None,
        prefix: str = "event-router",
    ) -> None:
        super().__init__(
            name,
            clock=clock,
            log=structlog.stdlib.get_logger("router.sink").bind(sink=name),
            threads=threads,
            make_http=lambda tls: GuardedClient(
                proxy=keys.http.proxy, ssl_context=tls, allow_private=keys.allow_private
            ),
        )
        self.base = str(base)
        self.state: dict[str, Any] = {}
        self._server = server
        self._messages_key = redis_keys.thread(prefix, name)
        self._messages: RedisMessageMemory | None = None
        self._thread = threading.get_ident()
        self._pools: dict[str | None, RedisPool] = {}

    @property
    def redis(self) -> RedisClient | None:
        """The client of the router's own Redis, created on first use.

        It is None in any thread but that of the event loop, and with `deliver: print`.
        """
        return self._pool(None)

    @property
    def messages(self) -> MessageMemory | None:
        """The memory of the sink's messages, in the router's own Redis; None if `redis` is None."""
        redis = self.redis
        if redis is not None and self._messages is None:
            self._messages = RedisMessageMemory(redis, self._messages_key, self.clock.now)
        return None if redis is None else self._messages

    def redis_at(self, url: str) -> RedisClient | None:
        """Return the client of the server at this URL; None if `redis` is None. Raises `SinkError` for an invalid URL."""
        return self._pool(url)

    def _pool(self, url: str | None) -> RedisPool | None:
        if self._server is None or threading.get_ident() != self._thread:
            return None
        if url not in self._pools:
            try:
                self._pools[url] = RedisPool(self._server(url))
            except ConfigError as error:
                raise SinkError("; ".join(problem.message for problem in error.problems)) from None
        return self._pools[url]

    async def close(self) -> None:
        """Close the clients and end the threads."""
        for pool in self._pools.values():
            await pool.close()
        await super().close()
