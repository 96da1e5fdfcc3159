"""The recovery ladder: entries that were in hand when a process died are taken again in ever smaller batches; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from router.broker.groups.crash_isolation import CrashIsolation, before
from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group import Group
from router.broker.groups.group_stream import Stream
from router.broker.groups.in_flight import Entries, Recovered
from router.broker.groups.room import Room
from router.broker.groups.trimmed import Trimmed
from router.contracts import Clock
from router.core.delivery import claims
from router.core.delivery.claims import Pending, Take


class Recovery:
    """Takes pending entries again and hands them on, in batches the smaller the more suspicious they are.

    What must be alone has nothing beside it in the whole router, as `isolation` sees to. `idle` (seconds) is after how long
    entries may be taken over. Nothing is begun once `stop` is set.
    """

    def __init__(
        self,
        group: Group,
        room: Room,
        batches: EntryBatches,
        trimmed: Trimmed,
        isolation: CrashIsolation,
        *,
        idle: float,
        max_deliveries: int,
        clock: Clock,
        stop: asyncio.Event,
    ) -> None:
        self._group = group
        self._room = room
        self._batches = batches
        self._trimmed = trimmed
        self._isolation = isolation
        self._idle = idle
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._stop = stop
        self._stuck = False  # whether the attempt of the last suspicious entries did not come back in time
        self.at_work = False
        """Whether entries that may end the process are in hand, several together; implements `crash_isolation.Member`."""

    async def recover(self, stream: Stream) -> None:
        """Hand on our own pending entries that are not in hand."""
        async for page in self._group.pending(stream):
            rest: list[Pending] = []
            for entry in page:
                if claims.is_poison(entry.deliveries, self._max_deliveries):
                    await self._give_up(stream, entry)
                else:
                    rest.append(entry)
            for take in claims.takes(rest):
                await self._try(stream, take)
                if self._stop.is_set():
                    return

    async def _give_up(self, stream: Stream, entry: Pending) -> None:
        found = await self._group.read(stream, entry.id)
        if found is None:
            self._trimmed.unfinished(stream, [entry.id])
        else:
            self._batches.give_up(stream, found, entry.deliveries, self._clock.monotonic())

    async def _try(self, stream: Stream, take: Take) -> None:
        """Take entries and wait until an attempt of each has come back, or until it is clear that none will soon."""
        ids = take.ids
        while ids and not self._stop.is_set():
            room = self._room.left()
            if not room:
                await self._room.wait(self._idle)
            elif take.deliveries is not None:
                await self._try_alone(stream, ids[0], take.deliveries)
                return
            elif self._isolation.shuts_out(self):
                await before(self._stop, self._isolation.opened())
            else:
                await self._try_together(stream, ids[:room])
                ids = ids[room:]

    async def _try_together(self, stream: Stream, ids: list[bytes]) -> None:
        self.at_work = True
        try:
            entries = await self._take(stream, ids)
            if entries is not None and not self._stuck:
                self._stuck = not await self._within(entries.tried.wait())
        finally:
            self.at_work = False
            self._isolation.finished()

    async def _try_alone(self, stream: Stream, entry: bytes, deliveries: int) -> None:
        """Try one while nothing else is in hand that may end the process.

        The count that would find it guilty is not given where another delivery might be to blame.
        """
        async with self._isolation.entered(self._stop) as alone:
            if not alone:
                return
            await self._within(self._room.emptied())
            decisive = claims.is_poison(deliveries + 1, self._max_deliveries)
            patience = claims.patience(self._idle)
            shut = decisive and await before(self._stop, self._isolation.shut(self, patience))
            if self._stop.is_set():
                return
            entries = await self._take(stream, [entry], None if shut or not decisive else deliveries)
            if entries is not None:
                self._stuck = not await self._within(entries.tried.wait())
                if self._stuck:
                    stream.hand.returned += entries.ids  # it lives: whatever it waits for, it is no poison
                    stream.hand.stir()
                await self._within(self._room.known())

    async def _take(self, stream: Stream, ids: list[bytes], count: int | None = None) -> Recovered | None:
        """Take pending entries and hand them on; returns the receipt of those that have a payload."""
        since = self._clock.monotonic()
        found, gone = await self._group.take(stream, ids, count)
        self._trimmed.unfinished(stream, gone)
        entries: Entries | None = self._batches.hand_on(stream, found, Recovered, since)
        return entries if isinstance(entries, Recovered) else None

    async def _within(self, what: Awaitable[Any]) -> bool:
        """Wait for it as long as suspicious entries deserve; returns whether it came. Not any longer once `stop` is set.

        What waits for a retry may take longer.
        """
        ends = {asyncio.ensure_future(what), asyncio.ensure_future(self._stop.wait())}
        done, _ = await asyncio.wait(ends, timeout=claims.patience(self._idle), return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return bool(done)
