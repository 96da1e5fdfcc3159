"""Reads one queue: what this router's last run left, what is new, and what a dead peer left; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from redis import exceptions as failures

from router.broker.groups.group_scripts import OF_ANOTHER
from router.broker.groups.in_flight import Entry
from router.broker.groups.pending import PendingEntries
from router.broker.queues.parts.queue_common import GROUP, MAX_DELIVERIES, MOST, QueueContext
from router.broker.queues.parts.queue_hand import QueueHand
from router.broker.queues.parts.queue_keeper import QueueKeeper
from router.broker.server.link import Link, Word
from router.contracts import QueueLimits
from router.core.accounts.records import Reader, UnknownRecordError
from router.core.delivery import claims
from router.core.delivery.claims import Pending
from router.errors import Reason
from router.events import Event

TOGETHER = 10
"""Entries that are given up in one round at most."""

TELL_EVERY = 60.0
"""Seconds between two log lines about entries that can't be read."""


class Admission:
    """Makes deliveries of entries, and offers them to the workers. `give_up` makes a dead letter of one."""

    def __init__(self, context: QueueContext, hand: QueueHand, give_up: Callable[[Event, Reason, str], None]) -> None:
        self.reader = Reader(context.sink)
        self.give_up = give_up
        self._context = context
        self._hand = hand
        self._unreadable_told_at = float("-inf")

    def admit(self, entries: Iterable[tuple[bytes, bytes]], count: int | None = None) -> None:
        """Take entries and their records in hand; `count` is set on one that must be alone there."""
        events: list[Event] = []
        append, read, held = events.append, self.reader.read, self._hand.held
        for id_, record in entries:
            if id_ in held:
                continue
            held.add(id_)
            try:
                event, orphan = read(record, id_)
            except UnknownRecordError as error:
                self.refuse(id_, error)
                continue
            if orphan:
                self.give_up(event, Reason.ORPHANED, f"the route {event.route} had options of its own and is gone")
                continue
            append(event)
        if events:
            self._hand.ready.add(events, count)

    def refuse(self, entry: bytes, error: UnknownRecordError) -> None:
        """Leave an entry in hand that can't be read."""
        self._hand.held.add(entry)
        self._hand.unreadable.add(entry)
        now = self._context.clock.monotonic()
        if now >= self._unreadable_told_at:
            self._unreadable_told_at = now + TELL_EVERY
            message, number = "an entry of the queue can't be read; it stays pending", len(self._hand.unreadable)
            self._context.log.error(message, entry=entry.decode(), error=str(error), unreadable=number)


class QueueRecovery:
    """Takes entries again that were in hand when a router died, the fewer the more suspicious they are."""

    def __init__(
        self,
        context: QueueContext,
        reading: Link,
        writing: Link,
        hand: QueueHand,
        *,
        keeper: QueueKeeper,
        admission: Admission,
    ) -> None:
        self._context = context
        self._pending = PendingEntries(reading, context.names)
        self._ours = PendingEntries(writing, context.names)
        self._hand = hand
        self._keeper = keeper
        self._admission = admission

    async def recover(self, *, own: bool) -> bool:
        """Take over pending entries, own ones or a dead peer's; returns whether there may be more."""
        context, ending = self._context, self._context.ending
        idle = None if own else self._keeper.idle
        page = await self._pending.first(lambda: self._hand.held, idle)
        if not page:
            return False
        poison = [entry for entry in page if claims.is_poison(entry.deliveries, MAX_DELIVERIES)]
        if poison:
            await self._poison(poison[:TOGETHER], idle)
            return True
        take = next(claims.takes(page))
        if take.alone:
            await self._emptied()
        free = self._hand.resting
        if take.alone and not free:
            return False  # it ends, and what is in hand stays there
        found, gone = await self._take(take.entries, idle, count=not take.alone)
        if found:
            if free:
                self._keeper.renewed()
            whose = "this router's last run" if own else "a dead router"
            context.log.info("work taken over", number=len(found), of=whose)
            count = take.entries[0].deliveries if take.alone else None
            self._admission.admit(((id_, fields[1]) for id_, fields in found), count)
            await self._emptied()
        return bool(found or gone) and not ending.begun

    async def _take(self, entries: Sequence[Pending], idle: float | None, *, count: bool) -> tuple[list[Entry], int]:
        """Take entries that are still as they were listed, and acknowledge those that were deleted; returns how many."""
        found, gone = await self._pending.take(entries, idle, count=count)
        return found, await self._pending.acknowledge(gone)

    async def _emptied(self) -> None:
        """Wait until nothing is in hand."""
        while not (self._hand.resting or self._context.ending.begun):
            await self._hand.change()

    async def _poison(self, entries: Sequence[Pending], idle: float | None) -> None:
        """Make dead letters, one at a time and with nothing beside it that may end the process.

        A letter that is written and whose entry is not yet settled would be written again after that.
        """
        hand, alone = self._hand, self._context.timing.alone
        counts = {entry.id: entry.deliveries for entry in entries}
        for id_, fields in (await self._take(entries, idle, count=False))[0]:
            try:
                event, _ = self._admission.reader.read(fields[1], id_)
            except UnknownRecordError as error:  # its count rises as one router after another takes it over
                self._admission.refuse(id_, error)
                continue
            await hand.be_alone(id_)
            await hand.isolation.shut(hand, alone)
            hand.held.add(id_)
            detail = f"alone in hand when the router died; delivered {counts[id_]} times"
            self._admission.give_up(event, Reason.POISON, detail)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(alone):
                    await hand.isolation.opened()
            hand.leave_alone([id_])

    async def take_alone(self) -> Event | None:
        """Take the first one that is ready, which must be alone in hand; returns None where a peer has taken it over.

        First its count is raised, for it may be the last thing we do. The count that would find it guilty is not given
        where another delivery might be to blame.
        """
        hand = self._hand
        bundle = hand.ready.lift()
        event = bundle.events[0]
        entry = event._receipt
        assert bundle.count is not None
        count = bundle.count + 1
        try:
            await hand.be_alone(entry)
            if count < MAX_DELIVERIES or await hand.isolation.shut(hand, self._context.timing.alone):
                await self._raise_count(entry, count)
        except BaseException:
            hand.leave_alone([entry])
            hand.ready.lower(bundle)
            raise
        hand.ready.taken(1)
        if entry not in hand.held:
            hand.leave_alone([entry])
            return None
        return event

    async def _raise_count(self, entry: bytes, count: int) -> None:
        context = self._context
        while True:
            try:
                (state,) = await self._ours.claim([entry], count=count)
                if state == OF_ANOTHER:
                    self._hand.let_go([entry])
            except failures.ResponseError:
                return  # the group is gone, and the count with it
            except (failures.RedisError, OSError) as error:
                await asyncio.sleep(context.health.failed(error, "settle"))
            else:
                context.health.succeeded("settle")
                return


