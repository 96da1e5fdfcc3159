"""The streams of a source that reads by a consumer group: entries in flight, room for more, and what was trimmed; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from structlog.stdlib import BoundLogger

from router.broker.groups.in_flight import Entry, InFlight, Names
from router.broker.groups.pending import PendingEntries
from router.broker.server.link import Link
from router.contracts import Clock
from router.core.accounts.books import SourceBook
from router.core.delivery.claims import parse
from router.core.delivery.trimming import Look
from router.core.ids import LONGEST, portable
from router.events import text

ID_LENGTH = 41
"""Characters of the longest entry id: two numbers of 64 bits."""

START = b"0-0"
"""The id before the first entry of any stream."""

SAY_AGAIN = 60.0
"""Seconds between two lines about entries that are trimmed again and again."""

UNREAD = "entries were trimmed or deleted before anybody had read them: they are lost; trim less, or read faster"
UNFINISHED = "entries of a router that ended before it had finished with them were trimmed or deleted meanwhile"


GiveBack = Callable[[Link, InFlight], Awaitable[None]]
"""Frees what is in flight at an orderly end."""


async def uncounted(link: Link, hand: InFlight) -> None:
    """Leave what is in flight at an orderly end to the next start: no attempt ended the process, so it does not count."""
    await PendingEntries(link, hand.names).claim(hand.open(), count=0)


class Loss(StrEnum):
    """The part of a stream and its group that was lost while the source ran."""

    STREAM = "the stream"
    GROUP = "the consumer group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """How a source takes part in the consumer group of its streams."""

    group: str
    consumer: str
    """Our name in the group, the same after a restart."""
    start: str = "new"
    """Where a new group begins: `new` or `oldest`."""
    claim_idle: float = 60.0
    """Seconds after which another router's entries are taken over."""
    max_deliveries: int = 5
    max_in_flight: int = 1000
    marks: str | None = None
    """The hash of entries handed over in part, where the streams are in the router's own Redis."""
    give_back: GiveBack = uncounted
    sweep_every: float = 60.0
    """How often (seconds) consumers of routers long gone are looked for."""


class Progress:
    """How far a group has come in its stream, as the last answers told."""

    def __init__(self) -> None:
        self.last = START
        """The last entry delivered to us, or to the group before us."""
        self.group_last = START
        """The last entry delivered to the whole group, at the last look."""
        self.lowest: bytes | None = None
        """The oldest pending entry of the whole group, at the last look."""
        self.peers = False
        """Whether others read with the same group, at the last look."""
        self.added: int | None = None
        """How many entries were ever added to the stream; None where the server does not say."""
        self.look: Look | None = None
        """What the server said at the last look."""
        self.delivered: int | None = 0
        """How many entries were delivered to us since; None when some of them may not have arrived."""
        self.arrived = 0
        """How many of them arrived."""
        self.witnessed = False
        """Whether the server was told that its count is right, so that it knows as long as it runs."""
        self.exact = True
        """Whether all that was trimmed unread is known."""
        self.lost = False
        """Whether the server said that the group is gone, and nobody has looked since."""

    def arrive(self, entries: list[Entry]) -> None:
        """Note new entries, one at least."""
        self.last = max(self.last, entries[-1][0], key=parse)
        self.arrived += len(entries)
        if self.delivered is not None:
            self.delivered += len(entries)

    def unsure(self) -> None:
        """Note that an answer is lost that may have brought entries; the server may be another one by now."""
        self.delivered, self.witnessed = None, False

    def read_until(self, look: Look) -> int | None:
        """Return how many entries the group has read since the look before; None where that is not known.

        Where the last one is ours no answer is missing.
        """
        if look.peers:
            return None
        return self.arrived if self.delivered is None and look.last == self.last else self.delivered

    def looked(self, look: Look, *, exact: bool) -> None:
        """Take what a look has shown."""
        self.look, self.delivered, self.arrived, self.exact = look, 0, 0, self.exact and exact
        self.group_last, self.added, self.lowest, self.peers = look.last, look.added, look.lowest, look.peers


