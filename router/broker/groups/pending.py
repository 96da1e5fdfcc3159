"""The pending entries of one consumer group: which there are, which become ours, and which stay ours; floor 4.

Python decides from a page of XPENDING; the scripts carry out what is still so when they run. XAUTOCLAIM is never used: it
erases trimmed entries from the list of pending ones, those of live routers too.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from collections.abc import Set as AbstractSet

from router.broker.groups.group_scripts import CLAIM, TAKE
from router.broker.groups.in_flight import Entry, Names
from router.broker.server.link import Link, Script, Word
from router.core.delivery.claims import Pending

PAGE = 500
"""Entries asked for at once."""

CHUNK = 1000
"""Ids that one command carries at most."""

# KEYS: the stream. ARGV: the group, then ids. Answer: how many were pending.
REMOVE = Script("""
local pending = redis.call('XACK', KEYS[1], unpack(ARGV))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return pending
""")


class PendingEntries:
    """Commands about the pending entries of one group; raises redis-py's errors."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names

    async def pages(
        self, hand: Callable[[], AbstractSet[bytes]], idle: float | None = None
    ) -> AsyncGenerator[list[Pending], None]:
        """List the entries that are not in `hand`: our own, or all that nobody has touched for `idle` seconds."""
        key, group, consumer = self._names[:3]
        which: tuple[Word, ...] = () if idle is None else ("IDLE", max(1, round(idle * 1000)))
        whose: tuple[Word, ...] = (consumer,) if idle is None else ()
        start = "-"
        while True:
            before = {*hand()}  # what is acknowledged while the answer is on its way may still stand in it
            rows = await self._link.call("XPENDING", key, group, *which, start, "+", PAGE, *whose)
            after = hand()
            found = [Pending(row[0], row[3], row[1]) for row in rows if row[0] not in before and row[0] not in after]
            if found:
                yield found
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"

    async def first(self, hand: Callable[[], AbstractSet[bytes]], idle: float | None = None) -> list[Pending]:
        """Return the first of these pages, an empty one where there is none."""
        async with contextlib.aclosing(self.pages(hand, idle)) as pages:
            return await anext(pages, [])

    async def take(
        self, entries: Sequence[Pending], idle: float | None = None, *, count: bool = True
    ) -> tuple[list[Entry], list[bytes]]:
        """Deliver entries to us that are still as they were listed; with `count` that is one delivery more.

        Returns those that the stream still holds, and the ids of those that it does not.
        """
        key, group, consumer = self._names[:3]
        words: list[Word] = [group, consumer, 0 if idle is None else max(1, round(idle * 1000)), int(count)]
        for entry in entries:
            words += (entry.id, entry.owner, entry.deliveries)
        found, gone = await self._link.script(TAKE, [key], words)
        return [(entry[0], entry[1]) for entry in found], gone

    async def claim(self, ids: Sequence[bytes], *, count: int = -1, idle: float = 0.0, force: bool = False) -> bytes:
        """Renew what Redis lists as ours; returns what it says of each.

        `count` sets how often they were delivered, `idle` how long nobody has touched them; `force` makes pending again
        what is not.
        """
        key, group, consumer = self._names[:3]
        states = b""
        for first in range(0, len(ids), CHUNK):
            words: list[Word] = [group, consumer, count, int(force), round(idle * 1000), *ids[first : first + CHUNK]]
            states += await self._link.script(CLAIM, [key], words)
        return states

    async def acknowledge(self, ids: Sequence[bytes]) -> int:
        """Acknowledge entries, those of a stream of the router's own are deleted with it; returns how many were pending."""
        key, group = self._names[:2]
        if not ids:
            return 0
        if self._names.own:
            return int(await self._link.script(REMOVE, [key], [group, *ids]))
        return int(await self._link.call("XACK", key, group, *ids))

    async def abandoned(self, gone: Sequence[Pending], idle: float) -> int:
        """Acknowledge entries that were trimmed, of routers that are silent themselves; returns how many.

        A trimmed entry can't be renewed: it is left to a router that is alive.
        """
        key, group = self._names[:2]
        rows = await self._link.call("XINFO", "CONSUMERS", key, group)
        consumers = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        silent = {each[b"name"] for each in consumers if each[b"idle"] >= idle * 1000}
        return await self.acknowledge([entry.id for entry in gone if entry.owner in silent])
