"""The life of a source that reads by consumer groups: starting, reading, healing, stopping, closing; floor 4.

One task reads on its own connection: first the entries that are pending since the last run, then new entries. From time
to time the task claims entries of dead routers. After any error the task begins again with the pending entries. No
entry is lost, because entries stay pending in Redis until they are acknowledged. The reading itself is in
`router.broker.groups.group_reader`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
import structlog
from redis import exceptions as failures

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.group import Refused
from router.broker.groups.group_reader import GroupReader
from router.broker.groups.group_stream import Stream
from router.broker.groups.heartbeat import Heartbeat
from router.broker.server import answers, client
from router.broker.server.client import SILENCE, Backoff, Server
from router.broker.server.health import Health, reach
from router.broker.server.link import COMMAND
from router.broker.server.outage import Outage
from router.contracts import Clock, Receiver, Sign, Source
from router.core.accounts.books import SourceBook
from router.errors import ConfigError, Problem

LOST = ("NOGROUP", "UNBLOCKED")
"""The first words of those errors of the server which mean that a group or stream is lost."""


class SourceTiming(msgspec.Struct, frozen=True):
    """The timing of a source's connection, in seconds."""

    block: float = 0.5
    """The longest time that one read waits for entries. If `hang_up` is False, `stop` may take this time too."""
    hang_up: bool = False
    """True if `stop` closes the connection of a read under way. An entry that the server delivers at that moment stays
    pending until the next start."""
    dead_after: float = SILENCE
    """The time without an answer to a read after which the connection counts as dead. This time is longer than `block`,
    because a busy server may answer late."""
    first_delay: float = 0.1
    """The upper limit of the first delay between attempts. The limit doubles with each attempt, up to `longest_delay`.
    Each delay is a random time below its limit."""
    longest_delay: float = 2.0
    stable: float = 1.0
    """The time that a connection must last so that the delays begin with `first_delay` again."""
    leave: float = 2.0
    """The time that `stop` waits for the read under way, and `close` for the last acknowledgements."""


class SourceHost(msgspec.Struct, frozen=True, kw_only=True):
    """The environment of a source: callbacks and objects that it shares with the router.

    `start` tries to connect for `connect_timeout` seconds (None: no limit). `start` calls `waiting` with the reason after
    each failed attempt. `isolation` is shared by all sources and queues of the process.
    """

    receiver: Receiver
    clock: Clock
    connect_timeout: float | None = 10.0
    waiting: Callable[[str], None] | None = None
    isolation: CrashIsolation = msgspec.field(default_factory=CrashIsolation)
    book: SourceBook = msgspec.field(default_factory=SourceBook)
    heartbeat: Heartbeat | None = None
    """The heartbeat that notices another router of the same name. None if this source is in the router's own Redis,
    where the router has a heartbeat already."""
    timing: SourceTiming = msgspec.field(default_factory=SourceTiming)


class Work(Protocol):
    """The reading of a source between its start and its stop."""

    stop: asyncio.Event
    """Set to end the reading."""

    @property
    def fault(self) -> str | None:
        """The faults of lists that can't be read, or None. The other lists are still read. Always None for streams."""

    async def prepare(self, stream: Stream) -> None:
        """Prepare the reading of a stream. Raises `Refused` if the server does not allow the reading."""

    async def run(self, answered: Callable[[], None]) -> None:
        """Read entries and pass them to the receiver until `stop` is set; call `answered` after each answer of Redis."""

    async def end(self) -> None:
        """Stop reading: set `stop`, and end a wait for entries."""


class NothingAhead(NamedTuple):
    """The read-ahead of a source that reads nothing ahead. Implements `contracts.ReadAheadFigures`."""

    size: int = 0
    peak: int = 0
    lost: int = 0


NOTHING_AHEAD = NothingAhead()


