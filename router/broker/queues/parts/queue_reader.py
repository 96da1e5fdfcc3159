"""The reader of one queue: entries of this router's last run, new entries, entries of dead peers; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from redis import exceptions as failures

from router.broker.groups.group_scripts import OF_ANOTHER
from router.broker.groups.in_flight import Entry
from router.broker.groups.pending import PendingEntries
from router.broker.queues.parts.queue_common import GROUP, MAX_DELIVERIES, MOST, QueueContext
from router.broker.queues.parts.queue_in_flight import QueueInFlight
from router.broker.queues.parts.queue_renewal import QueueRenewal
from router.broker.server.link import Link, Word
from router.contracts import QueueLimits
from router.core.accounts.records import Reader, UnknownRecordError
from router.core.delivery import claims
from router.core.delivery.claims import Pending
from router.errors import Reason
from router.events import Event
from router.wording import counted

TOGETHER = 10
"""The largest number of poison entries that are given up in one call of `recover`."""

LOG_EVERY = 60.0
"""Seconds between two log lines about entries that can't be read."""


class Admission:
    """Decodes entries into deliveries and offers them to the workers. `give_up` turns a delivery into a dead letter."""

    def __init__(
        self, context: QueueContext, in_flight: QueueInFlight, give_up: Callable[[Event, Reason, str], None]
    ) -> None:
        self.reader = Reader(context.sink)
        self.give_up = give_up
        self._context = context
        self._in_flight = in_flight
        self._log_again_at = float("-inf")

    def admit(self, entries: Iterable[tuple[bytes, bytes]], count: int | None = None) -> None:
        """Decode entries, given as (id, record), and offer their deliveries.

        `count` is usually None. For a single entry that must be alone in flight, `count` is its delivery count.
        """
        events: list[Event] = []
        append, read, held = events.append, self.reader.read, self._in_flight.held
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
                self.give_up(
                    event,
                    Reason.ORPHANED,
                    f"the route {event.route} overrode options of this sink, but was removed or does not override them now",
                )
                continue
            append(event)
        if events:
            self._in_flight.ready.add(events, count)

    def refuse(self, entry: bytes, error: UnknownRecordError) -> None:
        """Leave an entry pending, because it can't be read, and log the error."""
        self._in_flight.held.add(entry)
        self._in_flight.unreadable.add(entry)
        now = self._context.clock.monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_EVERY
            message, number = "an entry of the queue can't be read; it stays pending", len(self._in_flight.unreadable)
            self._context.log.error(message, entry=entry.decode(), error=str(error), unreadable=number)


