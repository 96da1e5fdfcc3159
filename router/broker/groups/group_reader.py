"""Reading streams by a consumer group: pending entries, new entries, and entries of dead routers; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis import exceptions as failures
from structlog.stdlib import BoundLogger

from router.broker.groups.acknowledger import Acknowledger
from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group import Group
from router.broker.groups.group_scripts import LAST_ID
from router.broker.groups.group_stream import UNREAD, Membership, Room, Stream, Trimmed
from router.broker.groups.in_flight import Entries
from router.broker.groups.recovery import Recovery
from router.broker.server.client import Server
from router.broker.server.link import Link, Word
from router.contracts import Clock
from router.core.accounts.books import SourceBook
from router.core.delivery import claims

GLANCE = 1.0
"""Seconds between two looks at how far a group has come: so much would come again were it lost where others read with it.

What was trimmed before it was read is seen by such a look too, and may be taken for read where none came in time.
"""


POLL = 0.05
"""Seconds between two looks into streams that can't all be waited for together."""


class New(Protocol):
    """The origin of new entries: they are pending for us when they are returned."""

    @property
    def fault(self) -> str | None:
        """The fault that stops the reading of one stream or list while the others go on; None without one."""

    @property
    def since(self) -> float | None:
        """The start of the command under way (`time.monotonic`), or None."""

    async def prepare(self, stream: Stream) -> None:
        """Do at the start what reading a stream needs, beside its group. Raises `Refused`."""

    async def try_reading(self, stream: Stream) -> None:
        """Send reads that return nothing: a server that answers questions about a group may still refuse reads."""

    async def read(self, room: int) -> list[Any]:
        """Wait a little for entries; return rows of a key and its entries, not more entries than there is room."""

    async def end(self) -> None:
        """Wait for entries no more."""

    async def close(self) -> None:
        """Hang up; a later `read` opens new connections."""


