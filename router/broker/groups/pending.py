"""The pending entries of one consumer group: listing, claiming, renewing and acknowledging them; floor 4.

Python code decides which entries of one page of XPENDING to claim. The script `TAKE` then claims only the entries that have
not changed since. XAUTOCLAIM is never used, because it removes trimmed entries from the pending list, even the entries
of live routers.
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
"""The maximum number of entries in one page of XPENDING."""

CHUNK = 1000
"""The maximum number of ids in one command."""

CLAIMED = 100
"""The maximum number of ids in one call of the script `CLAIM`. The script needs several commands for each id, and the
server executes no other commands during the script."""

# Acknowledges and deletes entries. KEYS: the stream. ARGV: the group, then ids.
# Answer: the number of entries that were pending.
REMOVE = Script("""
local pending = redis.call('XACK', KEYS[1], unpack(ARGV))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return pending
""")


class PendingEntries:
    """The commands for the pending entries of one group. Raises redis-py's errors."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names

    async def last(self) -> bytes | None:
        """Return the greatest id of the pending entries of all routers; None if no entry is pending."""
        last: bytes | None = (await self._link.call("XPENDING", *self._names[:2]))[2]
        return last

    async def pages(
        self,
        in_flight: Callable[[], AbstractSet[bytes]],
        idle: float | None = None,
        last: bytes = b"+",
    ) -> AsyncGenerator[list[Pending], None]:
        """Yield pages of pending entries up to the id `last`, without the entries that `in_flight` returns.

        If `idle` is None, the pages list the entries of this router. Otherwise the pages list the entries of all
        routers that were neither delivered nor renewed for `idle` seconds.
        """
        key, group, consumer = self._names[:3]
        which: tuple[Word, ...] = () if idle is None else ("IDLE", max(1, round(idle * 1000)))
        whose: tuple[Word, ...] = (consumer,) if idle is None else ()
        start = "-"
        while True:
            before = {*in_flight()}  # the answer may list an entry that is acknowledged before the answer arrives
            rows = await self._link.call("XPENDING", key, group, *which, start, last, PAGE, *whose)
            after = in_flight()
            found = [Pending(row[0], row[3], row[1]) for row in rows if row[0] not in before and row[0] not in after]
            if found:
                yield found
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"

    async def first(self, in_flight: Callable[[], AbstractSet[bytes]], idle: float | None = None) -> list[Pending]:
        """Return the first page that `pages` yields; an empty list if there is no page."""
        async with contextlib.aclosing(self.pages(in_flight, idle)) as pages:
            return await anext(pages, [])

    async def take(
        self, entries: Sequence[Pending], idle: float | None = None, *, count: bool = True
    ) -> tuple[list[Entry], list[bytes]]:
        """Claim entries for this router, if their owner and delivery count are still as listed.

        If `idle` is not None, the entries must also have been idle for `idle` seconds. If `count` is True, the delivery
        count of each claimed entry rises by one. Returns the claimed entries, and the ids of entries that are no longer
        in the stream.
        """
        key, group, consumer = self._names[:3]
        words: list[Word] = [group, consumer, 0 if idle is None else max(1, round(idle * 1000)), int(count)]
        for entry in entries:
            words += (entry.id, entry.owner, entry.deliveries)
        found, gone = await self._link.script(TAKE, [key], words)
        return [(entry[0], entry[1]) for entry in found], gone

    async def claim(self, ids: Sequence[bytes], *, count: int = -1, idle: float = 0.0, force: bool = False) -> bytes:
        """Renew the entries that Redis lists as pending for this router; return the answers of the script `CLAIM`.

        `count` is the delivery count to set (-1: do not change the count), and `idle` is the idle time to set, in
        seconds. If `force` is True, entries that are not pending become pending for this router again.
        """
        key, group, consumer = self._names[:3]
        states = b""
        for first in range(0, len(ids), CLAIMED):
            words: list[Word] = [group, consumer, count, int(force), round(idle * 1000), *ids[first : first + CLAIMED]]
            states += await self._link.script(CLAIM, [key], words)
        return states

    async def acknowledge(self, ids: Sequence[bytes]) -> int:
        """Acknowledge entries, and delete them if the router created the stream; return the number that were pending."""
        key, group = self._names[:2]
        if not ids:
            return 0
        if self._names.own:
            return int(await self._link.script(REMOVE, [key], [group, *ids]))
        return int(await self._link.call("XACK", key, group, *ids))

    async def abandoned(self, gone: Sequence[Pending], idle: float) -> int:
        """Acknowledge the trimmed entries of consumers that were idle for `idle` seconds; return the number that were
        pending.

        A live router can't renew a trimmed entry, so the idle time of the entry does not show that its router is dead. The
        idle time of its consumer does.
        """
        key, group = self._names[:2]
        rows = await self._link.call("XINFO", "CONSUMERS", key, group)
        consumers = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        silent = {each[b"name"] for each in consumers if each[b"idle"] >= idle * 1000}
        return await self.acknowledge([entry.id for entry in gone if entry.owner in silent])
