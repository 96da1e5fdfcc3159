"""The Redis queue of one sink: a stream read by a consumer group, and a sorted set for what is due later; floor 4.

A delivery in hand is a pending entry of this router's consumer. It leaves the stream when it is settled, or for the sorted
set when it is to be tried again, so an entry's delivery count tells how often a router died with it in hand. Routers with
the same configuration share the work; one that dies leaves entries that a peer takes over once nobody renews them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from redis import exceptions as failures

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.group_scripts import CLAIM, OF_ANOTHER
from router.broker.queues.inbox import Inbox
from router.broker.queues.queue_scripts import DEFER, RECOVER, REDATE, RENEW, RESCHEDULE, SETTLE, TICK
from router.broker.server import client, keys
from router.broker.server.client import Backoff, Server
from router.broker.server.link import COMMAND, Link, Word, cancelled
from router.broker.server.outage import Outage
from router.contracts import Clock, QueueLimits, Sign
from router.core.accounts.books import SinkBook
from router.core.accounts.records import Reader, UnknownRecordError, pack
from router.core.accounts.server_time import ServerTime
from router.core.delivery.retry import LONGEST_ASKED
from router.errors import Reason
from router.events import Event, Outcome, size_of, text

log = structlog.stdlib.get_logger(__name__)

GROUP = "event-router"
"""The consumer group of every queue."""

MOST = 500
"""Entries that one command reads or settles at most."""

TELL_EVERY = 60.0
"""Seconds between two log lines about entries that can't be read."""

_COUNTERS = frozenset({"accepted", "delivered", "printed", "handed_over"})
_REASONS = frozenset(map(str, Reason))
_COUNT = re.compile(r"-?[0-9]{1,18}")

MOVES = 100
"""Retries that one script call moves back at most."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; tests are quicker."""

    block: float = 1.0
    """How long a read waits for entries."""
    tick: float = 0.5
    """How long the books may be behind, and a retry late."""
    claim: float = 5.0
    """Between two looks for what a dead peer left."""
    linger: float = 1.0
    """How long the end still takes what stands in the queue already."""
    alone: float = 30.0
    """How long others may take to finish what they have in hand, so that a suspicious delivery is alone."""
    first_delay: float = 0.1
    longest_delay: float = 2.0


class _Bundle(msgspec.Struct):
    """Deliveries that are ready to be taken; `count` is set on one that must be alone in hand: its delivery count."""

    events: list[Event]
    count: int | None = None


class _Part(msgspec.Struct, eq=False):
    """What an event that was split by address carries in place of its entry."""

    whole: _Split


class _Split(msgspec.Struct, eq=False):
    """An entry on its way to become others: how many parts are open, and what the others became."""

    entry: bytes
    size: int
    open: int
    counters: dict[str, int]
    records: list[tuple[float, bytes]]


def _entry(event: Event) -> bytes:
    """The entry that a delivery in hand came from."""
    receipt = event._receipt
    entry: bytes = receipt.whole.entry if isinstance(receipt, _Part) else receipt
    return entry


_TASKS = ("read", "settle", "keep")


