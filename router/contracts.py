"""The protocols between floors: clock, receipts, queues, sources, progress; floor 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from router.errors import Reason
from router.events import DeadLetter, Event, Outcome, RawBatch


class Clock(Protocol):
    """The source of time for the whole router. Tests use a clock that they advance."""

    def now(self) -> float:
        """Return the seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Removal(NamedTuple):
    """A change of a source's entry by the script that appends its deliveries to Redis queues, in the same step.

    The script appends the deliveries that are not named in the entry's mark. It appends none if the entry is pending
    for a consumer other than `owner`. `kind` is the change of the entry `item` of the stream `key` for the `group`:

    - `xack`: acknowledge the entry, and remove its mark.
    - `xdel`: acknowledge the entry, remove its mark, and delete the entry from the stream.
    - `mark`: mark the entry as enqueued, with the names of these deliveries.
    """

    kind: Literal["xack", "xdel", "mark"]
    key: str | bytes
    group: str | bytes
    item: str | bytes
    owner: str | bytes


class Receipt(Protocol):
    """The acknowledgements of one batch: a source learns the outcome of its entries, by their position in the batch.

    An entry is complete, and acknowledged, when all its expected deliveries are settled.
    """

    def expect(self, position: int, deliveries: int) -> None:
        """Set the number of deliveries or dead letters made of the entry; 0 completes it. Called once per position."""

    def add(self, position: int, deliveries: int) -> None:
        """Expect `deliveries` more deliveries, because one of the entry's deliveries was split."""

    def settle(self, position: int) -> None:
        """Record that one delivery of the entry is settled."""

    def returned(self, position: int) -> None:
        """Record that a failed attempt has returned and will be retried: it did not crash the process."""

    def open(self, position: int) -> int:
        """Return the number of the entry's deliveries that are not settled."""

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Return the change of the entry to make in the step that enqueues its deliveries in Redis.

        Return None if the entry must not change. `whole` is true if these are all open deliveries of the entry.
        Otherwise the entry stays, marked as enqueued in part.
        """

    def handed_over(self, position: int) -> None:
        """Record that one delivery is settled: it is in a Redis queue, and the source need not acknowledge the entry.

        The script has removed the entry, or reported that another router has it (`taken_over` was called).
        """

    def marked(self, position: int) -> None:
        """Record that the script has marked the entry: its deliveries to Redis queues are enqueued, and others are open.

        The script that acknowledges the entry later removes the mark in the same step.
        """

    def gone(self, position: int) -> None:
        """Record that no consumer had the entry pending when its deliveries were enqueued. `marked` is called too."""

    def taken_over(self, position: int) -> None:
        """Record that the entry is pending for another router: this router neither enqueues nor acknowledges it."""


class Sign(NamedTuple):
    """The progress of one component, for the watchdog: the operation under way and when it began.

    A component hangs if the operation takes longer than `limit` seconds, or if the component `ended` although it should
    run forever.
    """

    part: str
    """The name of the component."""
    doing: str
    """The operation, in words that can be followed by `for 31 s`."""
    since: float | None
    """The monotonic time in seconds at which the operation began; None while the component waits for input."""
    limit: float = 30.0
    """The longest duration in seconds. The default is above the longest Redis command, with all its timeouts."""
    ended: bool = False


class QueueLimits(msgspec.Struct, frozen=True):
    """The limits of one sink's queue. `hold`, `idle` and `overriding` are for durable queues only."""

    max_events: int
    max_bytes: int
    when_full: Literal["block", "drop-newest", "drop-oldest"]
    hold: int = 500
    """The largest number of deliveries that are read ahead of the workers."""
    idle: float = 60.0
    """Seconds without renewal after which the router of a delivery in flight counts as dead."""
    overriding: frozenset[str] = frozenset()
    """The routes that override options of the sink."""


class SharedBook(Protocol):
    """The number of one sink's deliveries by outcome, over all routers that share its queue."""

    accepted: int
    delivered: int
    printed: int
    dead_lettered: Counter[Reason]
    dropped: Counter[Reason]
    suppressed: Counter[Reason]
    handed_over: int


class WorkQueue(Protocol):
    """The methods of a queue that a worker uses: it takes deliveries, and reports the outcome of each."""

    @property
    def events(self) -> int:
        """The number of deliveries that are not settled, as far as this router knows."""

    @property
    def delayed(self) -> int:
        """The number of deliveries among `events` that wait for their next attempt."""

    async def take(self, most: int) -> tuple[Sequence[Event], int]:
        """Return the next deliveries, at most `most`, and their bytes; wait until there is at least one."""

    def may_wait(self, event: Event) -> bool:
        """Return whether a delivery may stay in flight for long without an attempt. If not, call `later`."""

    def later(self, event: Event, delay: float) -> None:
        """Return a delivery to the queue, to be retried after `delay` seconds."""

    async def give_back(self, taken: Sequence[Event]) -> None:
        """Return deliveries that were not attempted to the front of the queue, in this order."""

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery in flight by `parts`, which are then in flight."""

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Settle deliveries in flight, all with the same outcome; `size` is the sum of their payloads in bytes."""

    async def settled(self) -> None:
        """Wait until no delivery is left that this router could attempt."""

    def due_in(self) -> float | None:
        """Return the seconds until the next delayed delivery is due, 0 or less if it is overdue; None if none is delayed."""

    def holds_up(self, taken: Sequence[Event]) -> bool:
        """Return whether a shutdown must also wait for deliveries that are not being attempted.

        `taken` are the deliveries that workers have taken and not attempted yet.
        """

    def close(self, taken: Sequence[Event]) -> int:
        """Stop the queue; return the number of lost deliveries. `taken` are unsettled deliveries in flight."""


