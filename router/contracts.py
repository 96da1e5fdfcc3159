"""The protocols that floors hand to each other; floor 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from router.errors import Reason
from router.events import DeadLetter, Event, Outcome, RawBatch


class Clock(Protocol):
    """Time, as the host sees it; tests hand in one that they move."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Removal(NamedTuple):
    """The change of an entry itself, made by the script that appends its deliveries to Redis queues, in the same step.

    `kind` says what, and with it whether the deliveries are appended:

    - `xack`: acknowledges the entry `item` of the stream `key` for the `group`, and removes its mark. Appends the deliveries
      that the mark does not name, none where the entry is pending for another consumer than `owner`.
    - `mark`: marks it (the same words) as handed over, with the names of these deliveries. Appends as the one before does.
    - `lrem`: takes `item` from the list `key` and counts that in the hash `group`; `owner` is the hash of deaths. Appends,
      unless another router has put the item back.
    - `half`: moves `item` from the list `key` to the list `group`; `owner` is the hash that the one before counts in. Appends
      as that one does.
    - `none`: nothing; its deliveries stand in their queues already and are not appended.
    """

    kind: Literal["xack", "mark", "lrem", "half", "none"]
    key: str | bytes
    group: str | bytes
    item: str | bytes
    owner: str | bytes = ""


class Receipt(Protocol):
    """The way back to a source that acknowledges: what became of its entries, each named by its position in the batch.

    An entry is complete, and acknowledged, when everything that was expected of it is over. A source whose entries can't
    be removed by a script, forgotten by Redis or given to another router implements those parts with the neutral answer.
    """

    def expect(self, position: int, deliveries: int) -> None:
        """Note how many deliveries or dead letters were made of the entry; 0: complete. Called once for each position."""

    def add(self, position: int, deliveries: int) -> None:
        """Note that one of the deliveries was split: so many more have to be over."""

    def settle(self, position: int) -> None:
        """Note that one of the deliveries is over."""

    def returned(self, position: int) -> None:
        """Note that an attempt came back and will be repeated: the delivery did not end the process."""

    def open(self, position: int) -> int:
        """Return how many of the entry's deliveries are not over."""

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Return what becomes of the entry when its deliveries to Redis queues stand there; None: nothing in that step.

        `whole` says that those are all deliveries that are open. Otherwise the entry stays, and is known as handed over
        in part.
        """

    def handed_over(self, position: int) -> None:
        """Note that one delivery is over: it stands in a Redis queue, and nothing is left to do about the entry.

        The script has removed the entry, or said that it is another router's (`taken_over` was called).
        """

    def marked(self, position: int) -> None:
        """Note that the script has marked the entry as handed over in part: its deliveries to Redis queues stand there.

        Whoever takes the entry from its source later removes the mark in the same step.
        """

    def gone(self, position: int) -> None:
        """Note that the entry was not pending for anybody when its deliveries were queued. `marked` is called too."""

    def taken_over(self, position: int) -> None:
        """Note that the entry is pending for another router: it is not queued here, and never acknowledged from here."""


class Sign(NamedTuple):
    """The work that one part of the router is doing, for the watchdog.

    `since` says since when (seconds that never go back), None where it waits for what need not come. It may take `limit`
    seconds; longer, and the part hangs. So does one that has `ended` though it never should.
    """

    part: str
    doing: str
    """In words that go before `for 31 s`."""
    since: float | None
    limit: float = 30.0
    """More than a command to Redis takes at most, with all its timeouts."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The limits of one sink's queue, by the configuration. The last three are for queues that outlive the process."""

    max_events: int
    max_bytes: int
    when_full: Literal["block", "drop-newest", "drop-oldest"]
    hold: int = 500
    """Deliveries that are taken ahead of the workers, at most."""
    idle: float = 60.0
    """Seconds without renewal after which a delivery in flight is a dead router's."""
    overriding: frozenset[str] = frozenset()
    """The routes that replace options of the sink."""


class SharedBook(Protocol):
    """The outcomes of one sink's deliveries, in numbers, whichever router they passed."""

    accepted: int
    delivered: int
    printed: int
    dead_lettered: Counter[Reason]
    dropped: Counter[Reason]
    suppressed: Counter[Reason]
    handed_over: int


