"""What a plugin author reads: the base of sinks, and what a sink is given to work with; floor 1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from router.contracts import Clock
from router.options import SinkOptions

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger  # takes 50 ms to import, which `check` can do without

QueueType = Literal["memory", "redis"]
Execution = Literal["process"]

Result = str | Exception | None
"""How one delivery of a batch ended: delivered (None, or the other side's answer), else what was wrong."""


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
    """The tools that a sink is given: its log, the HTTP client, threads, a clock."""

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

    - `async def deliver(self, event, options)`: return = delivered; a `str` is the other side's answer, such as a message
      id; raise `TransientError`, `PermanentError`, `SinkError` or `PartialError`;
    - `async def deliver_batch(self, batch)`: takes (event, options) pairs; returns None when all are delivered, else one
      `None | str | Exception` per pair, in order: delivered, delivered with that answer, or what was wrong.
    """

    local: ClassVar[bool] = False
    """Whether it writes on this machine only, so that `deliver: print` need not hold it back."""

    async def open(self, context: SinkContext) -> None:
        """Called once before the first delivery, and again after an exception until it succeeds."""

    async def close(self) -> None:
        """Called once at the end; deliveries have ended."""


SinkCallable = Callable[..., Awaitable[str | None]] | Callable[..., str | None] | type[Any]
"""An async function, a plain function, or a class."""


@dataclass(frozen=True, slots=True)
class SinkType:
    """A type of sink, as a plugin registered it under a name, and where that came from."""

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
        """True if the sink writes on this machine only."""
        return bool(getattr(self.sink, "local", False))
