"""Hands deliveries over to the Redis queues: in batches, one script call each, behind the pipeline's back; floor 5.

Every source has a lane of its own, so that one whose queue is full holds back nobody else. A batch whose answer was lost
is sent again under its number, and the script appends it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import structlog

from router.broker.queues.queue_scripts import APPEND, APPEND_ENTRIES
from router.broker.server import client, keys
from router.broker.server.client import Backoff, Server
from router.broker.server.link import COMMAND, Link, Script, Word, cancelled
from router.broker.server.outage import Outage
from router.config.models import QueueConfig
from router.contracts import Clock, Receipt, Sign
from router.core.accounts.books import SinkBook
from router.core.accounts.records import Reader, UnknownRecordError, pack
from router.engine.delivery import delivery_log
from router.engine.log_limits import LogLimits
from router.errors import Reason
from router.events import Event, Outcome

log = structlog.stdlib.get_logger(__name__)

BATCH = 500
"""Deliveries that one script call appends at most."""

FLOOD = 5_000
"""The same for what was published: one turn of the event loop may read thousands of events, and brings one answer."""

BATCH_BYTES = 1024**2
"""Bytes that one script call carries at most; a larger one travels alone."""


class Inbox:
    """What is on its way to the Redis queue of one sink. `put` is where the pipeline hands it in."""

    def __init__(
        self,
        sink: str,
        config: QueueConfig,
        *,
        book: SinkBook,
        handover: Handover,
        overriding: AbstractSet[str] = frozenset(),
    ) -> None:
        self.sink = sink
        self.book = book
        self.bounds = (0, 0, 0)
        self._handover = handover
        self.configure(config, overriding)

    def configure(self, config: QueueConfig, overriding: AbstractSet[str]) -> None:
        """Take other bounds, and other routes that override, from the next batch on."""
        self.bounds = (config.max_events, config.max_bytes, int(config.when_full != "block"))
        self.overriding = overriding

    def put(self, events: list[Event], size: int) -> None:
        """Take deliveries of one source. Never waits."""
        self._handover.put(self, events, size)

    @property
    def waiting(self) -> int:
        """Deliveries that are not in Redis yet."""
        return self.book.on_their_way

    def count(self) -> int:
        """Return how many deliveries are not in Redis yet."""
        return self.book.on_their_way


class Handover:
    """Appends what the pipeline hands in, to the queues of all sinks.

    While Redis refuses writes the deliveries wait in memory. Of sources that can't be held back `buffer_bytes` may wait;
    what comes on top is dropped (reason `outage`).
    """

    def __init__(
        self,
        server: Server,
        *,
        prefix: str,
        clock: Clock,
        buffer_bytes: int,
        first_delay: float = 0.05,
        longest_delay: float = 2.0,
        told: Outage | None = None,
    ) -> None:
        self.buffer_bytes = buffer_bytes
        self.waiting_bytes = 0
        """Bytes of the records of pub/sub sources that wait; what Python needs around them comes to less than half of that."""
        self.server = server
        self.prefix = prefix
        self.clock = clock
        self.notes = LogLimits(log, clock)
        self._delays = first_delay, longest_delay
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._outage = Outage(clock)
        self._told = told or Outage(clock)

    @property
    def reason(self) -> str | None:
        """Why deliveries can't be handed over; None while they can."""
        return self._outage.reason

    def inbox(
        self, sink: str, config: QueueConfig, book: SinkBook, overriding: AbstractSet[str] = frozenset()
    ) -> Inbox:
        """Where the deliveries of a sink are handed in. `overriding` are the routes that replace its options."""
        return Inbox(sink, config, book=book, handover=self, overriding=overriding)

    def put(self, inbox: Inbox, events: list[Event], size: int) -> None:
        """Take deliveries of one source, bound for one sink."""
        first = events[0]
        # What a sink hands over to another comes under its source's name, but is waited for as if it were acknowledged.
        name = first.source, first._receipt is None
        lane = self._lanes.get(name)
        if lane is None:
            kind = _PlainLane if first._receipt is None else _AcknowledgedLane
            lane = self._lanes[name] = kind(self, first.source)
        lane.put(inbox, events, size)

    async def close(self, patience: float) -> dict[str, int]:
        """Hand over what waits, for `patience` seconds at most, and end; returns what is lost, by sink."""
        lanes = list(self._lanes.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for lane in lanes:
                    await lane.idle.wait()
        lost: dict[str, int] = {}
        for lane in lanes:
            for sink, number in (await lane.close()).items():
                lost[sink] = lost.get(sink, 0) + number
        self._lanes.clear()
        return lost

    def signs(self) -> list[Sign]:
        """What it is at, of each source."""
        return [sign for lane in self._lanes.values() for sign in lane.signs()]

    def backoff(self) -> Backoff:
        """Delays between two tries."""
        return Backoff(*self._delays)

    def refused(self, error: BaseException, lane: str) -> None:
        """Redis did not take a batch of a lane, told by its guard."""
        reason = str(client.explain(error, self.server.shown))
        self._outage.failed(reason, lane)
        if self._told.failed(reason, f"lane {lane}"):
            log.error("deliveries can't be queued in Redis; they wait in memory", reason=reason)

    def accepted(self, lane: str) -> None:
        """Redis took a batch of a lane."""
        self._outage.succeeded(lane)
        seconds = self._told.succeeded(f"lane {lane}")
        if seconds is not None:
            log.warning("deliveries are queued in Redis again", outage_seconds=round(seconds, 3))


class _Lane:
    """What one source hands over: batch after batch, in order."""

    script: Script

    def __init__(self, handover: Handover, source: str) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._handover = handover
        self._source = source
        self._link = Link(handover.server)
        self._guard = keys.hand_over(handover.prefix, os.urandom(8).hex())
        self._number = 0
        self._wake = asyncio.Event()
        self._inboxes: list[Inbox] = []
        self._words: list[Word] = []
        self._task = asyncio.create_task(self._run(), name=f"hand over {source}")

    def put(self, inbox: Inbox, events: list[Event], size: int) -> None:
        """Take deliveries."""
        raise NotImplementedError

    def signs(self) -> Iterator[Sign]:
        """What it is at."""
        part = f"queueing of source {self._source}"
        yield Sign(part, COMMAND, self._link.since)
        if self._task.done():
            yield Sign(part, "its task has ended by itself", None, ended=True)

    async def close(self) -> dict[str, int]:
        """End; returns what is lost with this process, by sink."""
        await cancelled([self._task])
        await self._link.close()
        return self._lost()

    def _lost(self) -> dict[str, int]:
        return {}

    def _take(self) -> bool:
        """Make the next batch, `_inboxes` and `_words`; False when nothing waits."""
        raise NotImplementedError

    def _over(self, answer: bytes) -> bool:
        """The script has run; returns whether it is to be run again with the same batch."""
        raise NotImplementedError

    def _awake(self) -> None:
        self.idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._take():
                self._number += 1
                await self._send()
            self.idle.set()

    async def _send(self) -> None:
        """Send the batch until Redis has it."""
        handover, backoff = self._handover, self._handover.backoff()
        prefix = handover.prefix
        names = [self._guard]
        for inbox in self._inboxes:
            sink = inbox.sink
            names += (keys.queue(prefix, sink), keys.later(prefix, sink), keys.books(prefix, sink))
        names.append(keys.handed(prefix))
        words = [self._number, *self._words]
        while True:
            try:
                again = self._over(await self._link.script(self.script, names, words))
            except Exception as error:  # noqa: BLE001  # whatever it is, the batch waits and is sent again
                handover.refused(error, self._guard)
            else:
                handover.accepted(self._guard)
                if not again:
                    return
            await asyncio.sleep(backoff.next())


class _Chunk:
    """Records on their way to one queue, and the channel of each."""

    __slots__ = ("channels", "inbox", "records", "size")

    def __init__(self, inbox: Inbox, records: list[bytes], channels: list[str]) -> None:
        self.inbox = inbox
        self.records = records
        self.channels = channels
        self.size = sum(map(len, records))

    def add(self, other: _Chunk) -> None:
        """Append another one."""
        self.records += other.records
        self.channels += other.channels
        self.size += other.size

    def split(self, most: int, most_bytes: int, *, must: bool = False) -> tuple[_Chunk, _Chunk]:
        """The first ones that fit within both bounds, and the rest; at least one fits where it `must`."""
        size = fits = 0
        for record in self.records[:most]:
            size += len(record)
            if size > most_bytes and (fits or not must):
                break
            fits += 1
        rest = _Chunk(self.inbox, self.records[fits:], self.channels[fits:])
        return _Chunk(self.inbox, self.records[:fits], self.channels[:fits]), rest


class _PlainLane(_Lane):
    """Of a source that can't be held back (pub/sub): what has no room is dropped, by each queue on its own."""

    script = APPEND

    def __init__(self, handover: Handover, source: str) -> None:
        super().__init__(handover, source)
        self._chunks: deque[_Chunk] = deque()
        self._batch: dict[Inbox, _Chunk] = {}
        self._outages: dict[Inbox, int] = {}  # drops that the books in Redis do not know yet
        self._told: dict[Inbox, int] = {}

    def put(self, inbox: Inbox, events: list[Event], size: int) -> None:  # noqa: ARG002  # of payloads; records wait here
        # They wait as records: those take less than half the memory of events, and it is the same work sooner.
        chunk = _Chunk(inbox, pack(events, inbox.overriding), [event.channel for event in events])
        handover = self._handover
        if handover.waiting_bytes + chunk.size > handover.buffer_bytes:
            chunk, rest = chunk.split(len(events), handover.buffer_bytes - handover.waiting_bytes)
            self._drop(rest)
            if not chunk.records:
                return
        handover.waiting_bytes += chunk.size
        inbox.book.on_their_way += len(chunk.records)
        self._chunks.append(chunk)
        self._awake()

    def _drop(self, chunk: _Chunk) -> None:
        """Count what the outage buffer has no room for."""
        inbox, number = chunk.inbox, len(chunk.records)
        inbox.book.accepted += number
        inbox.book.drop(chunk.channels, Reason.OUTAGE)
        delivery_log.settled(_deliveries(inbox, chunk.records), Outcome.DROPPED, Reason.OUTAGE)
        self._outages[inbox] = self._outages.get(inbox, 0) + number
        message = "Redis takes no deliveries, or not fast enough, and the outage buffer is full: deliveries are dropped"
        self._handover.notes.say(message, inbox.sink, sink=inbox.sink, number=number, reason=str(Reason.OUTAGE))

    def _take(self) -> bool:
        batch: dict[Inbox, _Chunk] = {}
        count = total = 0
        chunks = self._chunks
        while chunks and count < FLOOD and total < BATCH_BYTES:
            chunk = chunks.popleft()
            if count + len(chunk.records) > FLOOD or total + chunk.size > BATCH_BYTES:
                chunk, rest = chunk.split(FLOOD - count, BATCH_BYTES - total, must=not count)
                if rest.records:
                    chunks.appendleft(rest)
                if not chunk.records:
                    break
            if chunk.inbox in batch:
                batch[chunk.inbox].add(chunk)
            else:
                batch[chunk.inbox] = chunk
            count += len(chunk.records)
            total += chunk.size
        self._batch = batch
        self._inboxes = list(batch)
        self._told = {inbox: self._outages.get(inbox, 0) for inbox in batch}
        words: list[Word] = []
        for inbox in batch:
            words += (*inbox.bounds, self._told[inbox])
        for chunk in batch.values():
            words.append(len(chunk.records))
            words += chunk.records
        self._words = words
        return bool(batch)

    def _over(self, answer: bytes) -> bool:
        for (inbox, chunk), kept in zip(self._batch.items(), answer.split(), strict=True):
            number = len(chunk.records)
            self._handover.waiting_bytes -= chunk.size
            inbox.book.on_their_way -= number
            inbox.book.accepted += number
            self._outages[inbox] = self._outages.get(inbox, 0) - self._told[inbox]
            dropped = chunk.channels[int(kept) :]
            if dropped:
                inbox.book.drop(dropped, Reason.FULL)
                delivery_log.settled(_deliveries(inbox, chunk.records[int(kept) :]), Outcome.DROPPED, Reason.FULL)
                message = "the queue is full: deliveries are dropped"
                self._handover.notes.say(
                    message, inbox.sink, sink=inbox.sink, number=len(dropped), reason=str(Reason.FULL)
                )
        self._batch, self._words = {}, []
        return False

    def _lost(self) -> dict[str, int]:
        lost: dict[str, int] = {}
        for chunk in (*self._batch.values(), *self._chunks):
            inbox, number = chunk.inbox, len(chunk.records)
            inbox.book.on_their_way -= number
            inbox.book.accepted += number
            inbox.book.drop(chunk.channels, Reason.SHUTDOWN)
            delivery_log.settled(_deliveries(inbox, chunk.records), Outcome.DROPPED, Reason.SHUTDOWN)
            lost[inbox.sink] = lost.get(inbox.sink, 0) + number
        self._chunks.clear()
        return lost


def _deliveries(inbox: Inbox, records: Sequence[bytes]) -> Iterator[Event]:
    """Read the deliveries that these records are, for the log alone: it must not fail for one that can't be read."""
    reader = Reader(inbox.sink)
    for record in records:
        with contextlib.suppress(UnknownRecordError):
            yield reader.read(record, None)[0]


class _AcknowledgedLane(_Lane):
    """Of a source that waits to hear of its entries: one that is handed over is over with, one without room waits.

    Where the source is in the same Redis, the script takes the entry from it in the same step.
    """

    script = APPEND_ENTRIES

    def __init__(self, handover: Handover, source: str) -> None:
        super().__init__(handover, source)
        # An entry's deliveries to several sinks come one after another: they are gathered by receipt and position.
        self._entries: dict[tuple[int, int], list[tuple[Inbox, Event]]] = {}
        self._batch: list[list[tuple[Inbox, Event]]] = []
        self._ends: list[Callable[[Event, int], None]] = []

    def put(self, inbox: Inbox, events: list[Event], size: int) -> None:  # noqa: ARG002  # its source bounds what waits
        entries = self._entries
        for event in events:
            entries.setdefault((id(event._receipt), event._position), []).append((inbox, event))
        inbox.book.on_their_way += len(events)
        self._awake()

    def _take(self) -> bool:
        batch: list[list[tuple[Inbox, Event]]] = []
        count = total = 0
        for deliveries in self._entries.values():
            size = sum([len(event.raw) for _, event in deliveries])
            if batch and (count + len(deliveries) > BATCH or total + size > BATCH_BYTES):
                break
            batch.append(deliveries)
            count += len(deliveries)
            total += size
        for deliveries in batch:
            event = deliveries[0][1]
            del self._entries[id(event._receipt), event._position]
        self._fill(batch)
        return bool(batch)

    def _fill(self, batch: list[list[tuple[Inbox, Event]]]) -> None:
        """Make the words of a batch."""
        self._batch, self._ends = batch, []
        numbers = {inbox: 0 for deliveries in batch for inbox, _ in deliveries}
        self._inboxes = list(numbers)
        words: list[Word] = []
        for number, inbox in enumerate(numbers, 1):
            numbers[inbox] = number
            words += (*inbox.bounds, 0)
        for deliveries in batch:
            words += self._removal(deliveries[0][1], len(deliveries))
            words.append(len(deliveries))
            for inbox, event in deliveries:
                words += (numbers[inbox], pack([event], inbox.overriding)[0])
        self._words = words

    def _removal(self, event: Event, deliveries: int) -> tuple[Word, ...]:
        """What the script does to the entry itself, and (in `_ends`) what its receipt hears then."""
        receipt: Receipt = event._receipt
        position = event._position
        removal = receipt.removal(position, whole=receipt.open(position) == deliveries)
        self._ends.append(_settled if removal is None else _ENDS[removal.kind])
        return removal or ("", "", "", "", "")

    def _over(self, answer: bytes) -> bool:
        done, stuck, *said = answer.split()
        number = int(done)
        over, rest = self._batch[:number], self._batch[number:]
        others, before = self._read(said)
        for place, (deliveries, end) in enumerate(zip(over, self._ends, strict=False), 1):
            event = deliveries[0][1]
            elsewhere = place in others or place in before
            for inbox, _ in deliveries:
                inbox.book.on_their_way -= 1
                if elsewhere:
                    inbox.book.left += 1
                else:
                    inbox.book.accepted += 1
            end(event, len(deliveries))
        if not rest:
            self._batch, self._words = [], []
            return False
        if int(stuck):
            sink = self._inboxes[int(stuck) - 1].sink
            self._handover.notes.say("the queue is full: its sources are held back", sink, sink=sink)
            if not over:
                return True
        self._entries = {(id(each[0][1]._receipt), each[0][1]._position): each for each in rest} | self._entries
        self._batch = []
        self._wake.set()
        return False

    def _read(self, said: list[bytes]) -> tuple[set[int], set[int]]:
        """Read what the script says of single entries; returns those of other routers, and those handed over before."""
        others: set[int] = set()
        before: set[int] = set()
        for part in said:
            entry, _, what = part.partition(b"/")
            place = int(entry)
            event = self._batch[place - 1][0][1]
            if what == b"other":
                others.add(place)
                event._receipt.taken_over(event._position)
            elif what == b"before":
                before.add(place)
            elif what == b"gone":
                event._receipt.gone(event._position)
                self._ends[place - 1] = _marked
            else:
                self._count_drop(self._batch[place - 1], self._inboxes[int(what) - 1])
        if others:
            message = "not queued here: Redis says that another router has taken these entries over"
            self._handover.notes.say(message, self._source, source=self._source, number=len(others))
        return others, before

    def _count_drop(self, deliveries: list[tuple[Inbox, Event]], inbox: Inbox) -> None:
        event = next(event for each, event in deliveries if each is inbox)
        inbox.book.drop([event.channel], Reason.FULL)
        delivery_log.settled([event], Outcome.DROPPED, Reason.FULL)
        message = "the queue is full: deliveries are dropped"
        self._handover.notes.say(message, inbox.sink, sink=inbox.sink, reason=str(Reason.FULL))


def _settled(event: Event, deliveries: int) -> None:
    for _ in range(deliveries):
        event._receipt.settle(event._position)


def _handed_over(event: Event, deliveries: int) -> None:
    for _ in range(deliveries):
        event._receipt.handed_over(event._position)


def _marked(event: Event, deliveries: int) -> None:
    event._receipt.marked(event._position)
    _settled(event, deliveries)


_ENDS: dict[str, Callable[[Event, int], None]] = {
    "xack": _handed_over,
    "lrem": _handed_over,
    "mark": _marked,
    "half": _marked,
    "none": _settled,
}
