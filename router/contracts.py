"""The protocols that floors hand to each other; floor 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """What the script that appends an entry's deliveries to Redis queues does to the entry itself, in the same step.

    `kind` says what, and with it whether the deliveries are appended:

    - `xack`: acknowledges the entry `item` of the stream `key` for the `group`. Appends, unless it is pending for another
      consumer than `owner`, or marked.
    - `mark`: marks it (the same words) as handed over. Appends, unless it is pending for another, or was marked.
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
    """What one part of the router is at, for who asks whether it gets on.

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


class Queue(Protocol):
    """Where the deliveries of one sink wait; it keeps the sink's book of what becomes of them."""

    @property
    def events(self) -> int:
        """Deliveries that are not settled, as far as this router knows."""

    @property
    def delayed(self) -> int:
        """Those of them that wait for their next attempt."""

    def put(self, events: list[Event], size: int) -> None:
        """Take deliveries whose payloads have `size` bytes together. Never waits: what has no room is dropped, counted."""

    async def take(self, most: int) -> tuple[list[Event], int]:
        """The next deliveries, at least one and at most `most`, and their bytes; waits until there are some."""

    def keep(self, event: Event) -> bool:
        """Whether a delivery in hand that is not being attempted may stay there for long; else hand it back by `later`."""

    def later(self, event: Event, delay: float) -> None:
        """Hand back a delivery that was taken, to be tried again after `delay` seconds."""

    def give_back(self, events: Sequence[Event]) -> None:
        """Hand back deliveries that were taken and not attempted: they are the next to be taken, in this order."""

    def split(self, event: Event, parts: list[Event]) -> None:
        """A delivery in hand was handed over to `parts`, which are in hand now instead of it."""

    def settle(self, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Deliveries in hand are over, all in the same way; `size` are the bytes of their payloads."""

    async def settled(self) -> None:
        """Wait until nothing is left that this router could deliver."""

    def due_in(self) -> float | None:
        """Seconds until the next delayed delivery is due, 0 or less where it is due; None when none waits."""

    def holds_up(self, hand: Sequence[Event]) -> bool:
        """Whether an end has to wait for more here than attempts under way; `hand` waits with the workers for its turn."""

    def close(self, hand: Sequence[Event]) -> int:
        """End: `hand` are deliveries in hand that will not be settled. Returns how many are lost with this process."""


Dropped = Callable[[Iterable[Event], Sequence[str], Reason], None]
"""Counts deliveries of one sink that are dropped, and tells of them: the deliveries, the channel of each, and why.

The deliveries are read only when the log tells of each, so they may be records that are still to be decoded.
"""


class Receiver(Protocol):
    """What a source hands its batches to; never waits."""

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Take raw messages of a source, in the order they came."""

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Make dead letters of entries that the source can't hand on (`poison`, `field`): received, and rejected."""


class Source(Protocol):
    """Where events come from: started once, read until stopped."""

    name: str
    up: bool
    """Whether it reads."""
    reason: str | None
    """Why it does not."""
    gaps: int
    """How often events may have been missed; only pub/sub misses any."""
    gap_seconds: float
    """For how long, in all."""

    @property
    def address(self) -> str:
        """The server's address, without credentials."""

    def signs(self) -> Iterable[Sign]:
        """What it is at. A server that is away and asked again and again is no hang."""

    @property
    def duplicates(self) -> int:
        """Copies of events that were dropped because another subscription of this source brought the same event."""

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


class DeadLetters(Protocol):
    """Where dead letters go; never waits and never raises."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these letters."""
