"""The streams of a source that reads by a consumer group: progress, room for more entries, trimmed entries; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec
from structlog.stdlib import BoundLogger

from router.broker.groups.in_flight import Entry, InFlight, Names
from router.broker.groups.pending import PendingEntries
from router.broker.server.link import Link
from router.contracts import Clock
from router.core.accounts.books import SourceBook
from router.core.delivery.claims import parse
from router.core.delivery.trimming import GroupState
from router.core.ids import LONGEST, portable
from router.events import text

ID_LENGTH = 41
"""The length of the longest entry id: two numbers of 64 bits, in decimal digits, and a hyphen."""

START = b"0-0"
"""The id before the first entry of any stream."""

SAY_AGAIN = 60.0
"""The minimum number of seconds between two log lines about trimmed entries."""

UNREAD = (
    "entries were trimmed or deleted before they were read, so they are lost; trim the stream less, or read it faster"
)
UNFINISHED = "entries were trimmed or deleted before they were finished; the router that had read them has ended"


GiveBack = Callable[[Link, InFlight], Awaitable[None]]
"""A function that releases the entries in flight at a graceful shutdown."""


async def reset_delivery_counts(link: Link, in_flight: InFlight) -> None:
    """Reset the delivery counts of entries in flight at a graceful shutdown, because no attempt crashed the process."""
    await PendingEntries(link, in_flight.names).claim(in_flight.open(), count=0)


class Loss(StrEnum):
    """The kind of a loss while the source ran: the stream with its group was lost, or only the group."""

    STREAM = "the stream"
    GROUP = "the consumer group"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The membership of a source in the consumer group of its streams."""

    group: str
    consumer: str
    """The name of this router in the group. It stays the same after a restart."""
    start: str = "new"
    """Where a new group begins: `new` or `oldest`."""
    claim_idle: float = 60.0
    """Idle seconds after which another router's entries are claimed."""
    max_deliveries: int = 5
    max_in_flight: int = 1000
    marks: str | None = None
    """The key of the hash with a mark for each partly enqueued entry; None if the streams are not in the router's own
    Redis."""
    give_back: GiveBack = reset_delivery_counts
    sweep_every: float = 60.0
    """Seconds between two searches for consumers of dead routers."""


class Progress:
    """The progress of a group in its stream, as known from the last answers of the server."""

    def __init__(self) -> None:
        self.last = START
        """The last entry that was delivered to this router. At first: the last entry that the group had read when this
        router joined the group."""
        self.group_last = START
        """The last entry that was delivered to any consumer of the group, at the last check."""
        self.lowest: bytes | None = None
        """The oldest entry that was pending for any consumer of the group, at the last check."""
        self.peers = False
        """True if other consumers read with the group, at the last check."""
        self.added: int | None = None
        """The number of entries ever added to the stream; None if the server does not count them."""
        self.state: GroupState | None = None
        """The answer of the server at the last check."""
        self.delivered: int | None = 0
        """The number of entries delivered to this router since the last check; None if an answer with entries may be lost."""
        self.arrived = 0
        """The number of entries that arrived since the last check."""
        self.witnessed = False
        """True if the server has the script by which its count of reads is known to be correct (see
        `Group._witness`)."""
        self.exact = True
        """True if the number of entries trimmed unread is exact."""
        self.lost = False
        """True if the server reported a lost group, and the loss is not handled yet."""

    def arrive(self, entries: list[Entry]) -> None:
        """Record the arrival of new entries, at least one."""
        self.last = max(self.last, entries[-1][0], key=parse)
        self.arrived += len(entries)
        if self.delivered is not None:
            self.delivered += len(entries)

    def answer_lost(self) -> None:
        """Record two things: an answer with entries may be lost, and a different server may answer from now on."""
        self.delivered, self.witnessed = None, False

    def read_until(self, look: GroupState) -> int | None:
        """Return the number of entries that the group has read since the last check; None if the number is unknown.

        `delivered` is None if an answer with entries may be lost. If the last entry that the group has read arrived
        here nevertheless, no answer was lost, and the result is `arrived`.
        """
        if look.peers:
            return None
        return self.arrived if self.delivered is None and look.last == self.last else self.delivered

    def checked(self, look: GroupState, *, exact: bool) -> None:
        """Store the result of a check."""
        self.state, self.delivered, self.arrived, self.exact = look, 0, 0, self.exact and exact
        self.group_last, self.added, self.lowest, self.peers = look.last, look.added, look.lowest, look.peers