class RedisQueue:
    """Implements `contracts.Queue` on Redis for the deliveries of one sink.

    `consumer` is this router's name, the same after a restart. `give_up` makes a dead letter of one delivery and settles
    it when that is written. `book` is this router's own; everybody's is in Redis.
    `told` is the outage that the log tells of; queues of one server share it, so that ten of them do not tell of one
    outage ten times.
    """

    durable = True

    def __init__(
        self,
        sink: str,
        server: Server,
        *,
        prefix: str,
        consumer: str,
        inbox: Inbox,
        limits: QueueLimits,
        give_up: Callable[[Event, Reason, str], None],
        book: SinkBook,
        clock: Clock,
        isolation: CrashIsolation,
        max_deliveries: int = 5,
        timing: Timing | None = None,
        told: Outage | None = None,
    ) -> None:
        self._sink = sink
        self._stream = keys.queue(prefix, sink)
        self._later = keys.later(prefix, sink)
        self._books = keys.books(prefix, sink)
        self._consumer = consumer
        self._inbox = inbox
        self._give_up = give_up
        self.shared_book = SinkBook(dropped_by_channel=book.dropped_by_channel)
        """Everybody's book of the sink, as of the last `refresh`, which is never long ago."""
        self.held = 0
        """Deliveries that the queue held then, whoever has them in hand."""
        self._book = book
        self._clock = clock
        self._outage = Outage(clock)
        self._told = told or Outage(clock)
        self._solitude = isolation
        self._single: bytes | None = None  # the entry for which this queue is alone
        self._max_deliveries = max_deliveries
        self._room = asyncio.Event()
        self.configure(limits)
        self._timing = timing = timing or Timing()
        self._server = server
        self._reading = Link(server, timing.block + client.TIMEOUT)
        self._writing = Link(server)
        self._log = log.bind(sink=sink)
        self._bundles: deque[_Bundle] = deque()
        self._ready = 0
        self._takers: deque[asyncio.Future[None]] = deque()
        self._held: set[bytes] = set()  # read, and not known to be out of the stream
        self._kept: set[bytes] = set()  # in hand, but waiting for its sink or its turn
        self._unreadable: set[bytes] = set()
        self._unreadable_told_at = float("-inf")
        self._lost: set[bytes] = set()  # in hand, and vanished from Redis
        self._losses: tuple[str, int] | None = None  # as they were before the last renewal
        self._done: dict[str, tuple[list[bytes], int]] = {}
        self._deferred: list[list[Word]] = []
        self._deferred_ids: list[bytes] = []
        self._renewed_at = 0.0
        self._ticking = asyncio.Lock()
        self._epoch = ""
        self._counters: dict[str, int] = {}
        self._delayed = 0
        self._due: float | None = None
        self._server_time = ServerTime()
        self._parted = False
        self._ending = False
        self._ended_at = 0.0
        self._changed = asyncio.Event()  # something was settled or put off
        self._wake = asyncio.Event()  # the keeper has something to look at
        self._quiet = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading_ended = False
        self._reader_id = 0
        self._blocked = False

    @property
    def reason(self) -> str | None:
        """Why the queue can't be used; None while it can."""
        return self._outage.reason

    # What the worker uses.

    @property
    def events(self) -> int:
        """Deliveries that are not settled; once the router ends those in hand, for the others stay where they are."""
        if self._ending:
            return self._inbox.waiting + len(self._held) - len(self._unreadable)
        return self._inbox.waiting + self.held

    @property
    def delayed(self) -> int:
        """Those of them that wait for their next attempt."""
        return 0 if self._ending else self._delayed

    def due_in(self) -> float | None:
        """Seconds until the next delayed delivery is due, None when none waits."""
        return None if self._ending or self._due is None else self._due - self._clock.monotonic()

    @property
    def at_work(self) -> bool:
        """Whether a worker has a delivery in hand that does not merely wait there, or Redis does not know its end yet."""
        return len(self._held) > self._ready + len(self._unreadable) + len(self._kept)

    def put(self, events: list[Event], size: int) -> None:
        """Hand deliveries over to Redis. Never waits."""
        self._inbox.put(events, size)

    async def take(self, most: int) -> tuple[list[Event], int]:
        """The next deliveries, at least one and at most `most`, and their bytes; waits until there are some."""
        while True:
            if not self._bundles:
                await self._woken()
            elif self._solitude.shuts_out(self):
                await self._solitude.opened()
            elif self._clock.monotonic() - self._renewed_at > self._idle * 0.9:
                await self._renew_overdue()
            elif self._bundles[0].count is not None:
                event = await self._alone()
                if event is not None:
                    return [event], len(event.raw)
            else:
                events = self._next(most)
                return events, size_of(events)

    async def _woken(self) -> None:
        taker = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self._wake_taker()  # it was woken for nothing: the next one takes what is there
            raise

    def _wake_taker(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return

    def _next(self, most: int) -> list[Event]:
        bundle = self._bundles.popleft()
        events = bundle.events
        if len(events) > most:
            self._bundles.appendleft(_Bundle(events[most:]))
            events = events[:most]
        self._ready -= len(events)
        if self._ready < self._hold:
            self._room.set()
        if self._bundles:
            self._wake_taker()
        return events

    async def _alone(self) -> Event | None:
        """Take the one that must be alone in hand: first its count is raised, for it may be the last thing we do.

        The count that would find it guilty is not given where another delivery might be to blame.
        """
        bundle = self._bundles.popleft()
        event = bundle.events[0]
        entry = event._receipt
        assert bundle.count is not None
        count = bundle.count + 1
        try:
            await self._be_alone(entry)
            if count < self._max_deliveries or await self._solitude.shut(self, self._timing.alone):
                await self._raise_count(entry, count)
        except BaseException:
            self._leave_alone(entry)
            self._bundles.appendleft(bundle)
            self._wake_taker()
            raise
        self._ready -= 1
        self._room.set()
        if entry not in self._held:  # a peer has taken it over meanwhile
            self._leave_alone(entry)
            return None
        return event

    async def _be_alone(self, entry: bytes) -> None:
        await self._solitude.enter()
        self._single = entry

    def _leave_alone(self, *entries: bytes) -> None:
        """End the isolation if it was for one of these. Entries of other queues have the same ids."""
        if self._single is not None and self._single in entries:
            self._single = None
            self._solitude.leave()

    async def _raise_count(self, entry: bytes, count: int) -> None:
        backoff = self._new_backoff()
        while True:
            try:
                words: list[Word] = [GROUP, self._consumer, count, 0, entry]
                (state,) = await self._writing.script(CLAIM, [self._stream], words)
                if state == OF_ANOTHER:
                    self._let_go([entry])
            except failures.ResponseError:
                return  # the group is gone, and the count with it
            except (failures.RedisError, OSError) as error:
                self._broken(error, "settle")
                await asyncio.sleep(backoff.next())
            else:
                self._mended("settle")
                return

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:  # noqa: ARG002  # the books count the bytes of records
        """Deliveries in hand are over, all in the same way."""
        self._book.settle(len(events), outcome, reason)
        counter = outcome.value if reason is None else f"{outcome.value}:{reason.value}"
        if self._parted:
            events = self._settle_parts(events, counter)
            if not events:
                return
        ids, total = self._done.get(counter, ([], 0))
        ids += [event._receipt for event in events]
        self._done[counter] = ids, total + sum([event._position for event in events])
        self._changed.set()

    def _settle_parts(self, events: Sequence[Event], counter: str) -> list[Event]:
        whole = []
        for event in events:
            if isinstance(event._receipt, _Part):
                self._part_over(event._receipt, counter=counter)
            else:
                whole.append(event)
        return whole

    def keep(self, event: Event) -> bool:
        """Whether a delivery in hand may stay there for long: not one that must be alone in hand, all others wait for it."""
        entry = _entry(event)
        if self._single == entry:
            return False
        self._kept.add(entry)
        if self._solitude.shuts_out(self):
            self._solitude.finished()
        if self._nothing_at_work():
            self._quiet.set()
        return True

    def later(self, event: Event, delay: float) -> None:
        """Hand back a delivery that was taken, to be tried again after `delay` seconds."""
        (record,) = pack([event], self._overriding)
        if isinstance(event._receipt, _Part):
            self._part_over(event._receipt, record=(delay, record))
            return
        self._defer(event._receipt, event._position, {}, [(delay, record)])

    async def give_back(self, hand: Sequence[Event]) -> None:
        """Hand back deliveries that were taken and not attempted: they are the next to be taken, in this order."""
        if not hand:
            return
        self._kept.difference_update(map(_entry, hand))
        self._bundles.appendleft(_Bundle(list(hand)))
        self._ready += len(hand)
        self._wake_taker()

    def configure(self, limits: QueueLimits) -> None:
        """Take other limits from now on, and so does the way into the queue."""
        self._inbox.configure(limits)
        self._hold = min(limits.hold, MOST)
        self._idle = limits.idle
        self._overriding = limits.overriding
        self._reader = Reader(self._sink, limits.overriding)
        self._room.set()

    def leave(self, *, handed_over: bool) -> list[Event]:  # noqa: ARG002  # nothing is
        """Take out nothing: what waits stands in Redis."""
        return []

    def split(self, event: Event, parts: list[Event]) -> None:
        """A delivery in hand was handed over to `parts`; its entry gives way to theirs once each is put off or over."""
        self._parted = True
        self._book.split(len(parts))
        self._book.settle(1, Outcome.HANDED_OVER)
        counters = {"handed_over": 1, "accepted": len(parts)}
        whole = _Split(event._receipt, event._position, len(parts), counters, [])
        for part in parts:
            msgspec.structs.force_setattr(part, "_receipt", _Part(whole))

    def _part_over(self, part: _Part, *, counter: str = "", record: tuple[float, bytes] | None = None) -> None:
        whole = part.whole
        if record is not None:
            whole.records.append(record)
        else:
            whole.counters[counter] = whole.counters.get(counter, 0) + 1
        whole.open -= 1
        if not whole.open:
            self._defer(whole.entry, whole.size, whole.counters, whole.records)

    def _defer(self, entry: bytes, size: int, counters: dict[str, int], records: list[tuple[float, bytes]]) -> None:
        words: list[Word] = [entry, size, len(counters)]
        for name, number in counters.items():
            words += (name, number)
        words.append(len(records))
        for delay, record in records:
            words += (round(delay * 1000), record)
        self._deferred.append(words)
        self._deferred_ids.append(entry)
        self._changed.set()

    async def settled(self) -> None:
        """Take no more from Redis but what stands there ready, and wait until nothing is in hand."""
        if not self._ending:
            self._ending = True
            self._ended_at = self._clock.monotonic()
            self._room.set()
            self._wake.set()
            if self._blocked and self._tasks:
                self._tasks.append(asyncio.create_task(self._unblock(), name=f"queue {self._sink}: unblock"))
        while not self._is_quiet():
            if self._clock.monotonic() - self._ended_at > self._timing.linger:
                self._leave_what_is_ready()
            self._quiet.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._quiet.wait()

    async def _unblock(self) -> None:
        """End the read that waits for entries; where that is not allowed it ends by itself a little later."""
        with contextlib.suppress(failures.RedisError, OSError):
            await self._writing.courtesy("CLIENT", "UNBLOCK", self._reader_id)

    def _leave_what_is_ready(self) -> None:
        """What no worker has taken by now stays where it is."""
        left = [event._receipt for bundle in self._bundles for event in bundle.events]
        self._bundles.clear()
        self._ready = 0
        self._room.set()
        self._let_go(left)

    def _is_quiet(self) -> bool:
        return self._reading_ended and self._nothing_in_hand() and not self._inbox.waiting

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Whether an end has to wait: for a moment, for what is on its way to or from Redis. What waits in `hand` stands there."""
        return not hand

    def close(self, hand: Sequence[Event]) -> int:  # noqa: ARG002  # it stays pending
        """End: nothing is lost with this process, for it all stands in Redis."""
        self._ending = True
        self._room.set()
        return 0

    # Its life.

    def start(self) -> None:
        """Begin to read. Redis need not be there."""
        self._solitude.join(self)
        jobs = dict(zip(_TASKS, (self._read(), self._flush_for_ever(), self._keep()), strict=True))
        self._tasks = [asyncio.create_task(job, name=f"queue {self._sink}: {name}") for name, job in jobs.items()]

    def signs(self) -> Iterator[Sign]:
        """What it is at."""
        part = f"queue of {self._sink}"
        yield Sign(part, COMMAND, self._reading.since)
        yield Sign(f"{part}: keeper", COMMAND, self._writing.since)
        if not self._ending and any(task.done() for task in self._tasks):
            yield Sign(part, "a task has ended by itself", None, ended=True)

    async def end(self, patience: float) -> None:
        """After the drain: tell Redis what is over, set free what is left, read the books once more, hang up."""
        self._ending = True
        with contextlib.suppress(TimeoutError, failures.RedisError, OSError):
            async with asyncio.timeout(patience):
                await self._stop_tasks()
                await self._flush()
                await self._writing.script(RENEW, [self._stream], [GROUP, self._consumer, round(self._idle * 1000), 0])
                await self._tick()
        await self._stop_tasks()
        if self._single is not None:
            self._leave_alone(self._single)
        self._solitude.part(self)
        for who in _TASKS:
            self._told.dismiss(self._named(who))
        await self._reading.close()
        await self._writing.close()

    async def _stop_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        await cancelled(tasks)

    # Reading.

    async def _read(self) -> None:
        """Own history first, then what is new, and now and then what a dead peer left."""
        backoff = self._new_backoff()
        own, grouped, look_at = True, False, 0.0
        while not self._read_enough():
            answered = False
            try:
                if not grouped:
                    await self._make_group()
                    self._reader_id = await self._reading.courtesy("CLIENT", "ID") or 0
                    grouped = True
                if own:
                    own = answered = await self._recover(own=True)  # where nothing was found, nothing was written
                elif self._clock.monotonic() >= look_at and not self._ending:
                    answered = await self._recover(own=False)
                    if not answered:
                        look_at = self._clock.monotonic() + self._timing.claim
                elif self._ready >= self._hold:
                    self._room.clear()
                    await self._room.wait()
                else:
                    found = await self._read_new()
                    if not found and self._ending:
                        break
                    answered = True
            except failures.ResponseError as error:
                self._broken(error, "read")
                if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    grouped, own = False, True
                    if backoff.tries < 2:
                        backoff.next()
                        continue
                await asyncio.sleep(backoff.next())
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                self._broken(error, "read")
                grouped, own = False, True  # the answer may have held entries that are ours now
                await asyncio.sleep(backoff.next())
            else:
                if answered:
                    backoff.reset()
                    self._mended("read")
        self._reading_ended = True
        self._quiet.set()

    def _read_enough(self) -> bool:
        return self._ending and self._clock.monotonic() - self._ended_at > self._timing.linger

    async def _make_group(self) -> None:
        """Make the group from the first entry on: what stands in the stream waits, whatever a group that is gone had read."""
        try:
            await self._writing.call("XGROUP", "CREATE", self._stream, GROUP, "0", "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _read_new(self) -> bool:
        count = min(MOST, self._hold - self._ready)
        words: list[Word] = ["XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count]
        if not self._ending:
            words += ("BLOCK", max(1, round(self._timing.block * 1000)))
        self._blocked = not self._ending
        try:
            reply = await self._reading.call(*words, "STREAMS", self._stream, ">")
        finally:
            self._blocked = False
        if not reply:
            return False
        if not self._held:
            self._renewed_at = self._clock.monotonic()
        entries = reply[0][1]
        self._admit((id_, fields[1]) for id_, fields in entries)
        return True

    def _admit(self, entries: Iterable[tuple[bytes, bytes]], count: int | None = None) -> None:
        """Make deliveries of entries and offer them to the workers."""
        events: list[Event] = []
        append, read, held = events.append, self._reader.read, self._held
        for id_, record in entries:
            if id_ in held:
                continue
            held.add(id_)
            try:
                event, orphan = read(record, id_)
            except UnknownRecordError as error:
                self._cannot_read(id_, error)
                continue
            if orphan:
                self._give_up(event, Reason.ORPHANED, f"the route {event.route} had options of its own and is gone")
                continue
            append(event)
        if events:
            self._bundles.append(_Bundle(events, count))
            self._ready += len(events)
            self._wake_taker()

    def _cannot_read(self, entry: bytes, error: UnknownRecordError) -> None:
        self._unreadable.add(entry)
        now = self._clock.monotonic()
        if now >= self._unreadable_told_at:
            self._unreadable_told_at = now + TELL_EVERY
            message = "an entry of the queue can't be read; it stays pending"
            self._log.error(message, entry=entry.decode(), error=str(error), unreadable=self.unreadable)

    @property
    def unreadable(self) -> int:
        """Entries in hand that this router can't read."""
        return len(self._unreadable)

    async def _recover(self, *, own: bool) -> bool:
        """Take over pending entries, own ones or a dead peer's; returns whether there may be more."""
        idle = -1 if own else round(self._idle * 1000)
        while True:
            free = self._nothing_at_work()
            words: list[Word] = [GROUP, self._consumer, idle, self._max_deliveries, int(free), *self._held]
            kind, *entries = await self._reading.script(RECOVER, [self._stream], words)
            if kind == b"wait" and not self._ending:
                await self._emptied()
                continue
            break
        if kind == b"poison":
            await self._poison(entries)
            return True
        if not entries:
            return False
        if free:
            self._renewed_at = self._clock.monotonic()
        self._log.info("work taken over", number=len(entries), of="this router's last run" if own else "a dead router")
        count = entries[0][2] if kind == b"alone" else None
        self._admit(((id_, fields[1]) for id_, fields, _ in entries), count)
        await self._emptied()
        return not self._ending

    async def _emptied(self) -> None:
        """Wait until nothing is in hand."""
        while not (self._nothing_at_work() or self._ending):
            self._quiet.clear()
            await self._quiet.wait()

    async def _poison(self, entries: list[Any]) -> None:
        """Make dead letters, one at a time and with nothing beside it that may end the process.

        A letter that is written and whose entry is not yet settled would be written again after that.
        """
        for id_, fields, count in entries:
            try:
                event, _ = self._reader.read(fields[1], id_)
            except UnknownRecordError as error:  # its count rises as one router after another takes it over
                self._held.add(id_)
                self._cannot_read(id_, error)
                continue
            await self._be_alone(id_)
            await self._solitude.shut(self, self._timing.alone)
            self._held.add(id_)
            self._give_up(event, Reason.POISON, f"alone in hand when the router died; delivered {count} times")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.alone):
                    await self._solitude.opened()
            self._leave_alone(id_)

    # Settling.

    async def _flush_for_ever(self) -> None:
        backoff = self._new_backoff()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._flush()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                self._broken(error, "settle")
                self._changed.set()
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()
                self._mended("settle")

    async def _flush(self) -> None:
        """Tell Redis what is over and what is put off. What fails is kept and sent again."""
        while self._done:
            counter, (ids, size) = next(iter(self._done.items()))
            del self._done[counter]
            try:
                await self._settle_in_redis(counter, ids, size)
            except BaseException:
                more, more_size = self._done.get(counter, ([], 0))
                self._done[counter] = ids + more, size + more_size
                raise
            self._let_go(ids)
        while self._deferred:
            part, ids = self._deferred[:MOVES], self._deferred_ids[:MOVES]
            words: list[Word] = [GROUP]
            for item in part:
                words += item
            await self._writing.script(DEFER, [self._stream, self._later, self._books], words)
            del self._deferred[: len(part)], self._deferred_ids[: len(part)]
            self._let_go(ids)
            self._wake.set()

    async def _settle_in_redis(self, counter: str, ids: list[bytes], size: int) -> None:
        words: list[Word] = [GROUP]
        share, rest = divmod(size, len(ids))
        for first in range(0, len(ids), MOST):
            part = ids[first : first + MOST]
            words += (counter, len(part), share * len(part) + rest, *part)
            rest = 0
        await self._writing.script(SETTLE, [self._stream, self._books], words)

    def _let_go(self, ids: list[bytes]) -> None:
        self._held.difference_update(ids)
        self._lost.difference_update(ids)
        self._kept.difference_update(ids)
        self._leave_alone(*ids)
        if self._solitude.shuts_out(self):
            self._solitude.finished()
        if self._nothing_at_work():
            self._quiet.set()

    def _nothing_in_hand(self) -> bool:
        return len(self._held) == len(self._unreadable)

    def _nothing_at_work(self) -> bool:
        """Whether nothing is in hand but what waits there for its sink or its turn."""
        return len(self._held) == len(self._unreadable) + len(self._kept)

    # Keeping: retries that are due, the books, what is in hand.

    async def _keep(self) -> None:
        backoff = self._new_backoff()
        renew_at = self._clock.monotonic() + self._idle / 3
        while True:
            try:
                moved = await self._tick()
                if self._server_time.went_back:
                    await self._reschedule()
                if self._clock.monotonic() >= renew_at:
                    await self._renew()
                    renew_at = self._clock.monotonic() + self._idle / 3
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                self._broken(error, "keep")
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._mended("keep")
            if moved < MOVES:
                await self._until_next()

    async def _until_next(self) -> None:
        delay = self._timing.tick
        if self._due is not None:
            delay = min(delay, max(self._due - self._clock.monotonic(), 0.005))
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    async def refresh(self) -> None:
        """Read the shared book."""
        await self._tick()

    async def _tick(self) -> int:
        """Move what is due, read the books; returns how many were moved."""
        async with self._ticking:  # what this one says was read last has to be what the one before it read
            return await self._tick_alone()

    async def _tick_alone(self) -> int:
        words: list[Word] = [0 if self._ending else MOVES, self._epoch, os.urandom(8).hex()]
        for name, number in self._counters.items():
            words += (name, number)
        answer = await self._writing.script(TICK, [self._stream, self._later, self._books], words)
        moved, due, self.held, self._delayed, lost, milliseconds, books = answer
        self._server_time.heard(milliseconds / 1000, self._clock.monotonic())
        self._due = None if due < 0 else self._clock.monotonic() + float(due) / 1000
        read = {text(name): text(value) for name, value in zip(books[::2], books[1::2], strict=True)}
        self._epoch = read.pop("epoch")
        self._counters = {
            name: int(value)
            for name, value in read.items()
            if name != "bytes" and not name.startswith("was:") and _COUNT.fullmatch(value)
        }
        self._write_book()
        if self._losses is None:
            self._losses = self._losses_now()
        if lost > 0:
            self._book.settle(lost, Outcome.DROPPED, Reason.LOST)
            message = "deliveries vanished from the queue in Redis: its data was deleted"
            self._log.error(message, number=lost, reason=str(Reason.LOST))
        return int(moved)

    async def _reschedule(self) -> None:
        """See that nothing waits for a time that is far off because the server's clock went back, or may have before.

        Nothing is due later than its delay from now on, and what a dead router had in hand is idle from now on.
        """
        await self._writing.script(REDATE, [self._stream], [GROUP])
        passed, longest = 0, round(LONGEST_ASKED * 1000)
        while (seen := await self._writing.script(RESCHEDULE, [self._later], [passed, MOVES, longest])) > 0:
            passed += seen
        self._server_time.went_back = False

    def _write_book(self) -> None:
        """Make the shared book say what Redis says."""
        book = self.shared_book
        book.degraded = self._book.degraded
        kinds = {"dead_lettered": book.dead_lettered, "dropped": book.dropped, "suppressed": book.suppressed}
        for name, number in self._counters.items():
            outcome, _, reason = name.partition(":")
            if outcome in kinds and reason in _REASONS:
                kinds[outcome][Reason(reason)] = number
            elif name in _COUNTERS:
                setattr(book, name, number)

    async def _renew(self) -> None:
        """Say that what is in hand is in good hands; forget what Redis says is in a peer's, or was."""
        began, losses = self._clock.monotonic(), self._losses_now()
        waiting = {event._receipt for bundle in self._bundles for event in bundle.events}
        ours = set(await self._writing.script(RENEW, [self._stream], [GROUP, self._consumer, 0, -1, *self._unreadable]))
        missing = waiting - ours - self._lost
        if missing:
            await self._judge(list(missing))
        self._renewed_at, self._losses = began, losses

    async def _judge(self, missing: list[bytes]) -> None:
        """Find out what became of entries that are ready here and not ours any more.

        As long as the books miss nothing, whatever left the queue was settled by somebody. Else it may just as well be
        what was lost, and only an entry that is pending for another router is not delivered from here.
        """
        await self._tick()
        gone = set(missing)
        if self._losses_now() != self._losses:
            words: list[Word] = [GROUP, self._consumer, -1, 0, *missing]
            states = await self._writing.script(CLAIM, [self._stream], words)
            gone = {entry for entry, state in zip(missing, states, strict=True) if state == OF_ANOTHER}
            self._lost.update(set(missing) - gone)
        if gone:
            self._forget(gone)

    def _losses_now(self) -> tuple[str, int]:
        """What tells whether anything vanished from the queue since the books were last read: another value."""
        return self._epoch, self._counters.get(f"{Outcome.DROPPED.value}:{Reason.LOST.value}", 0)

    def _forget(self, gone: set[bytes]) -> None:
        """A peer took these over while this router slept: they are not to be delivered from here."""
        kept: deque[_Bundle] = deque()
        for bundle in self._bundles:
            events = [event for event in bundle.events if event._receipt not in gone]
            if events:
                kept.append(_Bundle(events, bundle.count))
        self._bundles = kept
        self._ready = sum(len(bundle.events) for bundle in kept)
        self._let_go(list(gone))
        self._room.set()

    async def _renew_overdue(self) -> None:
        """Nothing was renewed for so long that a peer may have taken over what is ready: ask before it is delivered."""
        backoff = self._new_backoff()
        while True:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001  # a worker waits for it, and must not end by it
                self._broken(error, "keep")
                await asyncio.sleep(backoff.next())
            else:
                return

    # Faults.

    def _new_backoff(self) -> Backoff:
        return Backoff(self._timing.first_delay, self._timing.longest_delay)

    def _broken(self, error: BaseException, who: str) -> None:
        reason = str(client.explain(error, self._server.shown))
        self._outage.failed(reason, who)
        if self._told.failed(reason, self._named(who), ended=isinstance(error, failures.ConnectionError)):
            log.warning("queues in Redis can't be used; trying on", reason=reason)

    def _named(self, who: str) -> str:
        return f"{who} {self._sink}"

    def _mended(self, who: str) -> None:
        self._outage.succeeded(who)
        seconds = self._told.succeeded(self._named(who))
        if seconds is not None:
            log.info("queues in Redis are used again", outage_seconds=round(seconds, 3))
