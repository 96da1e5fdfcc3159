"""What a stream source has in hand of each stream, and the receipts that say when an entry is over; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from router.contracts import Removal
from router.core.accounts.acks import Ledger
from router.core.delivery.claims import parse
from router.core.delivery.trimming import Look
from router.core.ids import LONGEST, portable
from router.events import text

ID_LENGTH = 41
"""Characters of the longest entry id: two numbers of 64 bits."""


class Stream:
    """One stream of a source: what is in hand of it, and what is known of its group."""

    def __init__(
        self,
        key: str,
        group: str,
        awake: Callable[[], None],
        *,
        consumer: str = "",
        removable: bool = False,
        undisputed: Callable[[float], bool] = lambda _since: False,
    ) -> None:
        self.key = key.encode()
        self.group = group
        self.consumer = consumer
        """Our name in the group."""
        self.removable = removable
        """Whether it is in the router's own Redis, where a script may acknowledge what it hands over."""
        self.undisputed = undisputed
        """Whether nobody can have taken over what is in our hand since then (monotonic seconds)."""
        self.name = text(self.key)
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
        self.elders: list[Stream] = []
        """The same stream in the hands of sources that this one replaces, as long as there is anything in them."""
        self.batches: set[Entries] = set()
        """Those with entries that are not complete."""
        self.known = False
        """Whether the group was there once."""
        self.last = b"0-0"
        """The last entry delivered to us, or to the group before us."""
        self.group_lost = False
        """Whether the server said that the group is gone, and nobody has looked since."""
        self.orphans: list[bytes] = []
        """Entries in hand that a group made anew does not know, and does not bring either: they are to be made pending."""
        self.replayed: bytes | None = None
        """Up to this id the group, made anew, brings entries again that may be in hand; None: it does not."""
        self.added: int | None = None
        """How many entries were ever added to it; None where the server does not say."""
        self.look: Look | None = None
        """What the server said at the last look."""
        self.delivered: int | None = 0
        """How many entries were delivered to us since; None when some of them may not have arrived."""
        self.exact = True
        """Whether all that was trimmed unread is known."""
        self.possibly_repeated = 0
        """Entries that came to an end here, and that another router may have had too."""
        self.said: dict[str, float] = {}
        """What was said of it, and until when it is not said again (monotonic seconds)."""
        self.peers = False
        """Whether others read with the same group, at the last look."""
        self.lowest: bytes | None = None
        """The oldest pending entry of the whole group, at the last look."""
        self.group_last = b"0-0"
        """The last entry delivered to the whole group, at the last look."""
        self._prefix = f"{self.name}/"
        self._plain = self._prefix == portable(self._prefix) and len(self._prefix) + ID_LENGTH <= LONGEST
        self._awake = awake
        self._asleep = True

    def event_ids(self, ids: list[str]) -> list[str]:
        """The ids of events for the ids of entries."""
        prefix = self._prefix
        if self._plain:
            return [prefix + one for one in ids]
        return [portable(prefix + one) for one in ids]

    def mark(self, entry: bytes) -> bytes:
        """Return the field that marks an entry as handed over. Others may read the stream, by other groups too."""
        return b" ".join((self.key, self.group.encode(), entry))

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

    def hand(self) -> set[bytes]:
        """Everything that is not acknowledged. The sources that this one replaces have stopped by then."""
        hand = {*self.open(), *self.done, *self.sent}
        for elder in list(self.elders):
            left = {*elder.open(), *elder.done, *elder.sent}
            if not left:
                self.elders.remove(elder)
            hand |= left
        return hand

    def forget(self) -> None:
        """The stream is another one now: what is in hand is still delivered, but there is nothing to acknowledge."""
        for batch in self.batches:
            batch.disown()
        self.batches = set()
        self.done, self.sent, self.returned = [], [], []
        self.stale += self.marks.values()
        self.marks = {}
        self.last = self.group_last = b"0-0"
        self.lowest = self.replayed = None
        self.orphans = []
        self.look, self.delivered = None, 0

    def resumed(self, begins: bytes) -> None:
        """The group was made anew and brings what comes after this id: what is in hand and is not that is an orphan."""
        self.orphans = []
        for stream in (self, *self.elders):
            self.orphans += [one for one in stream.open() if parse(one) <= parse(begins)]
        self.replayed = self.last if parse(begins) < parse(self.last) else None

    def adopted(self, number: int) -> None:
        """So many orphans are pending again; one that became over meanwhile was acknowledged too early, and is once more."""
        chunk, self.orphans = self.orphans[:number], self.orphans[number:]
        still = {one for stream in (self, *self.elders) for one in stream.open()}
        over = [one for one in chunk if one not in still]
        if over:
            self.done += over
            self.stir()

    def stir(self) -> None:
        """Something is complete: wake who waits for it, once per turn of the event loop."""
        if self._asleep:
            self._asleep = False
            asyncio.get_running_loop().call_soon(self._stirred)

    def _stirred(self) -> None:
        self._asleep = True
        self._awake()