class GroupSource:
    """A source that reads streams of one server by a consumer group: the common part of stream and list sources."""

    gaps = 0
    gap_seconds = 0.0
    read_ahead = NOTHING_AHEAD
    """The empty read-ahead, because entries are passed to the receiver as soon as they are read."""
    duplicates = 0
    """The number of dropped copies of events: always 0, because Redis delivers an entry only once to the source."""
    rights = ""
    """The text about the required permissions that ends a message about a refused command."""

    def __init__(self, name: str, server: Server, host: SourceHost, reader: GroupReader, work: Work) -> None:
        self.name = name
        self.up = False
        """True while the source reads."""
        self.reason: str | None = "not started"
        """The reason why the source does not read; None while it reads."""
        self.reader = reader
        self._host = host
        self._server = server
        self._log = logger(name, server)
        self._work = work
        self._delays = host.timing.first_delay, host.timing.longest_delay
        self._backoff = Backoff(*self._delays)
        self._outage = Outage(host.clock)
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams of the source."""
        return self.reader.streams

    @property
    def resets(self) -> int:
        """The number of times that a group or its stream was lost and created again."""
        return self.reader.resets

    @property
    def trimmed(self) -> int:
        """The number of entries that were trimmed or deleted before they were delivered."""
        return self._host.book.trimmed

    @property
    def trimmed_exact(self) -> bool:
        """True if `trimmed` is exact; otherwise it is a lower bound."""
        return self.reader.trimmed.exact

    @property
    def possibly_repeated(self) -> int:
        """The number of entries that this router completed and that another router may have delivered too."""
        return self._host.book.possibly_repeated + sum(stream.in_flight.possibly_repeated for stream in self.streams)

    @property
    def in_flight(self) -> int:
        """The number of entries that are not complete."""
        return sum(stream.in_flight.unsettled for stream in self.streams)

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        part = f"source {self.name}"
        return [
            Sign(part, COMMAND, self.reader.since),
            Sign(f"{part}: acknowledgements", COMMAND, self.reader.acknowledger.since),
        ]

    def replace(self, other: Source) -> None:
        """Replace the source `other`, so that its entries in flight are not read again.

        The old source must have stopped before this source runs. The old source goes on acknowledging and renewing its
        entries until it is closed. This method may be called several times. It ignores a source with another kind,
        server, group or consumer.
        """
        if not isinstance(other, GroupSource) or other.address != self.address:
            return
        for stream in self.streams:
            stream.in_flight.predecessors += [
                each.in_flight for each in other.streams if each.names[:3] == stream.names[:3]
            ]

    # Start, run, stop and close.

    async def start(self) -> None:
        """Connect and create the groups; return when the server allows all required commands.

        Raises `UnavailableError` if no server answers within `connect_timeout` seconds, and `ConfigError` if the server
        refuses a command.
        """
        self.reason = f"{self._server.shown}: no answer yet"
        host = self._host
        begins = partial(self._log.warning, "the source is not connected; the router keeps trying")
        health = Health(self._server.shown, Outage(host.clock), begins=begins, delays=self._delays)
        who = f"source {self.name}"
        await reach(self._prepare, health, who=who, within=host.connect_timeout, waiting=self._not_yet)
        self.up, self.reason = True, None
        if self._work is self.reader:
            self.reader.acknowledger.start()
            if host.heartbeat is not None:
                host.heartbeat.start()

    async def run(self) -> None:
        """Read entries and pass them to the receiver until `stop` is called.

        Continue after every error, also after one of the receiver.
        """
        self._ended.clear()
        try:
            while not self._work.stop.is_set():
                await self._guarded()
        finally:
            self._ended.set()

    async def stop(self, patience: float = 0.0) -> None:  # noqa: ARG002  # nothing is read ahead
        """Stop reading; return when the last batch was passed to the receiver."""
        await self._work.end()
        leave = self._host.timing.leave
        if not await _within(self._ended.wait(), leave):
            await self.reader.close()  # the server does not answer; entries that this read would return stay pending
            await _within(self._ended.wait(), leave)
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Acknowledge complete entries, release the other entries in flight, and close the connections."""
        host = self._host
        if host.heartbeat is not None:
            await host.heartbeat.close()
        await self.reader.acknowledger.close(host.timing.leave)
        await self.reader.close()
        # Store the counts in the book: the source that replaces this one in a reload continues with the same book.
        host.book.trimmed_exact, host.book.possibly_repeated = self.trimmed_exact, self.possibly_repeated
        for stream in self.streams:
            stream.in_flight.possibly_repeated = 0

    async def _prepare(self) -> None:
        for stream in self.streams:
            try:
                await self._work.prepare(stream)
            except Refused as error:
                message = f"{self._server.shown} {error}{self.rights}"
                raise ConfigError([Problem(message, path=f"sources.{self.name}")]) from error

    def _not_yet(self, reason: str) -> None:
        self.reason = reason
        if self._host.waiting is not None:
            self._host.waiting(reason)

    async def _guarded(self) -> None:
        """Run the work until it stops or fails. After a failure, log the error and wait before the next attempt."""
        now, stop = self._host.clock.monotonic, self._work.stop
        began = now()
        try:
            await self._work.run(self._answered)
        except Exception as error:  # noqa: BLE001  # an error in one source must not end the others
            if stop.is_set():
                return
            if now() - began >= self._host.timing.stable:
                self._backoff.reset()
            await self._lose(error)
            await _within(stop.wait(), self._backoff.next())

    async def _lose(self, error: Exception) -> None:
        """Record why the source does not read. The loss of a group is logged when the group is restored."""
        said = answers.error_text(error)
        reason = str(client.explain(error, self._server.shown))
        if isinstance(error, failures.ResponseError) and said.startswith(LOST):
            self.up, self.reason = False, reason
            self.reader.answer_lost(group_lost=True)
            return
        if isinstance(error, failures.ResponseError) and said.startswith("WRONGTYPE"):
            reason = f"{self._server.shown}: a key of this source holds a value that is not a stream"
        # The end of a working connection is not logged, because the next attempt shows the state of the server.
        ended = self.up and isinstance(error, failures.ConnectionError)
        if not ended and self._outage.failed(reason):
            self._log.warning(
                "the source does not read; the router keeps trying", reason=reason, exc_info=client.unexpected(error)
            )
        self.up, self.reason = False, reason
        if not isinstance(error, failures.ResponseError) or answers.is_temporary(error):
            self.reader.answer_lost()
            await self.reader.close()

    def _answered(self) -> None:
        """Record that Redis has answered a read."""
        if self._outage.succeeded() is not None:
            self._log.warning("the source reads again")
        fault = self._work.fault
        self.up, self.reason = fault is None, fault


def logger(name: str, server: Server) -> structlog.stdlib.BoundLogger:
    """Return the logger of a source."""
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__).bind(source=name, address=server.shown)
    return found


async def _within(what: Awaitable[object], seconds: float) -> bool:
    """Await `what`; return whether it finished within this number of seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what
            return True
    return False
