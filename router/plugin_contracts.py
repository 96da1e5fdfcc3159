"""The interfaces for plugin authors: the base class of sinks, and the tools for sinks and lookups; floor 1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import msgspec
from pydantic import BaseModel

from router.contracts import Clock
from router.errors import SinkError
from router.options import STRICT, SinkOptions

if TYPE_CHECKING:
    import ssl

    from structlog.stdlib import BoundLogger  # the import takes 50 ms, and `check` does not need it

QueueType = Literal["memory", "redis"]
Execution = Literal["process"]

Result = str | Exception | None
"""The result for one delivery of a batch: None or the service's answer if the delivery succeeded, else the error."""


class HttpResponse(Protocol):
    """The answer to one HTTP request."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers. Their names are case-insensitive."""

    @property
    def body(self) -> bytes:
        """The first 64 KiB of the body."""

    def json(self) -> Any:
        """Return the decoded body. Raises `ValueError` if it is not JSON."""


class HttpClient(Protocol):
    """The guarded HTTP client of a sink. It checks addresses when it connects, and never follows a redirect."""

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
        """Send one request and return the answer, whatever its status is.

        The URL is sent as written, including `%2F`. `allow_private` permits a private address for this request; the
        sink's key `allow_private` in the configuration permits it for all requests.

        Raises `TransientError` (no connection, no answer), `SinkError` (a certificate that can't be trusted) or
        `PermanentError` (a private address, a URL with a space or a letter outside ASCII). No error text contains the URL,
        because the URL may hold a credential.
        """


