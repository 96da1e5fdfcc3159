"""Keeps one queue: retries that are due, the books, and that what is in hand stays this router's; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from router.broker.groups.group_scripts import NOT_PENDING, OF_ANOTHER
from router.broker.groups.pending import PendingEntries
from router.broker.queues.parts.queue_books import QueueBooks
from router.broker.queues.parts.queue_common import QueueContext
from router.broker.queues.parts.queue_hand import QueueHand
from router.broker.server.link import Link
from router.core.delivery import claims


class QueueKeeper:
    """Looks after the entries of one queue that are in hand, and after those that are due later."""

    def __init__(self, context: QueueContext, link: Link, hand: QueueHand, books: QueueBooks) -> None:
        self.idle = 0.0
        """What nobody renews for so many seconds is a dead router's."""
        self._context = context
        self._pending = PendingEntries(link, context.names)
        self._hand = hand
        self._books = books
        self.renewed_at = 0.0
        self._losses: tuple[str, int] | None = None  # as they were before the last renewal
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Note that there is something to look at."""
        self._wake.set()

    async def run(self, abandoned: Callable[[], Awaitable[None]]) -> None:
        """Move what is due, read the books, renew what is in hand; `abandoned` is called when a dead router left something."""
        health, timing = self._context.health, self._context.timing
        renew_at = self._context.clock.monotonic() + claims.renew_every(self.idle)
        look_at = self._context.clock.monotonic() + timing.claim
        while True:
            self._wake.clear()
            try:
                looks = self._context.clock.monotonic() >= look_at and not self._context.ending.begun
                more = await self._books.tick(self.idle if looks else 0.0)
                if looks:
                    look_at = self._context.clock.monotonic() + timing.claim
                    if self._books.abandoned:
                        await abandoned()
                if self._losses is None:
                    self._losses = self._books.losses
                await self._books.reschedule()
                if self._context.clock.monotonic() >= renew_at:
                    await self._renew()
                    renew_at = self._context.clock.monotonic() + claims.renew_every(self.idle)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                await asyncio.sleep(health.failed(error, "keep"))
                continue
            health.succeeded("keep")
            if not more:
                await self._until_next()

    async def _until_next(self) -> None:
        """Wait until something is due, the router makes its rounds, or there is something to look at."""
        due = self._books.due
        delay = None if due is None else max(due - self._context.clock.monotonic(), 0.005)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def renewed(self) -> None:
        """Note that Redis has said just now that everything in hand is ours."""
        self.renewed_at = self._context.clock.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether nothing was renewed for so long that a peer may have taken over what is ready."""
        return self._context.clock.monotonic() - self.renewed_at > claims.undisputed(self.idle)

    async def catch_up(self) -> None:
        """Ask whether what is ready is still ours, before it is delivered."""
        while True:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # a worker waits for it, and must not end by it
                await asyncio.sleep(self._context.health.failed(error, "keep"))
            else:
                return

    async def _renew(self) -> None:
        """Say that what is in hand is in good hands; forget what Redis says is in a peer's, or was.

        As long as the books miss nothing, whatever is not pending any more was settled by somebody. Else it may just as well
        be what was lost, and only an entry that is pending for another router is not delivered from here.
        """
        began, losses, hand = self._context.clock.monotonic(), self._books.losses, self._hand
        states: dict[bytes, int] = {}
        async for page in self._pending.pages(lambda: hand.unreadable):  # what waits for its turn to be recovered too
            listed = [entry.id for entry in page]
            states.update(zip(listed, await self._pending.claim(listed), strict=True))
        ready = hand.ready.entries
        unlisted = [entry for entry in ready if entry not in states]
        states.update(zip(unlisted, await self._pending.claim(unlisted), strict=True))
        gone = {entry for entry in ready if states.get(entry) == OF_ANOTHER}
        missing = {entry for entry in ready - hand.lost if states.get(entry) == NOT_PENDING}
        if missing:
            await self._books.tick()
            if self._books.losses == self._losses:
                gone |= missing
            else:
                hand.lost |= missing
        if gone:
            hand.ready.remove(gone)
            hand.let_go(gone)
        self.renewed_at, self._losses = began, losses

    async def set_free(self) -> None:
        """Give back what is left at an orderly end, uncounted: peers may take it over at once."""
        async for page in self._pending.pages(frozenset):
            await self._pending.claim([entry.id for entry in page], count=0, idle=self.idle)
