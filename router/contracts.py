"""The protocols that floors hand to each other; floor 1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from router.errors import Reason
from router.events import DeadLetter, Event, Outcome, RawBatch
from router.options import SinkOptions

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger  # takes 50 ms to import, which `check` can do without

QueueType = Literal["memory", "redis"]
Execution = Literal["process"]

Result = Exception | None
"""How one delivery of a batch ended: None delivered, else what was wrong."""


class Clock(Protocol):
    """Time, as the host sees it; tests hand in one that they move."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class HttpResponse(Protocol):
    """The answer of one HTTP request."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; a name is found however it is written."""

    @property
    def body(self) -> bytes:
        """At most the first 64 KiB."""

    def json(self) -> Any:
        """The decoded body. Raises `ValueError` when it is not JSON."""


class HttpClient(Protocol):
    """The guarded HTTP client of a sink: addresses are checked when they are dialled, redirects are never followed."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
    ) -> HttpResponse:
        """Send one request and return its answer, whatever its status.

        The URL goes out as it is written, `%2F` included. `allow_private` lets this request reach a private address; all
        of a sink's may when the sink's key `allow_private` says so.

        Raises `TransientError` (no connection, no answer), `SinkError` (a certificate that can't be trusted) or
        `PermanentError` (a private address, a URL with a space or a letter outside ASCII). No error names the URL: it
        may hold a credential.
        """


class SinkContext(Protocol):
    """What a sink is given to work with."""

    name: str
    """The sink's name in the configuration."""
    log: BoundLogger
    """A logger that knows the sink: `context.log.warning("what happened", detail=…)`."""
    clock: Clock
    base: str
    """The folder that relative paths to be written are in."""

    @property
    def http(self) -> HttpClient:
        """The sink's guarded HTTP client, made on first use."""

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this sink and return what it returns."""


class Sink:
    """A sink with a life: the base for classes (a class that has the methods will do without it).

    `__init__` takes the sink's options as they stand in the configuration, templates unrendered. Define one of

    - `async def deliver(self, event, options)`: return = delivered; raise `TransientError`, `PermanentError`, `SinkError`
      or `PartialError`;
    - `async def deliver_batch(self, batch)`: takes (event, options) pairs; returns None when all are delivered, else one
      `None | Exception` per pair, in order.
    """

    local: ClassVar[bool] = False
    """Whether it writes on this machine only, so that `deliver: print` need not hold it back."""

    async def open(self, context: SinkContext) -> None:
        """Called once before the first delivery, and again after an exception until it succeeds."""

    async def close(self) -> None:
        """Called once at the end; deliveries have ended."""


SinkCallable = Callable[..., Awaitable[None]] | Callable[..., None] | type[Any]
"""An async function, a plain function, or a class."""


@dataclass(frozen=True, slots=True)
class SinkType:
    """What a plugin registered under a name, and where that came from."""

    name: str
    sink: SinkCallable
    options: type[SinkOptions]
    queue: QueueType
    concurrency: int
    batch: int | None
    execution: Execution | None
    origin: str
    """The plugin it came from, as `event-router plugins` names it."""

    @property
    def local(self) -> bool:
        """Whether it writes on this machine only."""
        return bool(getattr(self.sink, "local", False))


class Receipt(Protocol):
    """What a source that acknowledges hears of the entries it handed over, each by its position in the batch.

    An entry is complete, and acknowledged, when all that was expected of it is over.
    """

    def expect(self, position: int, deliveries: int) -> None:
        """So many deliveries (or dead letters) were made of it; 0 = complete at once. Called once for each position."""

    def add(self, position: int, deliveries: int) -> None:
        """One of its deliveries was split: so many more have to be over."""

    def settle(self, position: int) -> None:
        """One of its deliveries is over."""

    def returned(self, position: int) -> None:
        """An attempt of one of its deliveries came back and will be repeated: it did not end the process."""


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


@runtime_checkable
class RemovableReceipt(Receipt, Protocol):
    """A receipt whose entries may leave their source in the very step that makes their deliveries durable."""

    def open(self, position: int) -> int:
        """How many of its deliveries are not over."""

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """What becomes of the entry when its deliveries to Redis queues stand there; None where it is on another server.

        `whole` says that those are all that is open of it. Else it stays, and is known as handed over in part.
        """

    def handed_over(self, position: int) -> None:
        """One of its deliveries is over: it stands in a Redis queue, and its entry has left the source already."""

    def marked(self, position: int) -> None:
        """Its deliveries to Redis queues stand there, and it is known as handed over in part.

        Whoever takes it from its source later makes that forgotten in the same step.
        """


@runtime_checkable
class DisputableReceipt(RemovableReceipt, Protocol):
    """A receipt whose entries Redis may forget (trimmed, a lost group), or give to another router."""

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