class QueueRecovery:
    """Claims entries that were in flight when a router died.

    The higher the delivery counts of the entries, the fewer entries are claimed at a time.
    """

    def __init__(
        self,
        context: QueueContext,
        reading: Link,
        writing: Link,
        in_flight: QueueInFlight,
        *,
        renewal: QueueRenewal,
        admission: Admission,
    ) -> None:
        self._context = context
        self._pending = PendingEntries(reading, context.names)
        self._ours = PendingEntries(writing, context.names)
        self._in_flight = in_flight
        self._renewal = renewal
        self._admission = admission

    async def recover(self, *, own: bool) -> bool:
        """Claim pending entries of this router (`own`) or of dead peers; return whether more entries may be left."""
        context, ending = self._context, self._context.ending
        idle = None if own else self._renewal.idle
        page = await self._pending.first(lambda: self._in_flight.held, idle)
        if not page:
            return False
        poison = [entry for entry in page if claims.is_poison(entry.deliveries, MAX_DELIVERIES)]
        if poison:
            await self._poison(poison[:TOGETHER], idle)
            return True
        take = next(claims.claim_batches(page))
        if take.alone:
            await self._emptied()
        free = self._in_flight.resting
        if take.alone and not free:
            return False  # the router shuts down, so the suspect stays pending
        found, gone = await self._take(take.entries, idle, count=not take.alone)
        if found:
            if free:
                self._renewal.renewed()
            whose = "this router's last run" if own else "a dead router"
            context.log.info("the router has claimed deliveries in flight", number=len(found), of=whose)
            count = take.entries[0].deliveries if take.alone else None
            self._admission.admit(((id_, fields[1]) for id_, fields in found), count)
            await self._emptied()
        return bool(found or gone) and not ending.begun

    async def _take(self, entries: Sequence[Pending], idle: float | None, *, count: bool) -> tuple[list[Entry], int]:
        """Claim the entries that have not changed since they were listed, and acknowledge the entries that were
        deleted.

        Returns the claimed entries, and the number of deleted entries.
        """
        found, gone = await self._pending.take(entries, idle, count=count)
        return found, await self._pending.acknowledge(gone)

    async def _emptied(self) -> None:
        """Wait until no delivery is in flight."""
        while not (self._in_flight.resting or self._context.ending.begun):
            await self._in_flight.change()

    async def _poison(self, entries: Sequence[Pending], idle: float | None) -> None:
        """Turn poison entries into dead letters, one at a time and with nothing else in flight.

        If other deliveries were in flight, one of them could crash the process after the letter was written and before
        the entry is settled. Then the next run would write the letter again.
        """
        in_flight, alone = self._in_flight, self._context.timing.alone
        counts = {entry.id: entry.deliveries for entry in entries}
        for id_, fields in (await self._take(entries, idle, count=False))[0]:
            try:
                event, _ = self._admission.reader.read(fields[1], id_)
            except UnknownRecordError as error:
                # This entry is not poison: its delivery count rose because several routers have claimed it.
                self._admission.refuse(id_, error)
                continue
            await in_flight.be_alone(id_)
            await in_flight.isolation.shut(in_flight, alone)
            in_flight.held.add(id_)
            detail = f"this was the only delivery in flight when the router died, and Redis delivered it {counted(counts[id_], 'time')}"
            self._admission.give_up(event, Reason.POISON, detail)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(alone):
                    await in_flight.isolation.opened()
            in_flight.leave_alone([id_])

    async def take_alone(self) -> Event | None:
        """Take the first ready delivery, which is a suspect; return None if a peer has claimed it.

        The delivery count is raised before the attempt, because the attempt may crash the process. The count
        `MAX_DELIVERIES` makes the entry poison. It is written only if nothing else is in flight, because otherwise
        another delivery could be the cause of a crash.
        """
        in_flight = self._in_flight
        bundle = in_flight.ready.lift()
        event = bundle.events[0]
        entry = event._receipt
        assert bundle.count is not None
        count = bundle.count + 1
        try:
            await in_flight.be_alone(entry)
            if count < MAX_DELIVERIES or await in_flight.isolation.shut(in_flight, self._context.timing.alone):
                await self._raise_count(entry, count)
        except BaseException:
            in_flight.leave_alone([entry])
            in_flight.ready.lower(bundle)
            raise
        in_flight.ready.taken(1)
        if entry not in in_flight.held:
            in_flight.leave_alone([entry])
            return None
        return event

    async def _raise_count(self, entry: bytes, count: int) -> None:
        context = self._context
        while True:
            try:
                (state,) = await self._ours.claim([entry], count=count)
                if state == OF_ANOTHER:
                    self._in_flight.let_go([entry])
            except failures.ResponseError:
                return  # the group was deleted together with its delivery counts
            except (failures.RedisError, OSError) as error:
                await asyncio.sleep(context.health.failed(error, "settle"))
            else:
                context.health.succeeded("settle")
                return