class Entries:
    """Implements `contracts.Receipt` for entries that were read together.

    `ids` are those of the entries, by position; empty once an entry is complete, or another router's.
    """

    __slots__ = ("_doubtful", "_former", "_ledger", "_stream", "ids", "since")

    def __init__(self, stream: Stream, ids: list[bytes], since: float) -> None:
        self.ids = ids
        self.since = since
        """When Redis last said that they are ours (monotonic seconds): as they were read, or renewed."""
        self._stream: Stream | None = stream
        self._former = stream
        self._ledger = Ledger(len(ids))
        self._doubtful: set[int] | None = None
        stream.batches.add(self)

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
        stream = self._stream
        if stream is None or not stream.removable or not self.ids[position]:
            return None
        kind: Literal["xack", "mark"] = "xack" if whole else "mark"
        return Removal(kind, stream.key, stream.group, self.ids[position], stream.consumer)

    def handed_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._complete(position, acknowledged=True)

    def gone(self, position: int) -> None:
        """Implements `contracts.Receipt`. Undisputed, nobody else can have had it before it was gone."""
        if self._stream is not None and not self._stream.undisputed(self.since):
            self.doubt(position)

    def doubt(self, position: int) -> None:
        """Note that another router may deliver the entry too, or has."""
        self._doubtful = {position} if self._doubtful is None else self._doubtful | {position}

    def taken_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        self.ids[position] = b""
        if self._doubtful is not None:
            self._doubtful.discard(position)

    def marked(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        stream, entry = self._stream, self.ids[position]
        if not entry:  # another router has it, and its mark
            return
        if stream is None:
            self._former.stale.append(self._former.mark(entry))
        else:
            stream.marks[entry] = stream.mark(entry)

    def disown(self) -> None:
        """The stream that they came from is gone."""
        self._stream = None

    def _complete(self, position: int, *, acknowledged: bool = False) -> None:
        stream = self._stream
        if stream is None:
            return
        entry = self.ids[position]
        if entry and not acknowledged:
            stream.done.append(entry)
        if self._doubtful is not None and position in self._doubtful:
            stream.possibly_repeated += 1
        self.ids[position] = b""
        if not self._ledger.left:
            stream.batches.discard(self)
        stream.stir()


class Recovered(Entries):
    """Entries that were delivered before: `tried` is set when an attempt of each delivery of theirs has come back."""

    __slots__ = ("_untried", "tried")

    def __init__(self, stream: Stream, ids: list[bytes], since: float) -> None:
        super().__init__(stream, ids, since)
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
        if not self._untried[position] and self._stream is not None and self.ids[position]:
            self._stream.returned.append(self.ids[position])
            self._stream.stir()
        self._look()

    def _look(self) -> None:
        if not any(self._untried):
            self.tried.set()
