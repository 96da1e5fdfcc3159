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
from router.broker.groups.group_stream import UNREAD, Membership, Room, Stream, TrimmedEntries
from router.broker.groups.in_flight import Entries
from router.broker.groups.recovery import Recovery
from router.broker.server.client import Server
from router.broker.server.link import Link, Word
from router.contracts import Clock
from router.core.accounts.books import SourceBook
from router.core.delivery import claims

CHECK_EVERY = 1.0
"""Seconds between two checks of a group's progress.

If a group is lost while other routers read with the group, the entries read since the last check are delivered again.
A check also counts the entries that were trimmed before they were read. But entries that are both added and trimmed
between two checks may be counted as read.
"""


POLL = 0.05
"""Seconds between two reads without BLOCK. The reader uses these reads if there is too little room to wait for all
streams at once."""


class New(Protocol):
    """The component that gets new entries for a `GroupReader`.

    The entries that `read` returns are pending for this router already.
    """

    @property
    def fault(self) -> str | None:
        """The faults of lists that can't be read, or None. The other lists are still read. Always None for streams."""

    @property
    def since(self) -> float | None:
        """The time at which the command under way began (`time.monotonic`); None if no command is under way."""

    async def prepare(self, stream: Stream) -> None:
        """Prepare the reading of a stream, after its group was created.

        Raises `Refused` if the server does not allow the reading.
        """

    async def try_reading(self, stream: Stream) -> None:
        """Send reads that return no entries, to check that the server allows reads. It may allow XINFO but no reads."""

    async def read(self, room: int) -> list[Any]:
        """Wait briefly for entries.

        Returns a pair for each stream, its key and its entries, with at most `room` entries in total.
        """

    async def end(self) -> None:
        """Stop waiting for entries."""

    async def close(self) -> None:
        """Close the connections; a later `read` opens new ones."""


