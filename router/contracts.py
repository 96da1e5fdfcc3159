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
        """Return the seconds of a clock that never goes back."""


class Removal(NamedTuple):
    """A change of one entry of a source, made by the script that enqueues the entry's deliveries in Redis.

    Each entry can have a mark in Redis: the names of its deliveries that are already enqueued. The script enqueues only
    deliveries that the mark does not name. It enqueues none if the entry is pending for a consumer other than `owner`.
    `kind` says how the entry `item` of the stream `key` is changed for the `group`:

    - `xack`: acknowledge the entry, and remove its mark.
    - `xdel`: acknowledge the entry, remove its mark, and delete the entry from the stream.
    - `mark`: add the names of the enqueued deliveries to the mark of the entry.
    """

    kind: Literal["xack", "xdel", "mark"]
    key: str | bytes
    group: str | bytes
    item: str | bytes
    owner: str | bytes


class Receipt(Protocol):
    """The receipt of one batch, by which a source learns which of its entries are complete.

    Entries are identified by their position in the batch. An entry is complete, and is acknowledged, when all its expected
    deliveries are settled.
    """

    def expect(self, position: int, deliveries: int) -> None:
        """Set the number of deliveries or dead letters that are made of the entry. 0 makes the entry complete.

        This method is called once for each position.
        """

    def add(self, position: int, deliveries: int) -> None:
        """Expect `deliveries` more deliveries, because one of the entry's deliveries was split."""

    def settle(self, position: int) -> None:
        """Record that one delivery of the entry is settled."""

    def returned(self, position: int) -> None:
        """Record that an attempt has returned without success, so that it did not crash the process. A retry follows."""

    def open(self, position: int) -> int:
        """Return the number of the entry's deliveries that are not settled."""

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Return the change of the entry to make in the step that enqueues its deliveries in Redis; None for no change.

        `whole` is True if the step enqueues all open deliveries of the entry. Otherwise the entry is
        not acknowledged, but marked as partly enqueued.
        """

    def handed_over(self, position: int) -> None:
        """Record that one delivery is settled, because it is in a Redis queue. The source need not acknowledge the entry.

        The script has acknowledged the entry, or has reported that another router has it (`taken_over` was called).
        """

    def marked(self, position: int) -> None:
        """Record that the script has marked the entry: some of its deliveries are enqueued in Redis, and others are open.

        The script that acknowledges the entry later removes the mark in the same step.
        """

    def gone(self, position: int) -> None:
        """Record that the entry was pending for no consumer when its deliveries were enqueued. `marked` is called too."""

    def taken_over(self, position: int) -> None:
        """Record that the entry is pending for another router, so that this router does not enqueue or acknowledge it."""


class Sign(NamedTuple):
    """The progress of one component, for the watchdog: the operation under way, and the time at which it began.

    A component hangs if the operation takes longer than `limit` seconds, or if the component `ended` although it should
    run forever.
    """

    part: str
    """The name of the component."""
    doing: str
    """The operation, in words after which `for 31 s` can follow."""
    since: float | None
    """The monotonic time in seconds at which the operation began; None while the component waits for input."""
    limit: float = 30.0
    """The longest duration in seconds. The default is longer than any Redis command can take, with all its timeouts."""
    ended: bool = False


class QueueLimits(msgspec.Struct, frozen=True):
    """The limits of one sink's queue. Only queues in Redis use `hold`, `idle` and `overriding`."""

    max_events: int
    max_bytes: int
    when_full: Literal["block", "drop-newest", "drop-oldest"]
    hold: int = 500
    """The largest number of deliveries that are read ahead of the workers."""
    idle: float = 60.0
    """The seconds after which a router counts as dead if it has not renewed its deliveries in flight."""
    overriding: frozenset[str] = frozenset()
    """The routes that override options of the sink."""


class SharedBook(Protocol):
    """The numbers of one sink's deliveries by outcome, for all routers that share its queue."""

    accepted: int
    delivered: int
    printed: int
    dead_lettered: Counter[Reason]
    dropped: Counter[Reason]
    suppressed: Counter[Reason]
    handed_over: int


class WorkQueue(Protocol):
    """The methods of a queue that a worker uses to take deliveries and to report their outcomes."""

    @property
    def events(self) -> int:
        """The number of deliveries that are not settled, as far as this router knows."""

    @property
    def delayed(self) -> int:
        """The number of deliveries among `events` that wait for their next attempt."""

    async def take(self, most: int) -> tuple[Sequence[Event], int]:
        """Wait for deliveries; return the next ones, at least one and at most `most`, and their total size in bytes."""

    def may_wait(self, event: Event) -> bool:
        """Return whether a delivery may stay in flight for long without an attempt. If it may not, call `later`."""

    def later(self, event: Event, delay: float) -> None:
        """Return a delivery to the queue, to be retried after `delay` seconds."""

    async def give_back(self, taken: Sequence[Event]) -> None:
        """Put deliveries that were not attempted back at the front of the queue, in this order."""

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery in flight by `parts`, which are then in flight."""

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Settle deliveries in flight, all with the same outcome. `size` is the total size of their payloads in bytes."""

    async def settled(self) -> None:
        """Wait until no delivery is left that this router could attempt."""

    def due_in(self) -> float | None:
        """Return the seconds until the next delayed delivery is due; None if no delivery is delayed. Not above 0 if overdue."""

    def holds_up(self, taken: Sequence[Event]) -> bool:
        """Return whether a shutdown must also wait for deliveries of which no attempt is under way.

        `taken` are the deliveries that workers have taken and not settled.
        """

    def close(self, taken: Sequence[Event]) -> int:
        """Stop the queue; return the number of lost deliveries. `taken` are unsettled deliveries in flight."""


