"""Deliveries of sources with acknowledgements (streams, lists), on their way to Redis queues; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.broker.queues.inbox import Inbox, framed
from router.broker.server.link import Word
from router.broker.server.outbox import Batch
from router.contracts import Receipt
from router.core.accounts.records import pack
from router.errors import Reason
from router.events import Event

BATCH = 500
"""The largest number of deliveries in one batch."""

BATCH_BYTES = 1024**2
"""The largest number of bytes in one script call. A larger entry is sent alone."""

Entry = list[tuple[Inbox, Event]]
"""The deliveries of one entry of a source, each with the inbox of its queue."""


class EntryCargo:
    """The waiting deliveries of one source. Implements `outbox.Cargo`.

    If a full queue pauses its sources (`when_full: block`), an entry for this queue and all later entries wait. If the
    source is in the same Redis, one script enqueues the deliveries of an entry and acknowledges the entry, in one step.
    `say` logs a warning, at most once a minute for each subject.
    """

    def __init__(self, frame: tuple[str, str], source: str, say: Callable[..., None]) -> None:
        self._frame = frame
        self._source = source
        self._say = say
        # The pipeline enqueues the deliveries of an entry sink by sink. They are collected here, by receipt and position.
        self._entries: dict[tuple[int, int], Entry] = {}
        self._batch: list[Entry] = []
        self._inboxes: list[Inbox] = []
        self._ends: list[Callable[[Event, int], None]] = []

    def put(self, inbox: Inbox, events: Sequence[Event]) -> None:
        """Add deliveries. The number of deliveries is bounded, because the source limits its entries in flight."""
        entries = self._entries
        for event in events:
            entries.setdefault((id(event._receipt), event._position), []).append((inbox, event))
        inbox.book.on_their_way += len(events)

    def next_batch(self) -> Batch | None:
        """Implements `outbox.Cargo`."""
        batch: list[Entry] = []
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
        self._batch, self._ends = batch, []
        return self._packed(batch) if batch else None

    def _packed(self, batch: list[Entry]) -> Batch:
        ways = list({(inbox, event.route): None for deliveries in batch for inbox, event in deliveries})
        self._inboxes = list({inbox: None for inbox, _ in ways})
        words: list[Word] = []
        for inbox in self._inboxes:
            words += (*inbox.bounds, 0)
        words.append(len(ways))
        for inbox, route in ways:
            words += (self._inboxes.index(inbox) + 1, f"{route}:{inbox.sink}")
        numbers = {way: number for number, way in enumerate(ways, 1)}
        for deliveries in batch:
            words += self._removal(deliveries[0][1], len(deliveries))
            words.append(len(deliveries))
            for inbox, event in deliveries:
                words += (numbers[inbox, event.route], pack([event], inbox.overriding)[0])
        return framed(self._frame, self._inboxes, words)

    def _removal(self, event: Event, deliveries: int) -> tuple[Word, ...]:
        """Return the script's arguments that describe how to change the entry of `event`.

        Also append to `_ends` the function that will inform the receipt of the event.
        """
        receipt: Receipt = event._receipt
        position = event._position
        removal = receipt.removal(position, whole=receipt.open(position) == deliveries)
        self._ends.append(_settled if removal is None else _ENDS[removal.kind])
        return removal or ("", "", "", "", "")

    def taken(self, answer: bytes) -> bool:
        """Implements `outbox.Cargo`."""
        done, stuck, *said = answer.split()
        number = int(done)
        processed, rest = self._batch[:number], self._batch[number:]
        others, before = self._read(said)
        for place, (deliveries, end) in enumerate(zip(processed, self._ends, strict=False), 1):
            for delivery, (inbox, _) in enumerate(deliveries, 1):
                inbox.book.on_their_way -= 1
                if place in others or (place, delivery) in before:
                    inbox.book.left += 1
                else:
                    inbox.book.accepted += 1
            end(deliveries[0][1], len(deliveries))
        if rest and int(stuck):
            sink = self._inboxes[int(stuck) - 1].sink
            self._say("the queue is full: the sources of its events are paused", sink, sink=sink)
            if not processed:
                return True
        self._batch = []
        self._put_back(rest)
        return False

    def _put_back(self, rest: list[Entry]) -> None:
        """Put entries at the front of the next batch.

        If a reload has moved another sink to Redis in the meantime, `put` may have collected more deliveries of these
        entries. These deliveries come after the deliveries that are put back.
        """
        fresh, self._entries = self._entries, {}
        for deliveries in rest:
            event = deliveries[0][1]
            entry = id(event._receipt), event._position
            self._entries[entry] = [*deliveries, *fresh.pop(entry, ())]
        self._entries |= fresh

    def _read(self, said: list[bytes]) -> tuple[set[int], set[tuple[int, int]]]:
        """Handle the script's notes on single entries and deliveries (see `APPEND_ENTRIES`).

        Returns two sets that this router must not count as accepted: the entries that another router has claimed, and
        the deliveries that were enqueued before.
        """
        others: set[int] = set()
        before: set[tuple[int, int]] = set()
        for part in said:
            entry, what, *delivery = part.split(b"/")
            place = int(entry)
            event = self._batch[place - 1][0][1]
            if what == b"other":
                others.add(place)
                event._receipt.taken_over(event._position)
            elif what == b"gone":
                event._receipt.gone(event._position)
                self._ends[place - 1] = _marked
            elif what == b"before":
                before.add((place, int(delivery[0])))
            else:
                inbox, dropped = self._batch[place - 1][int(delivery[0]) - 1]
                inbox.dropped([dropped], [dropped.channel], Reason.FULL)
        if others:
            message = "entries were not enqueued here: another router has claimed them and delivers them"
            self._say(message, self._source, source=self._source, number=len(others))
        return others, before

    def lost(self) -> dict[str, int]:
        """Return no losses, because entries that are not enqueued stay pending in their source."""
        return {}


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
    "xdel": _handed_over,
    "mark": _marked,
}