class NewEntries:
    """Reads entries that no consumer has received yet. A read waits up to `block` seconds for entries.

    XREADGROUP applies COUNT to each stream. If there is room for fewer entries than streams, a read names only some of
    the streams, in turn. Such a read does not block, because the streams that are not named may have entries. If
    `hang_up` is True, `end` closes the connection of a read under way. Entries that the server delivers at that moment
    stay pending until the next start.
    """

    fault = None

    def __init__(self, link: Link, streams: Sequence[Stream], block: float, *, hang_up: bool = False) -> None:
        self._link = link
        self._hang_up = hang_up
        self._streams = streams
        self._block = max(1, int(block * 1000))
        names = streams[0].names
        self._words = ("XREADGROUP", "GROUP", names.group, names.consumer, "COUNT")
        self._turn = 0
        self._fruitless = 0  # the number of streams that were read in a row and had no entries

    @property
    def since(self) -> float | None:
        """The time at which the command under way began (`time.monotonic`); None if no command is under way."""
        return self._link.since

    async def prepare(self, stream: Stream) -> None:
        """Do nothing, because reading a stream needs only its group."""

    async def try_reading(self, stream: Stream) -> None:
        """Send a read that returns no entries."""
        await self._link.call(*self._words, 1, "STREAMS", stream.key, LAST_ID)

    async def end(self) -> None:
        """Close the connection of the read under way, if `hang_up` is True.

        Otherwise the read returns within `block` seconds.
        """
        if self._hang_up:
            await self._link.close()

    async def close(self) -> None:
        """Do nothing, because the reader owns the connection and closes it."""

    async def read(self, room: int) -> list[Any]:
        """Return a pair for each stream, its key and its entries, with at most `room` entries in total."""
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
    """Passes the entries of some streams to the receiver until `stop` is set. Complete entries are acknowledged.

    After any error, `run` may be called again: it begins with the entries that Redis lists as pending. `link` is the
    connection for reading. Acknowledgements use another connection, because a blocking read occupies `link`.
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
        self.trimmed = TrimmedEntries(streams, book, clock, log)
        self.resets = 0
        """The number of times that a group or its stream was lost and created again."""
        self.stop = asyncio.Event()
        self.idle = membership.claim_idle
        self._link = link
        all_in_flight = [stream.in_flight for stream in streams]
        self._room = room = Room(all_in_flight, membership.max_in_flight, self.stop)
        self.acknowledger = Acknowledger(
            server, all_in_flight, membership, acknowledged=room.changed, clock=clock, log=log
        )
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
        for in_flight in all_in_flight:
            in_flight.on_complete, in_flight.undisputed = self.entry_completed, self._undisputed
        self._new = new
        self._by_key = {stream.key: stream for stream in streams}
        self._batches = batches
        self._isolation = isolation
        self._clock = clock
        self._log = log
        self._sweep_every = membership.sweep_every
        self._next_maintenance = self._next_check = self._next_sweep = 0.0

    @property
    def fault(self) -> str | None:
        """The faults of lists that can't be read, or None. The other lists are still read. Always None for streams."""
        return self._new.fault

    @property
    def since(self) -> float | None:
        """The time at which the command under way began (`time.monotonic`); None if no command is under way."""
        return min((since for since in (self._link.since, self._new.since) if since is not None), default=None)

    def entry_completed(self) -> None:
        """Record that an entry is complete. The entry will be acknowledged, and another entry may be read."""
        self.acknowledger.wake()
        self._room.changed()

    def _undisputed(self, since: float) -> bool:
        """Return True if no other router can have claimed the entries that were read or renewed at the time `since`."""
        return self._clock.monotonic() - since < claims.undisputed(self.idle)

    def answer_lost(self, *, group_lost: bool = False) -> None:
        """Record that an answer was lost which may have contained entries.

        `group_lost` is True if the server reported that a group is gone.
        """
        for stream in self.streams:
            stream.progress.answer_lost()
            stream.progress.lost |= group_lost

    async def prepare(self, stream: Stream) -> None:
        """Create the group if it does not exist, and check the user's permissions.

        Raises `Refused` if a permission is missing.
        """
        await self.group.make(stream)
        await self._new.prepare(stream)

    async def end(self) -> None:
        """Stop reading: set `stop`, and end a wait for entries."""
        self.stop.set()
        self.entry_completed()
        await self._new.end()

    async def close(self) -> None:
        """Close the connections; a read under way fails."""
        await self._new.close()
        await self._link.close()

    async def run(self, answered: Callable[[], None]) -> None:
        """Read entries and pass them to the receiver until `stop` is set; call `answered` after each answer of Redis."""
        self._isolation.join(self._recovery)
        try:
            await self._run(answered)
        finally:
            self._isolation.part(self._recovery)

    async def _run(self, answered: Callable[[], None]) -> None:
        """Recover the pending entries of the last run, then read new entries; check the groups from time to time."""
        for stream in self.streams:
            await self._heal(stream)
            await self._new.try_reading(stream)
            await self._check(stream)
        answered()
        for stream in self.streams:
            await self._recovery.recover(stream)
        while not self.stop.is_set():
            now = self._clock.monotonic()
            if now >= self._next_maintenance:
                await self._maintain(now)
            elif now >= self._next_check:
                await self._check_all(now)
            room = self._room.left()
            if room:
                await self._read(room, now)
                answered()
            else:
                await self._room.wait(min(self._next_maintenance, self._next_check) - now)

    async def _heal(self, stream: Stream) -> None:
        held = stream.in_flight.unsettled
        lost = await self.group.heal(stream)
        if lost is None:
            return
        self.resets += 1
        self._log.warning(stream.loss_message(lost, held), stream=stream.name)

    async def _read(self, room: int, now: float) -> None:
        """Read new entries and pass them to the receiver."""
        for key, entries in await self._new.read(room):
            stream = self._by_key[key]
            stream.progress.arrive(entries)
            self._batches.pass_on(stream, stream.in_flight.fresh(entries), Entries, now)

    async def _check(self, stream: Stream) -> None:
        """Check the progress of a group, and count the entries that were trimmed before they were read."""
        self.trimmed.count(stream, await self.group.check_progress(stream), UNREAD)

    async def _check_all(self, now: float) -> None:
        """Check the progress of every group."""
        self._next_check = now + CHECK_EVERY
        for stream in self.streams:
            await self._check(stream)

    async def _maintain(self, now: float) -> None:
        """Check for trimmed entries, claim entries of dead routers, and delete the consumers of dead routers."""
        self._next_maintenance = now + claims.look_every(self.idle)
        self._next_check = now + CHECK_EVERY
        for stream in self.streams:
            await self._check(stream)
            taken = await self._recovery.recover(stream, self.idle) if self._room.left() else 0
            if taken:
                self._log.warning(
                    "this router has claimed entries of a router that no longer runs", stream=stream.name, number=taken
                )
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_every
            for stream in self.streams:
                with contextlib.suppress(failures.ResponseError):  # optional: the user may lack the permission
                    await self.group.sweep(stream)
