"""The life of a source that reads by consumer groups: starting, reading, healing, stopping, closing; floor 4.

One task reads, on a connection of its own: what it left behind when it ended last, then live, and between two reads it
looks for entries of routers that are gone. Whatever breaks, it begins anew from there: nothing is lost, for what is not
acknowledged stays pending in Redis. The work itself is that of any consumer group (`router.broker.groups.group_reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

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
"""How the server's answers begin when the group, or the stream with it, is gone."""


@dataclass(frozen=True, slots=True)
class SourceTiming:
    """How a source of entries watches its connection; all in seconds."""

    block: float = 0.5
    """How long one read waits for entries: as long as `stop` may take."""
    dead_after: float = SILENCE
    """A read that was not answered for so long: the connection is dead. Above `block` by what a busy server may need."""
    first_delay: float = 0.1
    """The first bound of the delay between tries; it doubles up to `longest_delay`, the delay is a random part of it."""
    longest_delay: float = 2.0
    stable: float = 1.0
    """A connection that lasted so long lets the delays begin anew."""
    leave: float = 2.0
    """How long `stop` waits for the read under way, and `close` for the last acknowledgements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHost:
    """What a source of entries is given to work with.

    `connect_timeout` is how long `start` tries, None for ever; `waiting` is told why, each time a try fails. `isolation`
    is shared by everything in the process whose deliveries may end it.
    """

    receiver: Receiver
    clock: Clock
    connect_timeout: float | None = 10.0
    waiting: Callable[[str], None] | None = None
    isolation: CrashIsolation = field(default_factory=CrashIsolation)
    book: SourceBook = field(default_factory=SourceBook)
    heartbeat: Heartbeat | None = None
    """Notices another router under the same name, where the router's own heartbeat can't: on another server."""
    timing: SourceTiming = field(default_factory=SourceTiming)


class Work(Protocol):
    """What a source does between its start and its stop."""

    stop: asyncio.Event
    """Set when no more is to be read."""

    @property
    def fault(self) -> str | None:
        """What can't be read, and why, while the rest is; None: nothing."""

    async def prepare(self, stream: Stream) -> None:
        """Make ready for reading a stream. Raises `Refused`."""

    async def run(self, answered: Callable[[], None]) -> None:
        """Read and hand on until `stop`; `answered` is called whenever Redis has answered."""

    async def end(self) -> None:
        """Read no more: set `stop`, and end a wait for entries."""