class RedisClient(Protocol):
    """The Redis client of a sink. It has at most four connections of its own, and a time limit of 5 seconds per call.

    A command is a sequence of words (`"HGET", "key", "field"`). Answers are those of RESP2: bytes, integers, lists and
    None. Errors are delivery errors, so that a sink need not catch them: `TransientError` (no connection, no answer in
    time, LOADING, READONLY, OOM, BUSY and similar), `SinkError` (a refused login, a missing permission, a server that
    is not Redis) and `PermanentError` (WRONGTYPE, and any other refusal of the command). No command is sent twice.
    """

    async def call(self, *words: str | bytes | int) -> Any:
        """Send one command and return its answer. Raises a delivery error."""

    async def pipeline(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Send commands together; return the answer or the error of each command, in order.

        Raises `TransientError` or `SinkError` if the server can't be reached; even then, some commands may have been
        executed.
        """


class MessageMemory(Protocol):
    """The memory of a sink's messages by key and address, in the router's Redis, for options of the type `Key`.

    The memory stores a short string for each message, such as the service's id of the message. A string is forgotten 30 days
    after it was stored, or earlier if the sink stores more than 100,000 messages. Routers that share their Redis share the
    memory of a sink with the same name. Errors are those of `RedisClient`, so that a sink need not catch them.
    """

    async def find(self, wanted: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the stored string for each pair of key and address; None for a pair for which no string is stored."""

    async def keep(self, messages: Mapping[tuple[str, str], str]) -> None:
        """Store a string for each pair of key and address, and replace an earlier one. Return when Redis has stored them."""


class SinkContext(Protocol):
    """The tools of a sink: its log, HTTP client, Redis clients, threads, a clock and a state."""

    name: str
    """The sink's name in the configuration."""
    log: BoundLogger
    """A logger that adds the sink's name: `context.log.warning("what happened", detail=…)`."""
    clock: Clock
    base: str
    """The folder at which relative paths of written files start."""
    state: dict[str, Any]
    """A dictionary that the sink's workers share, until a reload changes the sink's definition or its plugin's code."""

    @property
    def http(self) -> HttpClient:
        """The sink's guarded HTTP client, created on first use."""

    def http_with(self, tls: ssl.SSLContext) -> HttpClient:
        """Return another guarded HTTP client, which uses the TLS context `tls`, for example with a client certificate.

        Call this method in `open`. The router closes the client after the sink.
        """

    @property
    def redis(self) -> RedisClient | None:
        """A client of the router's own Redis, created on first use and closed after the sink.

        The value is None in threads (a plain `def`, `run_blocking`), and with `deliver: print`, which writes nothing to Redis.
        A sink with `execution="process"` has no context.
        """

    @property
    def messages(self) -> MessageMemory | None:
        """The memory of the messages that the sink has sent; None if `redis` is None."""

    def redis_at(self, url: str) -> RedisClient | None:
        """Return the client of the Redis server at `url`, which comes from the sink's options; None if `redis` is None.

        Raises `SinkError` for a URL that can't be used.
        """

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this sink; return its result or raise its exception."""


def message_memory(context: SinkContext, *options: str) -> MessageMemory:
    """Return the memory of the sink's messages for the `options` that need it, such as `thread`.

    Raises `SinkError` if there is no memory. Its text tells the operator what to do.
    """
    memory = context.messages
    if memory is None:
        named = " and ".join(f"`{option}`" for option in options)
        need, keys = ("needs", "this option") if len(options) == 1 else ("need", "these options")
        cure = f"remove `deliver: print` or {keys}"
        raise SinkError(f"{named} {need} the router's Redis, which is not used with `deliver: print`: {cure}")
    return memory


class Sink:
    """The base class of sinks that open and close something. A class with the same methods need not inherit from it.

    `__init__` takes the sink's options as configured; their templates are not rendered. Define one of these methods:

    - `async def deliver(self, event, options)`: make one delivery. If it succeeds, return None, or the service's answer as
      `str`, such as a message id. Otherwise raise `TransientError`, `PermanentError`, `GoneError`, `SinkError` or
      `PartialError`.
    - `async def deliver_batch(self, batch)`: make several deliveries, given as (event, options) pairs. If all succeed,
      return None. Otherwise return one result for each pair, in order: None or the service's answer if the delivery
      succeeded, else the exception.
    """

    local: ClassVar[bool] = False
    """True if the sink writes on this machine only. The router calls such a sink even with `deliver: print`."""
    runs_programs: ClassVar[bool] = False
    """True if the sink runs programs of the operator. The router refuses it without `allow_commands: true`."""

    async def open(self, context: SinkContext) -> None:
        """Prepare for deliveries. This method is called once before the first delivery, and again if it raises an exception."""

    async def close(self) -> None:
        """Release what `open` has acquired. This method is called once, after the last delivery."""


SinkCallable = Callable[..., Awaitable[str | None]] | Callable[..., str | None] | type[Any]
"""An async function, a plain function, or a class."""


class LookupOptions(BaseModel):
    """The base class of a lookup's options. Types are strict, unknown keys are refused, and objects are frozen.

    The options contain no templates.
    """

    model_config = STRICT


class LookupContext(Protocol):
    """The tools of a lookup: its log, HTTP client, threads and a clock."""

    name: str
    """The lookup's name in the configuration."""
    log: BoundLogger
    """A logger that adds the lookup's name."""
    clock: Clock

    @property
    def http(self) -> HttpClient:
        """The lookup's guarded HTTP client, created on first use."""

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking function in a daemon thread of this lookup; return its result or raise its exception."""


Found = Mapping[str, Any] | Exception | None
"""The result for one key: the record, None if there is no such record, or the error."""

LookupCallable = (
    Callable[..., Awaitable[Mapping[str, Any] | None]] | Callable[..., Mapping[str, Any] | None] | type[Any]
)
"""An async function, a plain function, or a class."""


class LookupType(msgspec.Struct, frozen=True):
    """A type of lookup that a plugin has registered."""

    name: str
    fetch: LookupCallable
    options: type[LookupOptions]
    origin: str
    """The plugin's name in `event-router plugins`."""


class SinkType(msgspec.Struct, frozen=True):
    """A type of sink that a plugin has registered."""

    name: str
    sink: SinkCallable
    options: type[SinkOptions]
    queue: QueueType
    concurrency: int
    batch: int | None
    execution: Execution | None
    origin: str
    """The plugin's name in `event-router plugins`."""
    sources: Mapping[Path, bytes] = msgspec.field(default_factory=dict)
    """The contents of a drop-in's files as they were loaded, for processes that load the plugin again."""

    def __repr__(self) -> str:
        return f"SinkType({self.name!r}, {self.origin!r})"

    @property
    def local(self) -> bool:
        """True if the sink writes on this machine only."""
        return bool(getattr(self.sink, "local", False))

    @property
    def runs_programs(self) -> bool:
        """True if the sink runs programs, so that it needs `allow_commands: true`."""
        return bool(getattr(self.sink, "runs_programs", False))
