"""The entries of a consumer group that are in hand, and the receipts that say when an entry is over; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from router.contracts import Removal
from router.core.accounts.acks import Ledger
from router.core.delivery.claims import parse

Entry = tuple[bytes, list[bytes]]
"""An entry as it stands in a stream: its id; field, value, field, value …"""


class Names(NamedTuple):
    """The names under which the entries of one stream are read and acknowledged."""

    key: bytes
    group: str
    consumer: str
    """Our name in the group, the same after a restart."""
    marks: str | None = None
    """The hash of entries handed over in part, where the stream is in the router's own Redis: there a script may acknowledge
    what it hands over."""
    own: bool = False
    """Whether the stream is the router's own: an entry is deleted in the step that acknowledges it, so that the stream holds
    nothing that is over, and nobody trims it."""


class InFlight:
    """The entries of one stream that were read and are not acknowledged.

    `awake` is called, once per turn of the event loop, when something became complete. `undisputed` says whether nobody can
    have taken over what came into our hand at a time (monotonic seconds).
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.awake: Callable[[], None] = lambda: None
        self.undisputed: Callable[[float], bool] = lambda _since: False
        self.batches: set[Entries] = set()
        """Those with entries that are not complete."""
        self.done: list[bytes] = []
        """Complete, to be acknowledged."""
        self.sent: list[bytes] = []
        """Complete, the acknowledgement not confirmed."""
        self.marks: dict[bytes, bytes] = {}
        """Entries marked as handed over in part: the field of the hash of marks to be removed with the acknowledgement."""
        self.stale: list[bytes] = []
        """Such fields that nothing is acknowledged with any more."""
        self.returned: list[bytes] = []
        """Recovered entries whose attempt came back, to be tried again: their count is to be set back."""
        self.elders: list[InFlight] = []
        """The same stream in the hands of sources that this one replaces, as long as there is anything in them."""
        self.orphans: list[bytes] = []
        """Entries in hand that a group made anew does not know, and does not bring either: they are to be made pending."""
        self.replayed: bytes | None = None
        """Up to this id the group, made anew, brings entries again that may be in hand; None: it does not."""
        self.possibly_repeated = 0
        """Entries that came to an end here, and that another router may have had too."""
        self._asleep = True

    def mark(self, entry: bytes) -> bytes:
        """Return the field that marks an entry as handed over. Others may read the stream, by other groups too."""
        return b" ".join((self.names.key, self.names.group.encode(), entry))

    def expect_marks(self, ids: Iterable[bytes]) -> None:
        """Remove the marks of these entries when they are acknowledged: a router that ended may have marked them.

        Where no sink has a queue in Redis any more, or an entry is given up, no script says that there is a mark.
        """
        if self.names.marks is not None:
            self.marks |= {entry: self.mark(entry) for entry in ids}

    @property
    def unsettled(self) -> int:
        """Entries that are not complete."""
        return sum([batch.left for batch in self.batches])

    @property
    def unacknowledged(self) -> int:
        """Entries that are complete and not acknowledged."""
        return len(self.done) + len(self.sent)

    def open(self) -> list[bytes]:
        """The entries that are not complete."""
        return [one for batch in self.batches for one in batch.ids if one]

    def all(self) -> set[bytes]:
        """Everything that is not acknowledged. The sources that this one replaces have stopped by then."""
        hand = {*self.open(), *self.done, *self.sent}
        for elder in list(self.elders):
            left = {*elder.open(), *elder.done, *elder.sent}
            if not left:
                self.elders.remove(elder)
            hand |= left
        return hand

    def fresh(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what a group that was made anew brings again while it is in hand."""
        if self.replayed is None:
            return entries
        if parse(entries[-1][0]) >= parse(self.replayed):
            self.replayed = None
        hand = self.all()
        return [entry for entry in entries if entry[0] not in hand]

    def forget(self) -> None:
        """Acknowledge nothing of what is in hand: its stream is gone."""
        for batch in self.batches:
            batch.disown()
        self.batches = set()
        self.done, self.sent, self.returned = [], [], []
        self.stale += self.marks.values()
        self.marks = {}
        self.replayed = None
        self.orphans = []

    def resumed(self, begins: bytes, last: bytes) -> None:
        """The group was made anew and brings what comes after `begins`: what is in hand and is not that is an orphan.

        `last` is the last entry that was delivered to us.
        """
        self.orphans = []
        for hand in (self, *self.elders):
            self.orphans += [one for one in hand.open() if parse(one) <= parse(begins)]
        self.replayed = last if parse(begins) < parse(last) else None

    def adopted(self, number: int) -> None:
        """So many orphans are pending again; one that became over meanwhile was acknowledged too early, and is once more."""
        chunk, self.orphans = self.orphans[:number], self.orphans[number:]
        still = {one for hand in (self, *self.elders) for one in hand.open()}
        over = [one for one in chunk if one not in still]
        if over:
            self.complete(over)

    def stir(self) -> None:
        """Something is complete: wake who waits for it, once per turn of the event loop."""
        if self._asleep:
            self._asleep = False
            asyncio.get_running_loop().call_soon(self._stirred)

    def complete(self, ids: Iterable[bytes]) -> None:
        """Acknowledge these entries: nothing has to be done for them any more."""
        self.done += ids
        self.stir()

    def _stirred(self) -> None:
        self._asleep = True
        self.awake()


class Entries:
    """Implements `contracts.Receipt` for entries that were read together.

    `ids` are those of the entries, by position; empty once an entry is complete, or another router's.
    """

    __slots__ = ("_doubtful", "_former", "_hand", "_ledger", "ids", "since")

    def __init__(self, hand: InFlight, ids: list[bytes], since: float) -> None:
        self.ids = ids
        self.since = since
        """When Redis last said that they are ours (monotonic seconds): as they were read, or renewed."""
        self._hand: InFlight | None = hand
        self._former = hand
        self._ledger = Ledger(len(ids))
        self._doubtful: set[int] | None = None
        hand.batches.add(self)

    @property
    def left(self) -> int:
        """Entries that are not complete."""
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
        """Implements `contracts.Receipt`: for an entry that never was in doubt it means nothing."""

    def open(self, position: int) -> int:
        """Implements `contracts.Receipt`."""
        return self._ledger.open(position)

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Implements `contracts.Receipt`."""
        hand = self._hand
        if hand is None or hand.names.marks is None or not self.ids[position]:
            return None
        names = hand.names
        kind: Literal["xack", "xdel", "mark"] = "mark" if not whole else "xdel" if names.own else "xack"
        return Removal(kind, names.key, names.group, self.ids[position], names.consumer)

    def handed_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._complete(position, acknowledged=True)

    def gone(self, position: int) -> None:
        """Implements `contracts.Receipt`. Undisputed, nobody else can have had it before it was gone."""
        if self._hand is not None and not self._hand.undisputed(self.since):
            self.doubt(position)

    def doubt(self, position: int) -> None:
        """Note that another router may deliver the entry too, or has."""
        self._doubtful = {position} if self._doubtful is None else self._doubtful | {position}

    def taken_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        self._unmark(self.ids[position])
        self.ids[position] = b""
        if self._doubtful is not None:
            self._doubtful.discard(position)

    def marked(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        hand, entry = self._hand, self.ids[position]
        if not entry:  # another router has it, and its mark
            return
        if hand is None:
            self._former.stale.append(self._former.mark(entry))
        else:
            hand.marks[entry] = hand.mark(entry)

    def _unmark(self, entry: bytes) -> None:
        """Forget the mark of an entry: the script that acknowledged the entry removed it, or it is another router's now."""
        if self._hand is not None:
            self._hand.marks.pop(entry, None)

    def disown(self) -> None:
        """The stream that they came from is gone."""
        self._hand = None

    def _complete(self, position: int, *, acknowledged: bool = False) -> None:
        hand = self._hand
        if hand is None:
            return
        entry = self.ids[position]
        if acknowledged:
            self._unmark(entry)
        elif entry:
            hand.done.append(entry)
        if self._doubtful is not None and position in self._doubtful:
            hand.possibly_repeated += 1
        self.ids[position] = b""
        if not self._ledger.left:
            hand.batches.discard(self)
        hand.stir()


class Recovered(Entries):
    """Entries that were delivered before: `tried` is set when an attempt of each delivery of theirs has come back."""

    __slots__ = ("_untried", "tried")

    def __init__(self, hand: InFlight, ids: list[bytes], since: float) -> None:
        super().__init__(hand, ids, since)
        hand.expect_marks(ids)
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
        if not self._untried[position] and self._hand is not None and self.ids[position]:
            self._hand.returned.append(self.ids[position])
            self._hand.stir()
        self._look()

    def _look(self) -> None:
        if not any(self._untried):
            self.tried.set()