class Queue(WorkQueue, Protocol):
    """The queue of one sink. The queue counts the deliveries that it accepts."""

    @property
    def durable(self) -> bool:
        """True if the deliveries outlive the process, and are shared by every router that reads the same Redis."""

    @property
    def limits(self) -> QueueLimits:
        """The limits in force."""

    @property
    def reason(self) -> str | None:
        """The reason why the queue can't be used; None while it can."""

    @property
    def held(self) -> int:
        """The number of deliveries in the queue at the last `refresh`, including those in flight at any router."""

    @property
    def unreadable(self) -> int:
        """The number of entries in flight that this router can't read."""

    @property
    def shared_book(self) -> SharedBook:
        """The book of this queue. In Redis it covers all routers, as of the last `refresh`; in memory only this object."""

    def start(self) -> None:
        """Start reading. The server need not be reachable yet."""

    def put(self, events: Sequence[Event], size: int) -> None:
        """Enqueue deliveries whose payloads have `size` bytes together. Never waits; a full queue drops and counts."""

    def configure(self, limits: QueueLimits) -> None:
        """Use other limits from now on. Deliveries in the queue stay, even beyond the limits."""

    async def refresh(self) -> None:
        """Fetch the queue's size and its shared book, as of the same moment. May raise, and may be slow."""

    def signs(self) -> Iterable[Sign]:
        """Return the progress of the queue, for the watchdog."""

    def leave(self, *, handed_over: bool) -> list[Event]:
        """Remove and return the deliveries that wait only in this process, due or not; a durable queue returns none.

        If `handed_over` is true, the caller puts them into another queue of the sink, and they are counted as handed
        over. Otherwise the caller must settle each of them.
        """

    async def end(self, patience: float) -> None:
        """Report outcomes and release all other deliveries to the server, within `patience` seconds, and disconnect."""


Dropped = Callable[[Iterable[Event], Sequence[str], Reason], None]
"""A function that counts and logs dropped deliveries of one sink: the deliveries, their channels, the reason.

The function iterates over the deliveries only if the log names each of them, so the iterable may decode them lazily.
"""


class Receiver(Protocol):
    """The receiver of a source's batches. Its methods never wait."""

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Accept raw messages of a source, in the order of arrival."""

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Reject entries that the source can't pass on (reasons `poison`, `field`): they become dead letters."""


class Source(Protocol):
    """The origin of events: started once, read until stopped."""

    name: str
    up: bool
    """True while the source receives events."""
    reason: str | None
    """The reason why the source is not up; None while it is."""

    @property
    def gaps(self) -> int:
        """The number of gaps, in which events may have been missed; 0 except for pub/sub."""

    @property
    def gap_seconds(self) -> float:
        """The length of all gaps together, in seconds."""

    @property
    def address(self) -> str:
        """The server's address, without credentials."""

    @property
    def read_ahead(self) -> ReadAheadFigures:
        """The figures of the bytes that were read and are not processed yet; all 0 except for pub/sub."""

    @property
    def in_flight(self) -> int:
        """The number of entries that were passed on and are not complete; 0 for a source without acknowledgements."""

    @property
    def duplicates(self) -> int:
        """The number of copies dropped because another subscription of this source brought the same event."""

    @property
    def trimmed(self) -> int:
        """The number of entries trimmed or deleted before they were complete here; 0 except for streams."""

    @property
    def trimmed_exact(self) -> bool:
        """True if `trimmed` is exact; else it is a lower bound."""

    @property
    def possibly_repeated(self) -> int:
        """The number of entries completed here that another router may have delivered too."""

    def signs(self) -> Iterable[Sign]:
        """Return the progress of the source, for the watchdog. Retries during an outage count as progress."""

    def succeed(self, other: Source) -> None:
        """Replace the source `other`, which stops. Its entries in flight are not read again: it acknowledges them."""

    async def start(self) -> None:
        """Connect and subscribe; return when the server has confirmed every subscription.

        Raises `UnavailableError` if the server can't be reached within the time allowed, `ConfigError` if it refuses.
        """

    async def run(self) -> None:
        """Read and pass on events until `stop`; reconnect after every loss."""

    async def stop(self, patience: float) -> None:
        """Stop reading; return when the last batch is passed on.

        `patience` is the number of seconds allowed for processing the bytes that were read ahead. A second call during
        the first one can shorten it.
        """

    async def close(self) -> None:
        """Acknowledge complete entries and close the connections. Call after the drain."""


class ReadAheadFigures(Protocol):
    """The figures of a source's read-ahead."""

    @property
    def size(self) -> int:
        """The number of bytes that were read and are not processed yet."""

    @property
    def peak(self) -> int:
        """The largest `size` so far."""

    @property
    def lost(self) -> int:
        """The number of events that were read and that `Source.stop` had no time to pass on."""


class Switchable(Protocol):
    """A source that can change its channels and its `max_read_ahead` on the open connection."""

    async def prepare(self, names: Sequence[str], globs: Sequence[str]) -> None:
        """Add the new subscriptions of another configuration. Their messages are dropped until `switch`.

        Raises `UnavailableError` if the source is not connected, `ConfigError` for a refused subscription.
        """

    def switch(self) -> None:
        """Use only the subscriptions of `prepare` from now on."""

    def give_up(self) -> None:
        """Roll back `prepare`."""

    def limit_read_ahead(self, size: int) -> None:
        """Use another `max_read_ahead`, in bytes, from now on."""


class DeadLetters(Protocol):
    """The receiver of dead letters."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Store these letters. Never waits, never raises."""
