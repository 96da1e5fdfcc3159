"""Chat sinks against stand-ins for the services."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from router.ops.http import GuardedClient
from router.plugin_contracts import MessageMemory
from tests.support.http import Reply, StandIn, stand_in
from tests.support.sinks import FakeContext, OpenSink, open_sink

TOKEN = "xoxb-T0P-SECRET:token"
HOOK = "/services/T0P/B0B/abcSECRETdef"
MATTERMOST_IDS = {"@jane": "u-jane", "jane@example.org": "u-jane"}


def webhook(server: StandIn, service: str, **more: Any) -> dict[str, Any]:
    """Options of a sink that posts to a webhook of the stand-in."""
    return {"service": service, "url": server.url + HOOK, "allow_private": True, "text": "{{ payload.message }}"} | more


def bot(server: StandIn, service: str, to: Any = "{{ payload.user_id }}", **more: Any) -> dict[str, Any]:
    """Options of a sink that writes as a bot of the stand-in."""
    known = {"service": service, "token": TOKEN, "api": server.url, "to": to, "allow_private": True}
    return known | {"text": "{{ payload.message }}"} | more


@contextlib.asynccontextmanager
async def chat(values: dict[str, Any], messages: MessageMemory | None = None) -> AsyncIterator[OpenSink]:
    """An open chat sink with a client of its own."""
    client = GuardedClient(allow_private=values.get("allow_private", False))
    try:
        context = FakeContext(http=client)
        context.messages = messages
        async with open_sink("chat", values, context=context) as sink:
            yield sink
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def posted(service: str, way: Any, *replies: Reply, **more: Any) -> AsyncIterator[tuple[StandIn, OpenSink]]:
    """A stand-in with these replies, and a sink that reaches it by `webhook` or `bot`."""
    async with stand_in() as server:
        server.script(*replies)
        async with chat(way(server, service, **more)) as sink:
            yield server, sink