class Queue(WorkQueue, Protocol):
    """The queue of one sink, which also counts the deliveries that it accepts."""

    @property
    def durable(self) -> bool:
        """True if the deliveries outlive the process. They are then in Redis, and all routers that use the queue share them."""

    @property
    def limits(self) -> QueueLimits:
        """The current limits."""

    @property
    def reason(self) -> str | None:
        """The reason why the queue can't be used; None while it can be used."""

    @property
    def held(self) -> int:
        """The number of deliveries in the queue at the last `refresh`, including those in flight at any router."""

    @property
    def unreadable(self) -> int:
        """The number of entries in flight that this router can't read."""

    @property
    def shared_book(self) -> SharedBook:
        """The book of this queue. For a queue in Redis, it covers all routers and is as old as the last `refresh`."""

    def start(self) -> None:
        """Start the work of the queue. The server need not be reachable yet."""

    def put(self, events: Sequence[Event], size: int) -> None:
        """Enqueue deliveries whose payloads have `size` bytes in total. Never waits: a full queue drops and counts deliveries."""

    def configure(self, limits: QueueLimits) -> None:
        """Replace the limits. Deliveries in the queue stay, even if they exceed the new limits."""

    async def refresh(self) -> None:
        """Fetch the queue's size and its shared book, both of the same moment. May be slow, and may raise an exception."""

    def signs(self) -> Iterable[Sign]:
        """Return the progress of the queue, for the watchdog."""

    def leave(self, *, handed_over: bool) -> list[Event]:
        """Remove and return the deliveries that exist only in this process, due or not. A queue in Redis has none.

        If `handed_over` is True, the caller puts them into another queue of the sink, and they are counted as handed
        over. Otherwise the caller must settle each of them.
        """

    async def end(self, patience: float) -> None:
        """Report outcomes and release all other deliveries to the server, within `patience` seconds, and disconnect."""


Dropped = Callable[[Iterable[Event], Sequence[str], Reason], None]
"""A function that counts and logs dropped deliveries of one sink. Its arguments are the deliveries, their channels, the reason.

The function iterates over the deliveries only if it logs each of them, so the iterable may decode them lazily.
"""


class Receiver(Protocol):
    """The receiver of a source's batches. Its methods never wait."""

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Accept raw messages of a source, in the order of arrival."""

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Turn entries of which the source can't make events into dead letters (reason `poison` or `field`)."""


class Source(Protocol):
    """An origin of events. It is started once and read until it is stopped."""

    name: str
    up: bool
    """True while the source receives events."""
    reason: str | None
    """The reason why the source is not up; None while it is up."""

    @property
    def gaps(self) -> int:
        """The number of gaps, in which events may have been missed; 0 except for pub/sub."""

    @property
    def gap_seconds(self) -> float:
        """The total length of all gaps, in seconds."""

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
        """The number of dropped copies of events. Redis sends a copy for each subscription of the source that matches."""

    @property
    def trimmed(self) -> int:
        """The number of entries that were trimmed or deleted before they were complete; 0 except for stream sources."""

    @property
    def trimmed_exact(self) -> bool:
        """True if `trimmed` is exact; otherwise it is a lower bound."""

    @property
    def possibly_repeated(self) -> int:
        """The number of entries that this router completed and that another router may have delivered too."""

    def signs(self) -> Iterable[Sign]:
        """Return the progress of the source, for the watchdog. Retries during an outage count as progress."""

    def replace(self, other: Source) -> None:
        """Replace the source `other`, which stops and acknowledges its entries in flight. They are not read again."""

    async def start(self) -> None:
        """Connect and subscribe; return when the server has confirmed every subscription.

        Raises `UnavailableError` if the server can't be reached within the time allowed, and
        `ConfigError` if it refuses a subscription or a command.
        """

    async def run(self) -> None:
        """Read events and pass them to the receiver until `stop` is called. Reconnect after every loss of the connection."""

    async def stop(self, patience: float) -> None:
        """Stop reading; return when the last batch was passed to the receiver.

        `patience` is the number of seconds allowed for processing the bytes that were read ahead. A second call can shorten
        the patience of the first.
        """

    async def close(self) -> None:
        """Acknowledge complete entries and close the connections. Call this method after the drain."""


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
        """The number of events that were read and could not be passed to the receiver before the end of `Source.stop`."""


class Switchable(Protocol):
    """A source that can change its channels and its `max_read_ahead` on the open connection."""

    async def prepare(self, names: Sequence[str], globs: Sequence[str]) -> None:
        """Add the new subscriptions of another configuration. Their messages are dropped until `switch` is called.

        Raises `UnavailableError` if the source is not connected, and `ConfigError` if the server refuses a subscription.
        """

    def switch(self) -> None:
        """Put the subscriptions of `prepare` into force, and unsubscribe from all others."""

    def give_up(self) -> None:
        """Undo `prepare`: unsubscribe from the added subscriptions."""

    def limit_read_ahead(self, size: int) -> None:
        """Change `max_read_ahead` to `size` bytes."""


class DeadLetters(Protocol):
    """The receiver of dead letters."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Store these letters. Never waits, and never raises an exception."""