class NewEntries:
    """Asks for entries that were delivered to nobody yet, and waits for them for `block` seconds.

    COUNT is for each stream, so with little room only some are read, in turn, and none of them is waited for while others may
    have something.
    """

    fault = None

    def __init__(self, link: Link, streams: Sequence[Stream], block: float) -> None:
        self._link = link
        self._streams = streams
        self._block = max(1, int(block * 1000))
        names = streams[0].names
        self._words = ("XREADGROUP", "GROUP", names.group, names.consumer, "COUNT")
        self._turn = 0
        self._fruitless = 0  # streams that were looked into in a row and had nothing

    @property
    def since(self) -> float | None:
        """The start of the command under way (`time.monotonic`), or None."""
        return self._link.since

    async def prepare(self, stream: Stream) -> None:
        """Do nothing: a group is all that it takes."""

    async def try_reading(self, stream: Stream) -> None:
        """Send a read that brings nothing."""
        await self._link.call(*self._words, 1, "STREAMS", stream.key, LAST_ID)

    async def end(self) -> None:
        """Do nothing: a wait ends by itself."""

    async def close(self) -> None:
        """Do nothing: the reader hangs up."""

    async def read(self, room: int) -> list[Any]:
        """Return rows of a key and its entries, not more entries than there is room."""
        streams = self._streams
        number = min(len(streams), room)
        blocks: tuple[Word, ...] = ("BLOCK", self._block)
        if number < len(streams):
            self._turn = (self._turn + number) % len(streams)
            streams, blocks = [*streams[self._turn :], *streams[: self._turn]][:number], ()
        keys = [stream.key for stream in streams]
        reply = await self._link.call(*self._words, room // number, *blocks, "STREAMS", *keys, *[">"] * number)
        self._fruitless = 0 if reply else self._fruitless + number
        if not blocks and self._fruitless >= len(self._streams):
            await asyncio.sleep(POLL)
        return reply or []


class GroupReader:
    """Hands on the entries of some streams until `stop` is set, and acknowledges them when they are over.

    Begins anew from what Redis lists as pending, whatever broke it off. `link` reads; another connection acknowledges, for
    reading blocks.
    """

    def __init__(
        self,
        server: Server,
        link: Link,
        streams: Sequence[Stream],
        new: New,
        membership: Membership,
        *,
        batches: EntryBatches,
        isolation: CrashIsolation,
        book: SourceBook,
        clock: Clock,
        log: BoundLogger,
    ) -> None:
        self.streams = streams
        self.trimmed = Trimmed(streams, book, clock, log)
        self.resets = 0
        """How often a group, or the stream with it, was lost and made anew."""
        self.stop = asyncio.Event()
        self.idle = membership.claim_idle
        self._link = link
        hands = [stream.hand for stream in streams]
        self._room = room = Room(hands, membership.max_in_flight, self.stop)
        self.acknowledger = Acknowledger(server, hands, membership, acknowledged=room.changed, clock=clock, log=log)
        self.group = Group(link, membership)
        self._recovery = Recovery(
            link,
            room,
            batches,
            self.trimmed,
            isolation,
            membership=membership,
            clock=clock,
            stop=self.stop,
        )
        for hand in hands:
            hand.awake, hand.undisputed = self.stirred, self._undisputed
        self._new = new
        self._by_key = {stream.key: stream for stream in streams}
        self._batches = batches
        self._isolation = isolation
        self._clock = clock
        self._log = log
        self._sweep_every = membership.sweep_every
        self._next_look = self._next_glance = self._next_sweep = 0.0

    @property
    def fault(self) -> str | None:
        """The fault that stops the reading of one stream or list while the others go on; None without one."""
        return self._new.fault

    @property
    def since(self) -> float | None:
        """The start of the command under way (`time.monotonic`), or None."""
        return min((since for since in (self._link.since, self._new.since) if since is not None), default=None)

    def stirred(self) -> None:
        """Note that something is complete: it is to be acknowledged, and there is room for more."""
        self.acknowledger.wake()
        self._room.changed()

    def _undisputed(self, since: float) -> bool:
        """Return whether what came into our hand then can't have been idle for long enough to be taken over."""
        return self._clock.monotonic() - since < claims.undisputed(self.idle)

    def unsure(self, *, lost: bool = False) -> None:
        """Note that an answer is lost that may have brought entries; or that a group is `lost`, as the server says."""
        for stream in self.streams:
            stream.progress.unsure()
            stream.progress.lost |= lost

    async def prepare(self, stream: Stream) -> None:
        """Make the group where it is not there. Raises `Refused`."""
        await self.group.make(stream)
        await self._new.prepare(stream)

    async def end(self) -> None:
        """Read no more."""
        self.stop.set()
        self.stirred()
        await self._new.end()

    async def close(self) -> None:
        """Hang up; a read under way fails."""
        await self._new.close()
        await self._link.close()

    async def run(self, answered: Callable[[], None]) -> None:
        """Read and hand on; `answered` is called whenever Redis has answered a read."""
        self._isolation.join(self._recovery)
        try:
            await self._run(answered)
        finally:
            self._isolation.part(self._recovery)

    async def _run(self, answered: Callable[[], None]) -> None:
        for stream in self.streams:
            await self._heal(stream)
            await self._new.try_reading(stream)
            await self._look(stream)
        answered()
        for stream in self.streams:
            await self._recovery.recover(stream)
        while not self.stop.is_set():
            now = self._clock.monotonic()
            if now >= self._next_look:
                await self._look_around(now)
            elif now >= self._next_glance:
                await self._glance(now)
            room = self._room.left()
            if room:
                await self._read(room, now)
                answered()
            else:
                await self._room.wait(min(self._next_look, self._next_glance) - now)

    async def _heal(self, stream: Stream) -> None:
        held = stream.hand.unsettled
        lost = await self.group.heal(stream)
        if lost is None:
            return
        self.resets += 1
        self._log.warning(stream.healed(lost, held), stream=stream.name)

    async def _read(self, room: int, now: float) -> None:
        """Read what is new and hand it on."""
        for key, entries in await self._new.read(room):
            stream = self._by_key[key]
            stream.progress.arrive(entries)
            self._batches.hand_on(stream, stream.hand.fresh(entries), Entries, now)

    async def _look(self, stream: Stream) -> None:
        self.trimmed.count(stream, await self.group.look(stream), UNREAD)

    async def _glance(self, now: float) -> None:
        self._next_glance = now + GLANCE
        for stream in self.streams:
            await self._look(stream)

    async def _look_around(self, now: float) -> None:
        """Look what is pending, take over what nobody has touched for long, clear away who is long gone."""
        self._next_look = now + claims.look_every(self.idle)
        self._next_glance = now + GLANCE
        for stream in self.streams:
            await self._look(stream)
            taken = await self._recovery.recover(stream, self.idle) if self._room.left() else 0
            if taken:
                self._log.warning("entries of a router that is gone are taken over", stream=stream.name, number=taken)
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_every
            for stream in self.streams:
                with contextlib.suppress(failures.ResponseError):  # a courtesy: it may not be allowed
                    await self.group.sweep(stream)
