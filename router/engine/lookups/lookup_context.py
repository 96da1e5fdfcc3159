"""The context of a lookup: its log, HTTP client, threads and clock; floor 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from structlog.stdlib import BoundLogger

from router.contracts import Clock
from router.engine.calling.threads import DaemonThreads
from router.ops.http import GuardedClient
from router.plugin_contracts import HttpClient

THREADS = 4
"""Threads of one lookup, at most, for blocking functions."""


class LookupTools:
    """Implements `plugin_contracts.LookupContext` for one lookup."""

    def __init__(self, name: str, *, clock: Clock, proxy: str = "", allow_private: bool = False) -> None:
        self.name = name
        self.clock = clock
        self.log: BoundLogger = structlog.stdlib.get_logger("router.lookup").bind(lookup=name)
        self._proxy = proxy
        self._allow_private = allow_private
        self._threads = DaemonThreads(f"lookup {name}", THREADS)
        self._http: GuardedClient | None = None

    @property
    def http(self) -> HttpClient:
        """The lookup's guarded HTTP client, created on first use."""
        if self._http is None:
            self._http = GuardedClient(proxy=self._proxy, allow_private=self._allow_private, owner="lookup")
        return self._http

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this lookup; return its result or raise its exception."""
        return await self._threads.run(function, *args)

    async def close(self) -> None:
        """Close the HTTP client and end the threads."""
        if self._http is not None:
            await self._http.close()
        self._threads.close()