class QueueReader:
    """Reads ahead of the workers, and makes the group where it is not there."""

    def __init__(
        self,
        context: QueueContext,
        reading: Link,
        writing: Link,
        hand: QueueHand,
        *,
        keeper: QueueKeeper,
        give_up: Callable[[Event, Reason, str], None],
    ) -> None:
        self.ended = False
        self._context = context
        self._reading = reading
        self._writing = writing
        self._hand = hand
        self._keeper = keeper
        self._admission = Admission(context, hand, give_up)
        self.recovery = QueueRecovery(context, reading, writing, hand, keeper=keeper, admission=self._admission)
        self._id = 0  # of the connection that reads
        self._blocked: asyncio.Timeout | None = None
        self._abandoned = True  # whether a dead router may have left something

    def configure(self, limits: QueueLimits) -> None:
        """Take other limits."""
        self._admission.reader = Reader(self._context.sink, limits.overriding)

    async def run(self) -> None:
        """Read own history first, then what is new, and now and then what a dead peer left."""
        context = self._context
        own, grouped, regrouped = True, False, 0
        while not context.ending.lingered:
            answered = False
            try:
                if not grouped:
                    await self._make_group()
                    self._id = await self._reading.courtesy("CLIENT", "ID") or 0
                    grouped = True
                if own:
                    own = answered = await self.recovery.recover(
                        own=True
                    )  # where nothing was found, nothing was written
                elif self._abandoned and not context.ending.begun:
                    self._abandoned = answered = await self.recovery.recover(own=False)
                elif self._hand.ready.number >= self._hand.ready.hold:
                    await self._hand.ready.room()
                else:
                    found = await self._read_new()
                    if not found and context.ending.begun:
                        break
                    answered = True
            except failures.ResponseError as error:
                delay = context.health.failed(error, "read")
                if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    grouped, own, regrouped = False, True, regrouped + 1
                    if regrouped <= 2:
                        continue
                await asyncio.sleep(delay)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                grouped, own = False, True  # the answer may have held entries that are ours now
                await asyncio.sleep(context.health.failed(error, "read"))
            else:
                if answered:
                    regrouped = 0
                    context.health.succeeded("read")
        self.ended = True
        self._hand.stir()

    async def _make_group(self) -> None:
        """Make the group from the first entry on: what stands in the stream waits, whatever a group that is gone had read."""
        try:
            await self._writing.call("XGROUP", "CREATE", self._context.keys.stream, GROUP, "0", "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _read_new(self) -> bool:
        context, ready = self._context, self._hand.ready
        count = min(MOST, ready.hold - ready.number)
        words: list[Word] = ["XREADGROUP", "GROUP", GROUP, context.names.consumer, "COUNT", count]
        if not context.ending.begun:
            words += ("BLOCK", max(1, round(context.timing.block * 1000)))
        blocked = asyncio.timeout(None)
        try:
            async with blocked:
                self._blocked = None if context.ending.begun else blocked
                reply = await self._reading.call(*words, "STREAMS", context.keys.stream, ">")
        except TimeoutError:
            if blocked.expired():
                raise failures.ConnectionError("CLIENT UNBLOCK did not end the read") from None
            raise
        finally:
            self._blocked = None
        if not reply:
            return False
        if not self._hand.held:
            self._keeper.renewed()
        self._admission.admit((id_, fields[1]) for id_, fields in reply[0][1])
        return True

    async def stop_waiting(self) -> None:
        """End the read that waits for entries; where the server does not do that, hang up a little later."""
        if self._blocked is not None:
            if self._blocked.when() is None:
                self._blocked.reschedule(asyncio.get_running_loop().time() + self._context.timing.unblock)
            with contextlib.suppress(failures.RedisError, OSError):
                await self._writing.courtesy("CLIENT", "UNBLOCK", self._id)

    async def look(self) -> None:
        """Look for what a dead router left."""
        self._abandoned = True
        await self.stop_waiting()
