"""Where one router runs, and under which names; floor 5."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from router.broker.server import client
from router.broker.server.client import Server
from router.contracts import Clock
from router.engine.clock import SystemClock

Printer = Callable[[str], None]
"""Prints one line of data for the operator."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a router is told by whoever starts it.

    `redis_url` is never `embedded`. `connect_timeout` is in seconds, None to wait for ever; `waiting` is told why it waits.
    """

    instance: str
    redis_url: str
    connect_timeout: float | None
    printer: Printer
    waiting: Callable[[str], None]
    clock: Clock = field(default_factory=SystemClock)

    @property
    def client_name(self) -> str:
        """The name of the router's connections."""
        return f"event-router:{self.instance}"

    @property
    def consumer(self) -> str:
        """The router's name among those that share work: the same after a restart, another on another machine."""
        return f"{socket.gethostname()}-{self.instance}"

    def server(self, url: str | None = None) -> Server:
        """Return how a server is reached, the router's own where there is no URL. Raises `ConfigError` for a bad URL."""
        return client.server(url or self.redis_url, client_name=self.client_name)