class Stream:
    """One stream of a source, with its consumer group. Its events come on the `channel`, the stream's own key by default."""

    def __init__(self, names: Names, channel: bytes | None = None) -> None:
        self.names = names
        self.key = names.key
        self.channel = channel or names.key
        self.name = text(self.key)
        self.hand = InFlight(names)
        self.progress = Progress()
        self._prefix = f"{text(self.channel)}/"
        self._plain = self._prefix == portable(self._prefix) and len(self._prefix) + ID_LENGTH <= LONGEST

    def event_ids(self, ids: list[str]) -> list[str]:
        """Return the ids of events for the ids of entries."""
        prefix = self._prefix
        if self._plain:
            return [prefix + one for one in ids]
        return [portable(prefix + one) for one in ids]

    def healed(self, lost: Loss, held: int) -> str:  # noqa: ARG002  # other streams say it
        """Say in a log line what was lost while so many entries were held, and from where reading goes on."""
        begins = "at its beginning" if lost is Loss.STREAM else "where nothing is lost"
        return f"{lost} was gone; the group is made anew and begins {begins}"

    def forget(self) -> None:
        """Note that the stream is another one now: what is in flight is still delivered, but there is nothing to acknowledge."""
        self.hand.forget()
        progress = self.progress
        progress.last = progress.group_last = START
        progress.lowest, progress.look, progress.delivered, progress.arrived = None, None, 0, 0


class Room:
    """The room for entries that are not read yet: `most` may be in hand.

    What is complete and waits for its acknowledgement may be as many again. Nothing is waited for once `stop` is set.
    """

    def __init__(self, hands: Sequence[InFlight], most: int, stop: asyncio.Event) -> None:
        self._hands = hands
        self._most = most
        self._stop = stop
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Note that something is complete, acknowledged, or counted anew."""
        self._changed.set()

    def left(self) -> int:
        """Return how many entries may be read now."""
        unsettled = sum([hand.unsettled for hand in self._hands])
        waiting = sum([hand.unacknowledged for hand in self._hands])
        return max(0, min(self._most - unsettled, 2 * self._most - unsettled - waiting))

    async def wait(self, most: float) -> None:
        """Wait until something is complete, for `most` seconds at most."""
        self._changed.clear()
        if self.left() or self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(most, 0.0)):
                await self._changed.wait()

    async def emptied(self) -> None:
        """Wait until nothing is in hand, so that what comes next is alone there."""
        while any(hand.unsettled for hand in self._hands):
            self._changed.clear()
            await self._changed.wait()
        await self.known()

    async def known(self) -> None:
        """Wait until Redis knows of every attempt that came back.

        Were the count of such an entry to stand while another one ends the process, again and again, it would be found
        guilty in that one's place.
        """
        while any(hand.unacknowledged or hand.returned for hand in self._hands):
            self._changed.clear()
            await self._changed.wait()


class Trimmed:
    """The entries that were trimmed or deleted before they were delivered: counted in the book of the source, and told."""

    def __init__(self, streams: Sequence[Stream], book: SourceBook, clock: Clock, log: BoundLogger) -> None:
        self._streams = streams
        self._book = book
        self._clock = clock
        self._log = log
        self._said: dict[tuple[bytes, str], float] = {}  # until when each is not said again

    @property
    def exact(self) -> bool:
        """Whether all of them are counted; else there are at least so many."""
        return self._book.trimmed_exact and all(stream.progress.exact for stream in self._streams)

    def count(self, stream: Stream, number: int, message: str) -> None:
        """Count what is gone, and say so: as it begins, then not more often than every `SAY_AGAIN` seconds."""
        self._book.trimmed += number
        now, occasion = self._clock.monotonic(), (stream.key, message)
        if number and now >= self._said.get(occasion, now):
            self._said[occasion] = now + SAY_AGAIN
            exact = "exactly" if self.exact else "at least"
            self._log.error(message, stream=stream.name, number=number, in_all=self._book.trimmed, counted=exact)

    def unfinished(self, stream: Stream, ids: list[bytes]) -> None:
        """Acknowledge entries that are pending though the stream holds them no more: there is nothing to deliver."""
        if ids:
            stream.hand.expect_marks(ids)
            stream.hand.complete(ids)
            self.count(stream, len(ids), UNFINISHED)
