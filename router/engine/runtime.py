"""The runtime environment of one router: its names, its Redis, its clock; floor 5."""

from __future__ import annotations

import socket
from collections.abc import Callable

import msgspec

from router.broker.server import client
from router.broker.server.client import Server
from router.contracts import Clock
from router.engine.clock import SystemClock

Printer = Callable[[str], None]
"""A function that prints one line of data for the operator."""


class Runtime(msgspec.Struct, frozen=True):
    """The values and functions with which a router is started.

    `redis_url` is the URL of the router's own Redis; it must not be the word `embedded`. `connect_timeout` is in
    seconds; None means no limit. After each failed attempt to reach Redis, `waiting` is called with the reason.
    """

    instance: str
    redis_url: str
    connect_timeout: float | None
    printer: Printer
    waiting: Callable[[str], None]
    clock: Clock = msgspec.field(default_factory=SystemClock)

    @property
    def client_name(self) -> str:
        """The name of the router's connections in `CLIENT LIST`."""
        return f"event-router:{self.instance}"

    @property
    def consumer(self) -> str:
        """The name of the router in consumer groups. It is the same after a restart, and different on another machine."""
        return f"{socket.gethostname()}-{self.instance}"

    def server(self, url: str | None = None, *, sink: str | None = None) -> Server:
        """Return the Redis server of a URL.

        If `url` is None, return the router's own Redis. Raises `ConfigError` for an invalid URL. If `sink` is given,
        the names of the connections contain it.
        """
        name = self.client_name if sink is None else f"{self.client_name}:sink:{sink}"
        return client.server(url or self.redis_url, client_name=name)
