"""Recovery: claims entries that were in flight when a process died, in smaller batches after each crash; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from router.broker.groups.crash_isolation import CrashIsolation, before
from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group_stream import UNFINISHED, Membership, Room, Stream, TrimmedEntries
from router.broker.groups.in_flight import Entry, Recovered
from router.broker.groups.pending import PendingEntries
from router.broker.server.link import Link
from router.contracts import Clock
from router.core.delivery import claims
from router.core.delivery.claims import ClaimBatch, Pending


class _Look(msgspec.Struct):
    """A check of the pending entries of a stream. `number` counts the entries that were claimed."""

    pending: PendingEntries
    stream: Stream
    idle: float | None
    number: int = 0


class Recovery:
    """Claims pending entries of this router or of dead routers, and passes them to the receiver.

    The higher the delivery counts of the entries, the smaller the batches. `isolation` pauses everything else while a
    strict suspect runs. No attempt begins after `stop` is set.
    """

    def __init__(
        self,
        link: Link,
        room: Room,
        batches: EntryBatches,
        trimmed: TrimmedEntries,
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
        self._stuck = False  # True if the attempts of the last batch did not return in time
        self.at_work = False
        """True while several suspects are in flight together; implements `crash_isolation.Member`."""

    async def recover(self, stream: Stream, idle: float | None = None) -> int:
        """Claim pending entries that are not in flight, and pass them to the receiver; return the number of claimed entries.

        If `idle` is None, claim the entries of this router. Otherwise claim the entries of all routers that were idle
        for `idle` seconds.
        """
        look = _Look(PendingEntries(self._link, stream.names), stream, idle)
        async with contextlib.aclosing(look.pending.pages(stream.in_flight.all, idle)) as pages:
            async for page in pages:
                rest: list[Pending] = []
                for entry in page:
                    if claims.is_poison(entry.deliveries, self._max_deliveries):
                        await self._give_up(look, entry)
                    else:
                        rest.append(entry)
                for take in claims.claim_batches(rest):
                    await self._try(look, take)
                    if self._enough(look):
                        return look.number
        return look.number

    def _enough(self, look: _Look) -> bool:
        """Return whether the remaining entries must wait for the next check.

        All entries must wait after `stop`. If there is no room, entries of other routers must wait too: a recovery that
        waited for room would stop the reading of new entries.
        """
        return self._stop.is_set() or (look.idle is not None and not self._room.left())

    async def _give_up(self, look: _Look, entry: Pending) -> None:
        since = self._clock.monotonic()
        for found in await self._take_some(look, [entry], count=False):
            self._batches.give_up(look.stream, found, entry.deliveries, since)

    async def _try(self, look: _Look, take: ClaimBatch) -> None:
        """Claim entries, and wait until each entry has had a finished attempt, or until the time limit."""
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
        """Try one entry while no other suspect is in flight.

        At a certain delivery count the entry is poison. The count is raised to this limit only while no other delivery
        is in flight. Otherwise another delivery could be the cause of a crash.
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
                    # The process is still alive, so the entry is not poison: its attempt only takes long.
                    look.stream.in_flight.returned += entries.ids
                    look.stream.in_flight.notify()
                await self._within(self._room.known())

    async def _take(self, look: _Look, pending: Sequence[Pending], *, count: bool = True) -> Recovered | None:
        """Claim pending entries and pass them to the receiver; return the receipt of the entries that have a payload."""
        since = self._clock.monotonic()
        found = await self._take_some(look, pending, count=count)
        entries = self._batches.pass_on(look.stream, found, Recovered, since)
        return entries if isinstance(entries, Recovered) else None

    async def _take_some(self, look: _Look, entries: Sequence[Pending], *, count: bool) -> list[Entry]:
        """Claim pending entries and return them. Acknowledge and count the entries that were trimmed."""
        found, gone = await look.pending.take(entries, look.idle, count=count)
        look.number += len(found)
        if gone and look.idle is None:
            self._trimmed.unfinished(look.stream, gone)
        elif gone:
            number = await look.pending.abandoned([entry for entry in entries if entry.id in gone], look.idle or 0.0)
            self._trimmed.count(look.stream, number, UNFINISHED)
        return found

    async def _within(self, what: Awaitable[Any]) -> bool:
        """Wait for `what`, but no longer than the time limit of suspects, and not after `stop` is set.

        Returns False if the time limit was reached. An entry that waits for a retry may take longer than this limit.
        """
        ends = {asyncio.ensure_future(what), asyncio.ensure_future(self._stop.wait())}
        done, _ = await asyncio.wait(ends, timeout=claims.patience(self._idle), return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return bool(done)
