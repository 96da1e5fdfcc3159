"""List sources for tests: quick ones, and what the server knows of their items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis

from router.broker.groups.group_source import SourceHost
from router.broker.lists.list_source import ListOptions, ListSource
from router.broker.lists.list_stream import GROUP
from router.broker.server import client, keys
from router.contracts import Receiver
from tests.support.streams import QUICK
from tests.support.waiting import PATIENCE

PREFIX = "event-router"
HANDED = keys.handed(PREFIX)

_OWN = {"connect_timeout", "waiting", "isolation", "timing", "book", "heartbeat"}


def beside(what: str, *owner: str) -> str:
    """A key beside the list `jobs`."""
    return keys.beside(PREFIX, "jobs", what, *owner)


def items(key: str = "jobs") -> str:
    """The stream of the items in flight of a list."""
    return keys.beside(PREFIX, key, "items")


def landing(key: str = "jobs") -> str:
    return keys.beside(PREFIX, key, "landing")


def list_source(url: str, lists: Sequence[str], receiver: Receiver, clock: Any, **changes: Any) -> ListSource:
    """A source `in` of router `a` that is not started."""
    own = {"timing": QUICK, "connect_timeout": PATIENCE}
    own |= {name: value for name, value in changes.items() if name in _OWN}
    options = {"consumer": "a", "lease": 1.5}
    options |= {name: value for name, value in changes.items() if name not in _OWN}
    host = SourceHost(receiver=receiver, clock=clock, **own)
    return ListSource("in", client.server(url), ListOptions(keys=lists, **options), host)


class Taker:
    """A list source that runs until it ends in order or dies; `source` is the thing itself."""

    def __init__(self, url: str, lists: Sequence[str], receiver: Receiver, clock: Any, **changes: Any) -> None:
        self.source = list_source(url, lists, receiver, clock, **changes)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> Taker:
        await self.source.start()
        self._running = asyncio.create_task(self.source.run())
        return self

    async def die(self) -> None:
        """End as kill -9 would: nothing more is acknowledged or given back."""
        self.source.reader.stop.set()
        await self.source.reader.acknowledger.close(0.0)
        await self.end()

    async def stop(self) -> None:
        await self.source.stop()
        running, self._running = self._running, None
        if running is not None:
            await running

    async def end(self) -> None:
        """End in order; harmless twice."""
        await self.stop()
        await self.source.close()


def in_flight(client: redis.Redis, key: str = "jobs", consumer: str | None = None) -> list[bytes]:
    """The items in flight, the oldest first: those of all routers, or of one consumer."""
    payloads = {one: fields[b"payload"] for one, fields in client.xrange(items(key))}
    try:
        rows = client.xpending_range(items(key), GROUP, "-", "+", 10_000, consumername=consumer)
    except redis.ResponseError:
        return []
    return [payloads[row["message_id"]] for row in rows if row["message_id"] in payloads]


def deliveries(client: redis.Redis, key: str = "jobs") -> dict[bytes, int]:
    """How often each item in flight was delivered."""
    rows = client.xpending_range(items(key), GROUP, "-", "+", 10_000)
    counts = {row["message_id"]: row["times_delivered"] for row in rows}
    return {fields[b"payload"]: counts[one] for one, fields in client.xrange(items(key))}


def places(client: redis.Redis, key: str = "jobs") -> tuple[list[bytes], list[bytes], list[bytes]]:
    """What stands in the list, in `landing` and in flight, the oldest first."""
    return client.lrange(key, 0, -1)[::-1], client.lrange(landing(key), 0, -1)[::-1], in_flight(client, key)


NOWHERE: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])


def left(client: redis.Redis, key: str = "jobs") -> int:
    """How many items are anywhere, and entries of theirs that are pending for nobody."""
    return int(client.llen(key) + client.llen(landing(key)) + client.xlen(items(key)))