class QueueReader:
    """Reads entries ahead of the workers, and creates the consumer group if it is missing."""

    def __init__(
        self,
        context: QueueContext,
        reading: Link,
        writing: Link,
        in_flight: QueueInFlight,
        *,
        renewal: QueueRenewal,
        give_up: Callable[[Event, Reason, str], None],
    ) -> None:
        self.ended = False
        self._context = context
        self._reading = reading
        self._writing = writing
        self._in_flight = in_flight
        self._renewal = renewal
        renewal.regroup = self._regroup
        self._grouped = False  # True if the consumer group exists, as far as this router knows
        self._admission = Admission(context, in_flight, give_up)
        self.recovery = QueueRecovery(context, reading, writing, in_flight, renewal=renewal, admission=self._admission)
        self._id = 0  # CLIENT ID of the reading connection
        self._blocked = False  # True while a read waits for entries
        self._abandoned = True  # True if a dead router may have left entries

    def configure(self, limits: QueueLimits) -> None:
        """Use the `overriding` routes of these limits from now on."""
        self._admission.reader = Reader(self._context.sink, limits.overriding)

    async def run(self) -> None:
        """Recover this router's own entries, then read new entries. Claim entries of dead peers after a call of `look`."""
        context = self._context
        own, regrouped = True, 0
        while not context.ending.lingered:
            answered = False
            try:
                if not self._grouped:
                    await self._make_group()
                    self._id = await self._reading.courtesy("CLIENT", "ID") or 0
                    self._grouped = True
                if own:
                    # If no entry was found, nothing was written, so this call has not shown that Redis accepts writes.
                    own = answered = await self.recovery.recover(own=True)
                elif self._abandoned and not context.ending.begun:
                    self._abandoned = answered = await self.recovery.recover(own=False)
                elif self._in_flight.ready.enough:
                    await self._in_flight.ready.room()
                else:
                    found = await self._read_new()
                    if not found and context.ending.begun:
                        break
                    answered = True
            except failures.ResponseError as error:
                delay = context.health.failed(error, "read")
                if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    self._grouped, own, regrouped = False, True, regrouped + 1
                    if regrouped <= 2:
                        continue
                await asyncio.sleep(delay)
            except Exception as error:  # noqa: BLE001  # after any error the read is tried again
                # An answer may be lost. The entries in this answer are pending for this router now.
                self._grouped, own = False, True
                await asyncio.sleep(context.health.failed(error, "read"))
            else:
                if answered:
                    regrouped = 0
                    context.health.succeeded("read")
        self.ended = True
        self._in_flight.stir()

    def _regroup(self) -> None:
        """Let `run` create the group again, even if it waits at present: entries can't be renewed without a group."""
        self._grouped = False
        self._in_flight.ready.make_room()

    async def _make_group(self) -> None:
        """Create the group if it is missing. The group begins at the first entry, because all entries are unsettled."""
        try:
            await self._writing.call("XGROUP", "CREATE", self._context.keys.stream, GROUP, "0", "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _read_new(self) -> bool:
        context, ready = self._context, self._in_flight.ready
        count = min(MOST, ready.hold - ready.number)
        words: list[Word] = ["XREADGROUP", "GROUP", GROUP, context.names.consumer, "COUNT", count]
        if not context.ending.begun:
            words += ("BLOCK", max(1, round(context.timing.block * 1000)))
        self._blocked = not context.ending.begun
        try:
            reply = await self._reading.call(*words, "STREAMS", context.keys.stream, ">")
        finally:
            self._blocked = False
        if not reply:
            return False
        if not self._in_flight.held:
            self._renewal.renewed()
        self._admission.admit((id_, fields[1]) for id_, fields in reply[0][1])
        return True

    async def stop_waiting(self) -> None:
        """End a blocking read by CLIENT UNBLOCK.

        If the server does not end the read, close the connection a little later.
        """
        if self._blocked:
            late = failures.ConnectionError("CLIENT UNBLOCK did not end the read")
            self._reading.hurry(self._context.timing.unblock, late)
            with contextlib.suppress(failures.RedisError, OSError):
                await self._writing.courtesy("CLIENT", "UNBLOCK", self._id)

    async def look(self) -> None:
        """Check for entries of dead routers now."""
        self._abandoned = True
        self._in_flight.ready.make_room()
        await self.stop_waiting()
