"""Deliveries of pub/sub sources on their way to Redis queues. Pub/sub sources can't be paused; floor 4."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence

from router.broker.queues.inbox import Inbox, framed
from router.broker.server.link import Word
from router.broker.server.outbox import Batch, Buffer
from router.core.accounts.records import Reader, UnknownRecordError, pack
from router.errors import Reason
from router.events import Event

FLOOD = 5_000
"""The largest number of deliveries in one batch. In a burst, one turn of the event loop may read thousands of events."""

BATCH_BYTES = 1024**2
"""The largest number of bytes in one script call. A larger record is sent alone."""


class _Chunk:
    """Records for one queue, and the channel of each."""

    __slots__ = ("channels", "inbox", "records", "size")

    def __init__(self, inbox: Inbox, records: list[bytes], channels: list[str]) -> None:
        self.inbox = inbox
        self.records = records
        self.channels = channels
        self.size = sum(map(len, records))

    def add(self, other: _Chunk) -> None:
        """Append another chunk for the same queue."""
        self.records += other.records
        self.channels += other.channels
        self.size += other.size

    def split(self, most: int, most_bytes: int, *, must: bool = False) -> tuple[_Chunk, _Chunk]:
        """Return two chunks: the first records (at most `most` records and `most_bytes` bytes), and the rest.

        If `must` is True, the first chunk has at least one record.
        """
        size = fits = 0
        for record in self.records[:most]:
            size += len(record)
            if size > most_bytes and (fits or not must):
                break
            fits += 1
        rest = _Chunk(self.inbox, self.records[fits:], self.channels[fits:])
        return _Chunk(self.inbox, self.records[:fits], self.channels[:fits]), rest

    def deliveries(self, first: int = 0) -> Iterator[Event]:
        """Yield the deliveries from index `first` on, to report them as dropped; skip records that can't be read."""
        reader = Reader(self.inbox.sink)
        for record in self.records[first:]:
            with contextlib.suppress(UnknownRecordError):
                yield reader.read(record, None)[0]

    def over(self) -> int:
        """Count the deliveries as accepted, and no longer as on their way; return their number."""
        number, book = len(self.records), self.inbox.book
        book.on_their_way -= number
        book.accepted += number
        return number


class PublishedCargo:
    """The waiting deliveries of one pub/sub source. Implements `outbox.Cargo`.

    Deliveries are dropped if the outage `buffer` is full, or if their queue is full.
    """

    def __init__(self, frame: tuple[str, str], buffer: Buffer) -> None:
        self._frame = frame
        self._buffer = buffer
        self._chunks: deque[_Chunk] = deque()
        self._batch: dict[Inbox, _Chunk] = {}
        self._outages: dict[Inbox, int] = {}  # drops because of an outage that are not in the books in Redis yet
        self._reported: dict[Inbox, int] = {}  # the share of `_outages` that the current batch reports

    def put(self, inbox: Inbox, events: Sequence[Event]) -> None:
        """Store deliveries until they are sent.

        They are stored as packed records, which need less than half of the memory.
        """
        chunk = _Chunk(inbox, pack(events, inbox.overriding), [event.channel for event in events])
        if self._buffer.used + chunk.size > self._buffer.limit:
            chunk, rest = chunk.split(len(events), self._buffer.limit - self._buffer.used)
            inbox.book.accepted += len(rest.records)
            inbox.dropped(rest.deliveries(), rest.channels, Reason.OUTAGE)
            self._outages[inbox] = self._outages.get(inbox, 0) + len(rest.records)
            if not chunk.records:
                return
        self._buffer.used += chunk.size
        inbox.book.on_their_way += len(chunk.records)
        self._chunks.append(chunk)

    def next_batch(self) -> Batch | None:
        """Implements `outbox.Cargo`."""
        batch = self._batch = self._next_chunks()
        if not batch:
            return None
        self._reported = {inbox: self._outages.get(inbox, 0) for inbox in batch}
        words: list[Word] = []
        for inbox in batch:
            words += (*inbox.bounds, self._reported[inbox])
        for chunk in batch.values():
            words.append(len(chunk.records))
            words += chunk.records
        return framed(self._frame, batch, words)

    def _next_chunks(self) -> dict[Inbox, _Chunk]:
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
        return batch

    def taken(self, answer: bytes) -> bool:
        """Implements `outbox.Cargo`."""
        for (inbox, chunk), kept in zip(self._batch.items(), map(int, answer.split()), strict=True):
            self._buffer.used -= chunk.size
            self._outages[inbox] = self._outages.get(inbox, 0) - self._reported[inbox]
            if kept < chunk.over():
                inbox.dropped(chunk.deliveries(kept), chunk.channels[kept:], Reason.FULL)
        self._batch = {}
        return False

    def lost(self) -> dict[str, int]:
        """At the end of the process, count the waiting deliveries as dropped; return their number by sink."""
        lost: dict[str, int] = {}
        for chunk in (*self._batch.values(), *self._chunks):
            number, inbox = chunk.over(), chunk.inbox
            inbox.dropped(chunk.deliveries(), chunk.channels, Reason.SHUTDOWN)
            lost[inbox.sink] = lost.get(inbox.sink, 0) + number
        self._batch = {}
        self._chunks.clear()
        return lost