class WorkQueue(Protocol):
    """The part of a queue that a worker sees: it takes deliveries there, and says what became of each."""

    @property
    def events(self) -> int:
        """Deliveries that are not settled, as far as this router knows."""

    @property
    def delayed(self) -> int:
        """Deliveries among `events` that wait for their next attempt."""

    async def take(self, most: int) -> tuple[list[Event], int]:
        """Return the next deliveries, at least one and at most `most`, and their bytes; wait until there are some."""

    def keep(self, event: Event) -> bool:
        """Return whether a delivery in flight that is not attempted may stay so for long; else hand it back by `later`."""

    def later(self, event: Event, delay: float) -> None:
        """Hand back a delivery that was taken, to be tried again after `delay` seconds."""

    async def give_back(self, hand: Sequence[Event]) -> None:
        """Hand back what was taken and not attempted: the next worker takes it first, in this order."""

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery in flight by `parts`, to which it was handed over; they are in flight now."""

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Note that deliveries in flight are over, all in the same way; `size` are the bytes of their payloads."""

    async def settled(self) -> None:
        """Wait until nothing is left that this router could deliver."""

    def due_in(self) -> float | None:
        """Return the seconds until the next delayed delivery is due, 0 or less where it is due; None when none waits."""

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Return whether an end has to wait for more here than attempts under way; `hand` waits with the workers."""

    def close(self, hand: Sequence[Event]) -> int:
        """End the deliveries; `hand` are those in flight that will not be settled. Returns how many are lost."""


class Queue(WorkQueue, Protocol):
    """The queue of one sink, from its start to its end; it counts what it accepts."""

    @property
    def durable(self) -> bool:
        """True if the deliveries outlive the process, and are shared by every router that reads the same Redis."""

    @property
    def reason(self) -> str | None:
        """Why the queue can't be used; None while it can."""

    @property
    def held(self) -> int:
        """Deliveries that the queue itself held at the last `refresh`, whoever has them in flight."""

    @property
    def unreadable(self) -> int:
        """Entries in flight that this router can't read."""

    @property
    def shared_book(self) -> SharedBook:
        """The book of the sink over all routers, as of the last `refresh`."""

    def start(self) -> None:
        """Begin to read. The server need not be there."""

    def put(self, events: list[Event], size: int) -> None:
        """Take deliveries whose payloads have `size` bytes together. Never waits: what has no room is dropped, counted."""

    def configure(self, limits: QueueLimits) -> None:
        """Take other limits from now on; what is there stays."""

    async def refresh(self) -> None:
        """Fetch what the queue holds and its shared book, of one moment. May raise, may take its time."""

    def signs(self) -> Iterable[Sign]:
        """Return what the queue is at, for whoever asks whether it gets on."""

    def leave(self, *, handed_over: bool) -> list[Event]:
        """Take out what waits in this process alone, whenever it is due; what is durable stays, and nothing is returned.

        With `handed_over` it goes to another queue of the sink, and is over here. Otherwise each one has to be settled.
        """

    async def end(self, patience: float) -> None:
        """Tell the server within `patience` seconds what is over and what is free again, and hang up."""


Dropped = Callable[[Iterable[Event], Sequence[str], Reason], None]
"""Counts deliveries of one sink that are dropped, and tells of them: the deliveries, the channel of each, and why.

The deliveries are read only when the log tells of each, so they may be records that are still to be decoded.
"""


class Receiver(Protocol):
    """The receiver of a source's batches; never waits."""

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Take raw messages of a source, in the order they came."""

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Make dead letters of entries that the source can't hand on (`poison`, `field`): received, and rejected."""


class Source(Protocol):
    """The origin of events: started once, read until stopped."""

    name: str
    up: bool
    """Whether it reads."""
    reason: str | None
    """Why it does not."""

    @property
    def gaps(self) -> int:
        """The number of times that events may have been missed; only pub/sub misses any."""

    @property
    def gap_seconds(self) -> float:
        """For how long, in all."""

    @property
    def address(self) -> str:
        """The server's address, without credentials."""

    @property
    def in_flight(self) -> int:
        """Entries that were handed on and are not complete; 0 for a source that does not wait to hear of its entries."""

    @property
    def duplicates(self) -> int:
        """Copies of events that were dropped because another subscription of this source brought the same event."""

    @property
    def trimmed(self) -> int:
        """Entries that were trimmed or deleted before they came to an end here; only streams lose any that way."""

    @property
    def trimmed_exact(self) -> bool:
        """True if `trimmed` is exact; else at least so many entries were trimmed."""

    @property
    def possibly_repeated(self) -> int:
        """Entries that came to an end here though another router may have had them too."""

    def signs(self) -> Iterable[Sign]:
        """Return what the source is at. A server that is away and asked again and again is no hang."""

    def succeed(self, other: Source) -> None:
        """Take the place of a source that stops: what it has in flight and still acknowledges is not read again here."""

    async def start(self) -> None:
        """Connect and subscribe; returns when the server has confirmed everything.

        Raises `UnavailableError` when there is no server within the time allowed, `ConfigError` when it refuses.
        """

    async def run(self) -> None:
        """Read and hand on until `stop`; heals every loss by itself."""

    async def stop(self) -> None:
        """Take no more; returns when the last batch has been handed on."""

    async def close(self) -> None:
        """After the drain: acknowledge what is complete, close the connections."""


class Switchable(Protocol):
    """A source that can read other channels on the connection it has."""

    async def prepare(self, names: Sequence[str], globs: Sequence[str]) -> None:
        """Subscribe to what comes new; what it brings is dropped until `switch`.

        Raises `UnavailableError` when the source is not connected, `ConfigError` for a refused subscription.
        """

    def switch(self) -> None:
        """Read what `prepare` was told, and nothing else, from now on."""

    def give_up(self) -> None:
        """Forget what `prepare` was told."""


class DeadLetters(Protocol):
    """The receiver of dead letters; never waits and never raises."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these letters."""
