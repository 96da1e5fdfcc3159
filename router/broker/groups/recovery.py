"""The recovery ladder: entries that were in hand when a process died are taken again in ever smaller batches; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from router.broker.groups.crash_isolation import CrashIsolation, before
from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group_stream import UNFINISHED, Membership, Room, Stream, Trimmed
from router.broker.groups.in_flight import Entry, Recovered
from router.broker.groups.pending import PendingEntries
from router.broker.server.link import Link
from router.contracts import Clock
from router.core.delivery import claims
from router.core.delivery.claims import Pending, Take


@dataclass(slots=True)
class _Look:
    """One look at the pending entries of a stream, and how many were taken."""

    pending: PendingEntries
    stream: Stream
    idle: float | None
    number: int = 0


class Recovery:
    """Takes entries again that were in hand before, of this router or of one that is gone, and hands them on.

    The more suspicious they are the smaller are the batches. What must be alone has nothing beside it in the whole router, as
    `isolation` sees to. Nothing is begun once `stop` is set.
    """

    def __init__(
        self,
        link: Link,
        room: Room,
        batches: EntryBatches,
        trimmed: Trimmed,
        isolation: CrashIsolation,
        *,
        membership: Membership,
        clock: Clock,
        stop: asyncio.Event,
    ) -> None:
        self._link = link
        self._room = room
        self._batches = batches
        self._trimmed = trimmed
        self._isolation = isolation
        self._idle = membership.claim_idle
        self._max_deliveries = membership.max_deliveries
        self._clock = clock
        self._stop = stop
        self._stuck = False  # whether the attempt of the last suspicious entries did not come back in time
        self.at_work = False
        """Whether entries that may end the process are in hand, several together; implements `crash_isolation.Member`."""

    async def recover(self, stream: Stream, idle: float | None = None) -> int:
        """Hand on entries that are not in hand: our own, or those that nobody has touched for `idle` seconds.

        Returns how many there were.
        """
        look = _Look(PendingEntries(self._link, stream.names), stream, idle)
        async with contextlib.aclosing(look.pending.pages(stream.hand.all, idle)) as pages:
            async for page in pages:
                rest: list[Pending] = []
                for entry in page:
                    if claims.is_poison(entry.deliveries, self._max_deliveries):
                        await self._give_up(look, entry)
                    else:
                        rest.append(entry)
                for take in claims.takes(rest):
                    await self._try(look, take)
                    if self._enough(look):
                        return look.number
        return look.number

    def _enough(self, look: _Look) -> bool:
        """Return whether the rest has to wait: for a start, or for the next look, as nothing else is looked at meanwhile."""
        return self._stop.is_set() or (look.idle is not None and not self._room.left())

    async def _give_up(self, look: _Look, entry: Pending) -> None:
        since = self._clock.monotonic()
        for found in await self._take_some(look, [entry], count=False):
            self._batches.give_up(look.stream, found, entry.deliveries, since)

    async def _try(self, look: _Look, take: Take) -> None:
        """Take entries and wait until an attempt of each has come back, or until it is clear that none will soon."""
        entries = take.entries
        while entries and not self._stop.is_set():
            room = self._room.left()
            if not room and look.idle is not None:
                return
            if not room:
                await self._room.wait(self._idle)
            elif take.alone:
                await self._try_alone(look, entries[0])
                return
            elif self._isolation.shuts_out(self):
                await before(self._stop, self._isolation.opened())
            else:
                await self._try_together(look, entries[:room])
                entries = entries[room:]

    async def _try_together(self, look: _Look, pending: list[Pending]) -> None:
        self.at_work = True
        try:
            entries = await self._take(look, pending)
            if entries is not None and not self._stuck:
                self._stuck = not await self._within(entries.tried.wait())
        finally:
            self.at_work = False
            self._isolation.finished()

    async def _try_alone(self, look: _Look, entry: Pending) -> None:
        """Try one while nothing else is in hand that may end the process.

        The count that would find it guilty is not given where another delivery might be to blame.
        """
        async with self._isolation.entered(self._stop) as alone:
            if not alone:
                return
            await self._within(self._room.emptied())
            decisive = claims.is_poison(entry.deliveries + 1, self._max_deliveries)
            patience = claims.patience(self._idle)
            shut = decisive and await before(self._stop, self._isolation.shut(self, patience))
            if self._stop.is_set():
                return
            entries = await self._take(look, [entry], count=shut or not decisive)
            if entries is not None:
                self._stuck = not await self._within(entries.tried.wait())
                if self._stuck:
                    look.stream.hand.returned += entries.ids  # it lives: whatever it waits for, it is no poison
                    look.stream.hand.stir()
                await self._within(self._room.known())

    async def _take(self, look: _Look, pending: Sequence[Pending], *, count: bool = True) -> Recovered | None:
        """Take pending entries and hand them on; returns the receipt of those that have a payload."""
        since = self._clock.monotonic()
        found = await self._take_some(look, pending, count=count)
        entries = self._batches.hand_on(look.stream, found, Recovered, since)
        return entries if isinstance(entries, Recovered) else None

    async def _take_some(self, look: _Look, entries: Sequence[Pending], *, count: bool) -> list[Entry]:
        """Take pending entries; those that were trimmed are acknowledged and counted."""
        found, gone = await look.pending.take(entries, look.idle, count=count)
        look.number += len(found)
        if gone and look.idle is None:
            self._trimmed.unfinished(look.stream, gone)
        elif gone:
            number = await look.pending.abandoned([entry for entry in entries if entry.id in gone], look.idle or 0.0)
            self._trimmed.count(look.stream, number, UNFINISHED)
        return found

    async def _within(self, what: Awaitable[Any]) -> bool:
        """Wait for it as long as suspicious entries deserve; returns whether it came. Not any longer once `stop` is set.

        What waits for a retry may take longer.
        """
        ends = {asyncio.ensure_future(what), asyncio.ensure_future(self._stop.wait())}
        done, _ = await asyncio.wait(ends, timeout=claims.patience(self._idle), return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return bool(done)
