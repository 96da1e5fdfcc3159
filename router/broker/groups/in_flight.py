"""The entries of a consumer group that are in flight, and the receipts that report when an entry is complete; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from router.contracts import Removal
from router.core.accounts.acks import Ledger
from router.core.delivery.claims import parse

Entry = tuple[bytes, list[bytes]]
"""An entry of a stream: its id, and a list with each field followed by its value."""


class Names(NamedTuple):
    """The names under which the entries of one stream are read and acknowledged."""

    key: bytes
    group: str
    consumer: str
    """The name of this router in the group. It stays the same after a restart."""
    marks: str | None = None
    """The key of the hash with a mark for each partly enqueued entry; None if the stream is not in the router's own
    Redis. Marks need one script that enqueues deliveries and acknowledges their entry, so queue and stream must be in
    the same Redis."""
    own: bool = False
    """True if the router created the stream for a list. Then one step acknowledges and deletes an entry, and no
    producer trims the stream."""


class InFlight:
    """The entries of one stream that were read and are not acknowledged.

    `on_complete` is called after entries have become complete, once per turn of the event loop. `undisputed` is called
    with the time (monotonic seconds) at which entries were last read or renewed. `undisputed` returns False if another
    router may have claimed these entries since that time.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.on_complete: Callable[[], None] = lambda: None
        self.undisputed: Callable[[float], bool] = lambda _since: False
        self.batches: set[Entries] = set()
        """The batches in which some entries are not complete."""
        self.done: list[bytes] = []
        """Complete entries that are not acknowledged yet."""
        self.sent: list[bytes] = []
        """Complete entries with an acknowledgement that was sent and is not confirmed yet."""
        self.marks: dict[bytes, bytes] = {}
        """The mark of each partly enqueued entry. A mark is a field of the hash of marks, and is removed together with
        the acknowledgement."""
        self.stale: list[bytes] = []
        """Marks to be removed without an acknowledgement, because the stream of their entries is gone."""
        self.returned: list[bytes] = []
        """Recovered entries with finished attempts: their delivery counts are to be reset."""
        self.predecessors: list[InFlight] = []
        """The entries of the same stream that are still in flight at older sources. Reloads have replaced these sources
        by this one."""
        self.orphans: list[bytes] = []
        """Entries in flight that the recreated group will not deliver. They must be made pending in the recreated
        group."""
        self.replayed: bytes | None = None
        """The id up to which the recreated group repeats entries, which may be in flight here; None if the group
        repeats no entry."""
        self.possibly_repeated = 0
        """The number of entries that this router completed and that another router may have delivered too."""
        self._may_notify = True

    def mark(self, entry: bytes) -> bytes:
        """Return the field that marks an entry as enqueued.

        The field contains the group, because other groups may read the stream too.
        """
        return b" ".join((self.names.key, self.names.group.encode(), entry))

    def expect_marks(self, ids: Iterable[bytes]) -> None:
        """Request that the marks of these entries are removed when the entries are acknowledged.

        A router that has ended may have marked these entries. Usually, this router learns of a mark when a script
        enqueues the deliveries of the entry. No script does this if no sink has a Redis queue any more, or if the
        entry is given up.
        """
        if self.names.marks is not None:
            self.marks |= {entry: self.mark(entry) for entry in ids}

    @property
    def unsettled(self) -> int:
        """The number of entries that are not complete."""
        return sum([batch.left for batch in self.batches])

    @property
    def unacknowledged(self) -> int:
        """The number of entries that are complete and not acknowledged."""
        return len(self.done) + len(self.sent)

    def open(self) -> list[bytes]:
        """Return the ids of the entries that are not complete."""
        return [one for batch in self.batches for one in batch.ids if one]

    def all(self) -> set[bytes]:
        """Return the ids of all entries that are not acknowledged, including the entries of replaced sources.

        Call this method only after the replaced sources have stopped reading.
        """
        in_flight = {*self.open(), *self.done, *self.sent}
        for predecessor in list(self.predecessors):
            left = {*predecessor.open(), *predecessor.done, *predecessor.sent}
            if not left:
                self.predecessors.remove(predecessor)
            in_flight |= left
        return in_flight

    def fresh(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries that are not in flight already.

        A recreated group may deliver an entry in flight once more.
        """
        if self.replayed is None:
            return entries
        if parse(entries[-1][0]) >= parse(self.replayed):
            self.replayed = None
        in_flight = self.all()
        return [entry for entry in entries if entry[0] not in in_flight]

    def forget(self) -> None:
        """Acknowledge none of the entries in flight, because their stream is gone."""
        for batch in self.batches:
            batch.disown()
        self.batches = set()
        self.done, self.sent, self.returned = [], [], []
        self.stale += self.marks.values()
        self.marks = {}
        self.replayed = None
        self.orphans = []

    def resumed(self, begins: bytes, last: bytes) -> None:
        """Record that the group was created again and delivers the entries after `begins`.

        Entries in flight up to `begins` become orphans. `last` is the last entry that was delivered to this router.
        """
        self.orphans = []
        for in_flight in (self, *self.predecessors):
            self.orphans += [one for one in in_flight.open() if parse(one) <= parse(begins)]
        self.replayed = last if parse(begins) < parse(last) else None

    def adopted(self, number: int) -> None:
        """Record that the first `number` orphans are pending again.

        Acknowledge the orphans that are complete by now.
        """
        chunk, self.orphans = self.orphans[:number], self.orphans[number:]
        still = {one for in_flight in (self, *self.predecessors) for one in in_flight.open()}
        over = [one for one in chunk if one not in still]
        if over:
            self.complete(over)

    def notify(self) -> None:
        """Call `on_complete` in the next turn of the event loop."""
        if self._may_notify:
            self._may_notify = False
            asyncio.get_running_loop().call_soon(self._notified)

    def complete(self, ids: Iterable[bytes]) -> None:
        """Request that these entries are acknowledged, because all their deliveries are settled or stored."""
        self.done += ids
        self.notify()

    def _notified(self) -> None:
        self._may_notify = True
        self.on_complete()


class Entries:
    """The receipt of entries that were read together. Implements `contracts.Receipt`.

    `ids` are the ids of the entries, by position. The id of an entry becomes empty when the entry is complete, or when another
    router has claimed it.
    """

    __slots__ = ("_doubtful", "_former", "_in_flight", "_ledger", "ids", "since")

    def __init__(self, in_flight: InFlight, ids: list[bytes], since: float) -> None:
        self.ids = ids
        self.since = since
        """The time (monotonic seconds) of the last read or renewal. At that time the entries were pending for this
        router."""
        self._in_flight: InFlight | None = in_flight
        self._former = in_flight
        self._ledger = Ledger(len(ids))
        self._doubtful: set[int] | None = None
        in_flight.batches.add(self)

    @property
    def left(self) -> int:
        """The number of entries that are not complete."""
        return self._ledger.left

    def expect(self, position: int, deliveries: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.expect(position, deliveries):
            self._complete(position)

    def add(self, position: int, deliveries: int) -> None:
        """Implements `contracts.Receipt`."""
        self._ledger.add(position, deliveries)

    def settle(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._complete(position)

    def returned(self, position: int) -> None:
        """Implements `contracts.Receipt`. Does nothing, because these entries are delivered for the first time."""

    def open(self, position: int) -> int:
        """Implements `contracts.Receipt`."""
        return self._ledger.open(position)

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Implements `contracts.Receipt`."""
        in_flight = self._in_flight
        if in_flight is None or in_flight.names.marks is None or not self.ids[position]:
            return None
        names = in_flight.names
        kind: Literal["xack", "xdel", "mark"] = "mark" if not whole else "xdel" if names.own else "xack"
        return Removal(kind, names.key, names.group, self.ids[position], names.consumer)

    def handed_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._complete(position, acknowledged=True)

    def gone(self, position: int) -> None:
        """Implements `contracts.Receipt`.

        If the last renewal is not recent enough, record that another router may have delivered the entry too.
        """
        if self._in_flight is not None and not self._in_flight.undisputed(self.since):
            self.doubt(position)

    def doubt(self, position: int) -> None:
        """Record that another router may deliver the entry too, or may have delivered it."""
        self._doubtful = {position} if self._doubtful is None else self._doubtful | {position}

    def taken_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        self._unmark(self.ids[position])
        self.ids[position] = b""
        if self._doubtful is not None:
            self._doubtful.discard(position)

    def marked(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        in_flight, entry = self._in_flight, self.ids[position]
        if not entry:  # another router has claimed the entry, so the mark belongs to that router
            return
        if in_flight is None:
            self._former.stale.append(self._former.mark(entry))
        else:
            in_flight.marks[entry] = in_flight.mark(entry)

    def _unmark(self, entry: bytes) -> None:
        """Forget the mark of an entry.

        The mark was removed with the acknowledgement, or belongs to another router now.
        """
        if self._in_flight is not None:
            self._in_flight.marks.pop(entry, None)

    def disown(self) -> None:
        """Acknowledge none of these entries from now on, because their stream is gone."""
        self._in_flight = None

    def _complete(self, position: int, *, acknowledged: bool = False) -> None:
        in_flight = self._in_flight
        if in_flight is None:
            return
        entry = self.ids[position]
        if acknowledged:
            self._unmark(entry)
        elif entry:
            in_flight.done.append(entry)
        if self._doubtful is not None and position in self._doubtful:
            in_flight.possibly_repeated += 1
        self.ids[position] = b""
        if not self._ledger.left:
            in_flight.batches.discard(self)
        in_flight.notify()


class Recovered(Entries):
    """The receipt of recovered entries.

    `tried` is set when every delivery of every entry has had one finished attempt.
    """

    __slots__ = ("_untried", "tried")

    def __init__(self, in_flight: InFlight, ids: list[bytes], since: float) -> None:
        super().__init__(in_flight, ids, since)
        in_flight.expect_marks(ids)
        self.tried = asyncio.Event()
        self._untried = [1] * len(ids)

    def expect(self, position: int, deliveries: int) -> None:
        """Implements `contracts.Receipt`."""
        self._untried[position] = deliveries
        super().expect(position, deliveries)
        self._look()

    def settle(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        super().settle(position)
        self._came_back(position)

    def handed_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        super().handed_over(position)
        self._came_back(position)

    def returned(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        self._came_back(position)

    def _came_back(self, position: int) -> None:
        if not self._untried[position]:
            return
        self._untried[position] -= 1
        if not self._untried[position] and self._in_flight is not None and self.ids[position]:
            self._in_flight.returned.append(self.ids[position])
            self._in_flight.notify()
        self._look()

    def _look(self) -> None:
        if not any(self._untried):
            self.tried.set()