class Stream:
    """A stream of a source. `channel` is the channel of the events; by default the key of the stream."""

    def __init__(self, names: Names, channel: bytes | None = None) -> None:
        self.names = names
        self.key = names.key
        self.channel = channel or names.key
        self.name = text(self.key)
        self.in_flight = InFlight(names)
        self.progress = Progress()
        self._prefix = f"{text(self.channel)}/"
        self._plain = self._prefix == portable(self._prefix) and len(self._prefix) + ID_LENGTH <= LONGEST

    def event_ids(self, ids: list[str]) -> list[str]:
        """Return the ids of events for the ids of entries."""
        prefix = self._prefix
        if self._plain:
            return [prefix + one for one in ids]
        return [portable(prefix + one) for one in ids]

    def loss_message(self, lost: Loss, held: int) -> str:  # noqa: ARG002  # for `ListStream`
        """Return the message about the loss of the stream or group. `held` is the number of entries in flight."""
        begins = "at the beginning of the stream" if lost is Loss.STREAM else "early enough that no entry is lost"
        return f"{lost} was deleted; the router creates the group again and begins {begins}"

    def forget(self) -> None:
        """Record that the stream was replaced by a new one. Entries in flight are still delivered, but not acknowledged."""
        self.in_flight.forget()
        progress = self.progress
        progress.last = progress.group_last = START
        progress.lowest, progress.state, progress.delivered, progress.arrived = None, None, 0, 0


class Room:
    """The room for more entries: the number of entries that may still be read. At most `most` entries are in flight.

    The total of the entries in flight and of the complete entries that are not acknowledged yet is at most twice
    `most`. `wait` returns at once if `stop` is set.
    """

    def __init__(self, all_in_flight: Sequence[InFlight], most: int, stop: asyncio.Event) -> None:
        self._all_in_flight = all_in_flight
        self._most = most
        self._stop = stop
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Record that an entry is complete or acknowledged, or that its delivery count was reset."""
        self._changed.set()

    def left(self) -> int:
        """Return the number of entries that may be read now."""
        unsettled = sum([in_flight.unsettled for in_flight in self._all_in_flight])
        waiting = sum([in_flight.unacknowledged for in_flight in self._all_in_flight])
        return max(0, min(self._most - unsettled, 2 * self._most - unsettled - waiting))

    async def wait(self, most: float) -> None:
        """Wait until an entry is complete or acknowledged, for `most` seconds at most. Return at once if there is room."""
        self._changed.clear()
        if self.left() or self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(most, 0.0)):
                await self._changed.wait()

    async def emptied(self) -> None:
        """Wait until no entry is in flight and `known` returns, so that the next entry is alone."""
        while any(in_flight.unsettled for in_flight in self._all_in_flight):
            self._changed.clear()
            await self._changed.wait()
        await self.known()

    async def known(self) -> None:
        """Wait until the delivery counts are reset in Redis for all entries with a finished attempt.

        If another entry crashed the process before the reset, an innocent entry with a high delivery count could be
        given up as poison.
        """
        while any(in_flight.unacknowledged or in_flight.returned for in_flight in self._all_in_flight):
            self._changed.clear()
            await self._changed.wait()


class TrimmedEntries:
    """Counts and logs the entries that were trimmed or deleted before they were delivered. The count is in `book`."""

    def __init__(self, streams: Sequence[Stream], book: SourceBook, clock: Clock, log: BoundLogger) -> None:
        self._streams = streams
        self._book = book
        self._clock = clock
        self._log = log
        # The keys are stream and message. The value is the time from which on the message may be logged again.
        self._said: dict[tuple[bytes, str], float] = {}

    @property
    def exact(self) -> bool:
        """True if the count is exact; otherwise it is a lower bound."""
        return self._book.trimmed_exact and all(stream.progress.exact for stream in self._streams)

    def count(self, stream: Stream, number: int, message: str) -> None:
        """Count `number` lost entries. Log an error with this message, at most once in `SAY_AGAIN` seconds for each stream."""
        self._book.trimmed += number
        now, occasion = self._clock.monotonic(), (stream.key, message)
        if number and now >= self._said.get(occasion, now):
            self._said[occasion] = now + SAY_AGAIN
            exact = "exactly" if self.exact else "at least"
            self._log.error(message, stream=stream.name, number=number, in_all=self._book.trimmed, counted=exact)

    def unfinished(self, stream: Stream, ids: list[bytes]) -> None:
        """Acknowledge and count pending entries that can't be delivered, because they are no longer in the stream."""
        if ids:
            stream.in_flight.expect_marks(ids)
            stream.in_flight.complete(ids)
            self.count(stream, len(ids), UNFINISHED)
