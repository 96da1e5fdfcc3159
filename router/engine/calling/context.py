"""The contexts of sinks and lookups: log, HTTP client, threads and clock; floor 5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from structlog.stdlib import BoundLogger

from router.config.models import HostKeys
from router.contracts import Clock
from router.engine.calling.threads import DaemonThreads
from router.ops.http import GuardedClient
from router.plugin_contracts import HttpClient


class PluginContext:
    """The part of a context that sinks and lookups share. `make_http` makes the HTTP client."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        log: BoundLogger,
        threads: DaemonThreads,
        make_http: Callable[[], GuardedClient],
    ) -> None:
        self.name = name
        self.clock = clock
        self.log = log
        self._threads = threads
        self._make_http = make_http
        self._http: GuardedClient | None = None

    @property
    def http(self) -> HttpClient:
        """The guarded HTTP client, created on first use."""
        if self._http is None:
            self._http = self._make_http()
        return self._http

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this sink or lookup; return its result or raise its exception."""
        return await self._threads.run(function, *args)

    async def close(self) -> None:
        """Close the HTTP client and end the threads."""
        if self._http is not None:
            await self._http.close()
        self._threads.close()


class Context(PluginContext):
    """Implements `plugin_contracts.SinkContext` for one sink."""

    def __init__(self, name: str, *, clock: Clock, base: Path, threads: DaemonThreads, keys: HostKeys) -> None:
        super().__init__(
            name,
            clock=clock,
            log=structlog.stdlib.get_logger("router.sink").bind(sink=name),
            threads=threads,
            make_http=lambda: GuardedClient(proxy=keys.http.proxy, allow_private=keys.allow_private),
        )
        self.base = str(base)
