"""The periodic work of one Redis queue: due retries, books, renewal of entries in flight; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from router.broker.groups.group_scripts import NOT_PENDING, OF_ANOTHER
from router.broker.groups.pending import PendingEntries
from router.broker.queues.parts.queue_books import QueueBooks
from router.broker.queues.parts.queue_common import QueueContext
from router.broker.queues.parts.queue_in_flight import QueueInFlight
from router.broker.server.link import Link
from router.core.delivery import claims


class QueueRenewal:
    """Renews the entries of one queue that are in flight, and returns due retries to the stream."""

    def __init__(self, context: QueueContext, link: Link, in_flight: QueueInFlight, books: QueueBooks) -> None:
        self.idle = 0.0
        """Seconds without renewal after which an entry belongs to a dead router."""
        self._context = context
        self._pending = PendingEntries(link, context.names)
        self._in_flight = in_flight
        self._books = books
        self.renewed_at = 0.0
        self._losses: tuple[str, int] | None = None  # `QueueBooks.losses` before the last renewal
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """End the current pause of `run`."""
        self._wake.set()

    async def run(self, abandoned: Callable[[], Awaitable[None]]) -> None:
        """Repeat the periodic work until cancelled; call `abandoned` when a dead router has left entries."""
        health, timing = self._context.health, self._context.timing
        renew_at = self._context.clock.monotonic() + claims.renew_every(self.idle)
        check_at = self._context.clock.monotonic() + timing.claim
        while True:
            self._wake.clear()
            try:
                checks = self._context.clock.monotonic() >= check_at and not self._context.ending.begun
                more = await self._books.tick(self.idle if checks else 0.0)
                if checks:
                    check_at = self._context.clock.monotonic() + timing.claim
                    if self._books.abandoned:
                        await abandoned()
                if self._losses is None:
                    self._losses = self._books.losses
                await self._books.reschedule()
                if self._context.clock.monotonic() >= renew_at:
                    await self._renew()
                    renew_at = self._context.clock.monotonic() + claims.renew_every(self.idle)
            except Exception as error:  # noqa: BLE001  # after any error the work is tried again
                await asyncio.sleep(health.failed(error, "keep"))
                continue
            health.succeeded("keep")
            if not more:
                await self._until_next()

    async def _until_next(self) -> None:
        """Wait until a retry is due or `wake` is called, for example by `QueueRounds`, once a second."""
        due = self._books.due
        delay = None if due is None else max(due - self._context.clock.monotonic(), 0.005)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def renewed(self) -> None:
        """Note that everything in flight belongs to this router, as an answer of Redis has just shown."""
        self.renewed_at = self._context.clock.monotonic()

    @property
    def overdue(self) -> bool:
        """True if the last renewal is so long ago that a peer may have claimed deliveries that are ready here."""
        return self._context.clock.monotonic() - self.renewed_at > claims.undisputed(self.idle)

    async def catch_up(self) -> None:
        """Renew until that succeeds, so that no delivery is attempted that a peer has claimed."""
        while True:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # a worker waits here, and an error must not end it
                await asyncio.sleep(self._context.health.failed(error, "keep"))
            else:
                return

    async def _renew(self) -> None:
        """Reset the idle time of the entries in flight; forget ready entries that a peer has claimed or settled.

        An entry that is no longer pending was settled by a peer, unless deliveries vanished from Redis (`losses`
        changed). In that case a missing entry is delivered from here all the same.
        """
        began, losses, in_flight = self._context.clock.monotonic(), self._books.losses, self._in_flight
        states: dict[bytes, int] = {}
        async for page in self._pending.pages(
            lambda: in_flight.unreadable
        ):  # entries not recovered yet are renewed too
            listed = [entry.id for entry in page]
            states.update(zip(listed, await self._pending.claim(listed), strict=True))
        ready = in_flight.ready.entries
        unlisted = [entry for entry in ready if entry not in states]
        states.update(zip(unlisted, await self._pending.claim(unlisted), strict=True))
        gone = {entry for entry in ready if states.get(entry) == OF_ANOTHER}
        missing = {entry for entry in ready - in_flight.lost if states.get(entry) == NOT_PENDING}
        if missing:
            await self._books.tick()
            if self._books.losses == self._losses:
                gone |= missing
            else:
                in_flight.lost |= missing
        if gone:
            in_flight.ready.remove(gone)
            in_flight.let_go(gone)
        self.renewed_at, self._losses = began, losses

    async def set_free(self) -> None:
        """Release the remaining entries at a graceful shutdown: peers may claim them at once, with a count of 0."""
        async for page in self._pending.pages(frozenset):
            await self._pending.claim([entry.id for entry in page], count=0, idle=self.idle)