class GroupSource:
    """A source that reads streams of one server by a consumer group: the part that all kinds of such sources share."""

    gaps = 0
    gap_seconds = 0.0
    duplicates = 0
    """An entry has no copies."""
    rights = ""
    """What the refusal of a command says of the rights that are needed."""

    def __init__(self, name: str, server: Server, host: SourceHost, reader: GroupReader, work: Work) -> None:
        self.name = name
        self.up = False
        """Whether it reads."""
        self.reason: str | None = "not started"
        """Why it does not."""
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
        """The streams that it reads."""
        return self.reader.streams

    @property
    def resets(self) -> int:
        """How often the group, or the stream with it, was lost and made anew."""
        return self.reader.resets

    @property
    def trimmed(self) -> int:
        """Entries that were trimmed or deleted, and so never came to an end here."""
        return self._host.book.trimmed

    @property
    def trimmed_exact(self) -> bool:
        """Whether `trimmed` is all; else it is at least so many."""
        return self.reader.trimmed.exact

    @property
    def possibly_repeated(self) -> int:
        """Entries that came to an end here though another router may have had them too."""
        return self._host.book.possibly_repeated + sum(stream.hand.possibly_repeated for stream in self.streams)

    @property
    def in_flight(self) -> int:
        """Entries that are not complete."""
        return sum(stream.hand.unsettled for stream in self.streams)

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        part = f"source {self.name}"
        return [
            Sign(part, COMMAND, self.reader.since),
            Sign(f"{part}: keeper", COMMAND, self.reader.acknowledger.since),
        ]

    def succeed(self, other: Source) -> None:
        """Take the place of a source that has stopped, or will before this one runs: what it has in hand is not taken again.

        It goes on acknowledging and renewing that until it is closed. There may be several; those of another kind, server,
        group or consumer mean nothing here.
        """
        if not isinstance(other, GroupSource) or other.address != self.address:
            return
        for stream in self.streams:
            stream.hand.elders += [each.hand for each in other.streams if each.names[:3] == stream.names[:3]]

    # Its life.

    async def start(self) -> None:
        """Connect and make the groups; returns when the server allows everything that will be needed.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` when it refuses.
        """
        self.reason = f"{self._server.shown}: no answer yet"
        host = self._host
        begins = partial(self._log.warning, "not connected; the router keeps trying")
        health = Health(self._server.shown, Outage(host.clock), begins=begins, delays=self._delays)
        who = f"source {self.name}"
        await reach(self._prepare, health, who=who, within=host.connect_timeout, waiting=self._not_yet)
        self.up, self.reason = True, None
        if self._work is self.reader:
            self.reader.acknowledger.start()
            if host.heartbeat is not None:
                host.heartbeat.start()

    async def run(self) -> None:
        """Read and hand on until `stop`; heals every loss by itself, and goes on after a fault of its own or the receiver's."""
        self._ended.clear()
        try:
            while not self._work.stop.is_set():
                await self._guarded()
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Take no more; returns when the last batch has been handed on."""
        await self._work.end()
        leave = self._host.timing.leave
        if not await _within(self._ended.wait(), leave):
            await self.reader.close()  # nobody answers: what the read would have brought stays pending
            await _within(self._ended.wait(), leave)
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Acknowledge what is complete, give the rest back, close the connections."""
        host = self._host
        if host.heartbeat is not None:
            await host.heartbeat.close()
        await self.reader.acknowledger.close(host.timing.leave)
        await self.reader.close()
        # The source that a reload puts in its place goes on counting in the same book.
        host.book.trimmed_exact, host.book.possibly_repeated = self.trimmed_exact, self.possibly_repeated
        for stream in self.streams:
            stream.hand.possibly_repeated = 0

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
        """Do the work until it fails, say why, and wait a little."""
        now, stop = self._host.clock.monotonic, self._work.stop
        began = now()
        try:
            await self._work.run(self._answered)
        except Exception as error:  # noqa: BLE001  # one source must not end the others
            if stop.is_set():
                return
            if now() - began >= self._host.timing.stable:
                self._backoff.reset()
            await self._lose(error)
            await _within(stop.wait(), self._backoff.next())

    async def _lose(self, error: Exception) -> None:
        """Note why it does not read; a lost group is told when it is there again."""
        said = answers.said(error)
        reason = str(client.explain(error, self._server.shown))
        if isinstance(error, failures.ResponseError) and said.startswith(LOST):
            self.up, self.reason = False, reason
            self.reader.unsure(lost=True)
            return
        if isinstance(error, failures.ResponseError) and said.startswith("WRONGTYPE"):
            reason = f"{self._server.shown}: a key of this source holds something that is no stream"
        ended = self.up and isinstance(error, failures.ConnectionError)  # says nothing of the server: the next try does
        if not ended and self._outage.failed(reason):
            self._log.warning("not reading; the router keeps trying", reason=reason, exc_info=client.unexpected(error))
        self.up, self.reason = False, reason
        if not isinstance(error, failures.ResponseError) or answers.passes(error):
            self.reader.unsure()
            await self.reader.close()

    def _answered(self) -> None:
        """Note that Redis has answered a read."""
        if self._outage.succeeded() is not None:
            self._log.warning("reading again")
        fault = self._work.fault
        self.up, self.reason = fault is None, fault


def logger(name: str, server: Server) -> structlog.stdlib.BoundLogger:
    """Return the logger of a source."""
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__).bind(source=name, address=server.shown)
    return found


async def _within(what: Awaitable[object], seconds: float) -> bool:
    """Wait for something; return whether it came within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what
            return True
    return False
