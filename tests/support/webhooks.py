"""Webhook sinks against stand-ins for the services."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from router.ops.http import GuardedClient
from tests.support.http import Reply, StandIn, stand_in
from tests.support.sinks import FakeContext, OpenSink, open_sink

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""A secret of Standard Webhooks."""


class WebhookContext(FakeContext):
    """A context with a client of its own, and another one for each TLS context; closed by `close`."""

    def __init__(self, *, allow_private: bool = True) -> None:
        super().__init__()
        self._allow_private = allow_private
        self._http = GuardedClient(allow_private=allow_private)
        self._clients = [self._http]

    def http_with(self, tls: Any) -> GuardedClient:
        """Another client, as the host makes it."""
        self._clients.append(GuardedClient(ssl_context=tls, allow_private=self._allow_private))
        return self._clients[-1]

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.close()


@contextlib.asynccontextmanager
async def webhook(values: dict[str, Any]) -> AsyncIterator[OpenSink]:
    """An open webhook sink that may reach private addresses."""
    context = WebhookContext()
    try:
        async with open_sink("webhook", {"allow_private": True, **values}, context=context) as sink:
            yield sink
    finally:
        await context.close()


@contextlib.asynccontextmanager
async def posting(*replies: Reply, path: str = "/hook", **values: Any) -> AsyncIterator[tuple[StandIn, OpenSink]]:
    """A stand-in with these replies, and a sink that sends to it."""
    async with stand_in() as server:
        server.script(*replies)
        async with webhook({"url": server.url + path, **values}) as sink:
            yield server, sink
