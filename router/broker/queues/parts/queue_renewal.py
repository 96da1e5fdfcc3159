"""The periodic work of one Redis queue: due retries, the books, and the renewal of entries in flight; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis import exceptions as failures

from router.broker.groups.group_scripts import NOT_PENDING, OF_ANOTHER
from router.broker.groups.pending import PendingEntries
from router.broker.queues.parts.queue_books import QueueBooks
from router.broker.queues.parts.queue_common import QueueContext
from router.broker.queues.parts.queue_in_flight import QueueInFlight
from router.broker.queues.parts.queue_rounds import Question, Row
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
        self.regroup: Callable[[], None] = lambda: None
        """The function that is called when the consumer group is missing. The reader sets this function, and creates
        the group."""
        self.renewed_at = 0.0
        self.resting = False
        """True while `run` waits, until `wake` is called."""
        self._losses: tuple[str, int] | None = None  # `QueueBooks.losses` before the last renewal
        self._wake = asyncio.Event()
        self._due: asyncio.TimerHandle | None = None  # calls `wake` when the next retry is due
        self._failure: Exception | None = None  # the error of a round while `run` was resting
        self._renew_at = self._check_at = 0.0
        self._checks = False  # True if the current request also checks for entries of dead routers

    def wake(self) -> None:
        """End the current pause of `run`."""
        self._wake.set()

    async def run(self, abandoned: Callable[[], Awaitable[None]]) -> None:
        """Repeat the periodic work until cancelled; call `abandoned` when a dead router has left entries.

        `QueueRounds` reads the books every second without waking this task. If an answer shows more work, `read` wakes
        the task.
        """
        context, health = self._context, self._context.health
        self._renew_at = context.clock.monotonic() + claims.renew_every(self.idle)
        self._check_at = context.clock.monotonic() + context.timing.claim
        while True:
            self._wake.clear()
            try:
                await self._work(abandoned)
            except Exception as error:  # noqa: BLE001  # after any error the work is tried again
                await asyncio.sleep(health.failed(error, "keep"))
                continue
            health.succeeded("keep")
            if not self._books.more:
                self.resting = True
                try:
                    await self._wake.wait()
                finally:
                    self.resting = False

    async def _work(self, abandoned: Callable[[], Awaitable[None]]) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        await self.tick()
        if self._books.abandoned:
            self._books.abandoned = False
            await abandoned()
        if self._losses is None:
            self._losses = self._books.losses
        await self._books.reschedule()
        if self._context.clock.monotonic() >= self._renew_at:
            await self._renew()
            self._renew_at = self._context.clock.monotonic() + claims.renew_every(self.idle)

    async def tick(self) -> None:
        """Return due deliveries to the stream and read the books now."""
        await self._context.rounds.ask(self)

    # Called by the rounds: implements `queue_rounds.Member`.

    def question(self) -> Question:
        """Return the request for the books.

        Every `Timing.claim` seconds, a request also checks for entries of dead routers.
        """
        self._checks = self._context.clock.monotonic() >= self._check_at and not self._context.ending.begun
        return self._books.question(self.idle if self._checks else 0.0)

    def read(self, row: Row) -> None:
        """Process an answer. Wake `run` at once if there is more to do, otherwise when the next retry is due."""
        books, now = self._books, self._context.clock.monotonic()
        books.read(row)
        self._failure = None
        if self._checks:
            self._check_at = now + self._context.timing.claim
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if books.more or books.abandoned or books.server_time.went_back or now >= self._renew_at:
            self._wake.set()
        elif books.due is not None:
            self._due = asyncio.get_running_loop().call_later(max(books.due - now, 0.005), self._wake.set)

    def failed(self, error: Exception) -> None:
        """Store the error of a request and wake `run`, which reports it."""
        self._failure = error
        self._wake.set()

    def renewed(self) -> None:
        """Record the time: an answer of Redis has just shown that all entries in flight belong to this router."""
        self.renewed_at = self._context.clock.monotonic()

    @property
    def overdue(self) -> bool:
        """True if the last renewal was so long ago that a peer may have claimed deliveries which are ready here."""
        return self._context.clock.monotonic() - self.renewed_at > claims.undisputed(self.idle)

    async def catch_up(self) -> None:
        """Renew the entries, and repeat this until it succeeds. So no delivery is attempted that a peer has claimed."""
        while True:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # a worker waits here, and an error must not end it
                await asyncio.sleep(self._context.health.failed(error, "keep"))
            else:
                return

    async def _renew(self) -> None:
        try:
            await self._renew_entries()
        except failures.ResponseError as error:
            if str(error).startswith("NOGROUP"):
                self.regroup()
            raise

    async def _renew_entries(self) -> None:
        """Reset the idle time of the entries in flight, and forget ready entries that a peer has claimed or settled.

        An entry that is no longer pending was settled by a peer, or has vanished from Redis. If entries have vanished,
        `QueueBooks.losses` has changed. In that case this router still delivers the missing entries.
        """
        began, losses, in_flight = self._context.clock.monotonic(), self._books.losses, self._in_flight
        before = {*in_flight.held}
        states: dict[bytes, int] = {}
        # List only entries up to the present last id, because entries that are read later need no renewal. Without this
        # limit, the renewal of a long queue would list page after page of new entries, and end only when the queue is
        # empty.
        last = await self._pending.last()
        if last is not None:
            # Entries that are not recovered yet are renewed too.
            async for page in self._pending.pages(lambda: in_flight.unreadable, last=last):
                listed = [entry.id for entry in page]
                states.update(zip(listed, await self._pending.claim(listed), strict=True))
        ready = before & in_flight.ready.entries
        unlisted = [entry for entry in ready if entry not in states]
        states.update(zip(unlisted, await self._pending.claim(unlisted), strict=True))
        gone = {entry for entry in ready if states.get(entry) == OF_ANOTHER}
        missing = {entry for entry in ready - in_flight.lost if states.get(entry) == NOT_PENDING}
        if missing:
            await self.tick()
            if self._books.losses == self._losses:
                gone |= missing
            else:
                in_flight.lost |= missing
        if gone:
            in_flight.ready.remove(gone)
            in_flight.let_go(gone)
        self.renewed_at, self._losses = began, losses

    async def set_free(self) -> None:
        """Release the remaining entries at a graceful shutdown.

        Their delivery count is set to 0. Their idle time is set to the limit, so that peers may claim the entries at
        once.
        """
        async for page in self._pending.pages(frozenset):
            await self._pending.claim([entry.id for entry in page], count=0, idle=self.idle)
