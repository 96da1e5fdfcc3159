"""The stream source: reads by a consumer group, and acknowledges an entry when all that came of it is over; floor 4.

One task reads, on a connection of its own: what it left behind when it ended last, then live, and between two reads it
looks for entries of routers that are gone. Whatever breaks, it begins anew from there: nothing is lost, for what is not
acknowledged stays pending in Redis. The work itself is that of any consumer group (`router.broker.groups.group_reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from redis import exceptions as failures

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group import Refused
from router.broker.groups.group_reader import GroupReader, NewEntries
from router.broker.groups.group_stream import START, Membership, Stream
from router.broker.groups.in_flight import Names
from router.broker.server import answers, client
from router.broker.server.client import SILENCE, Backoff, Server
from router.broker.server.health import Health, reach
from router.broker.server.link import COMMAND, Link
from router.broker.server.outage import Outage
from router.contracts import Clock, Receiver, Sign, Source
from router.core.accounts.books import SourceBook
from router.errors import ConfigError, Problem

LOST = ("NOGROUP", "UNBLOCKED")
"""How the server's answers begin when the group, or the stream with it, is gone."""


@dataclass(frozen=True, slots=True)
class StreamTiming:
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
class StreamOptions(Membership):
    """What the configuration says of a stream source."""

    streams: Sequence[str]
    payload_field: str = "payload"
    """The field that becomes the payload; the others become headers."""
    observe: bool = False
    """Only look on: read what is added from now on, without a group, and acknowledge nothing."""


class StreamObserver:
    """What a stream source does under `deliver: print`. One read brings `most` entries at most and waits for `block` seconds."""

    def __init__(
        self, link: Link, streams: Sequence[Stream], batches: EntryBatches, *, most: int, block: float
    ) -> None:
        self.stop = asyncio.Event()
        self._link = link
        self._streams = streams
        self._batches = batches
        self._words = ("XREAD", "COUNT", most, "BLOCK", max(1, int(block * 1000)), "STREAMS")

    async def prepare(self, stream: Stream) -> None:
        """Begin behind the newest entry."""
        newest = await self._link.call("XREVRANGE", stream.key, "+", "-", "COUNT", 1)
        stream.progress.last = newest[0][0] if newest else START

    async def run(self, answered: Callable[[], None]) -> None:
        """Read and hand on; `answered` is called whenever Redis has answered."""
        keys = [stream.key for stream in self._streams]
        by_key = {stream.key: stream for stream in self._streams}
        while not self.stop.is_set():
            reply = await self._link.call(*self._words, *keys, *[each.progress.last for each in self._streams])
            answered()
            for key, entries in reply or ():
                by_key[key].progress.last = entries[-1][0]
                self._batches.hand_on(by_key[key], entries, None)


class StreamSource:
    """A source that reads streams of one server by a consumer group.

    `isolation` is shared by everything in the process whose deliveries may end it. `connect_timeout` is how long `start`
    tries, None for ever; `waiting` is told why, each time a try fails.
    """

    gaps = 0
    gap_seconds = 0.0
    duplicates = 0
    """An entry has no copies."""

    def __init__(
        self,
        name: str,
        server: Server,
        options: StreamOptions,
        *,
        receiver: Receiver,
        clock: Clock,
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        isolation: CrashIsolation | None = None,
        timing: StreamTiming | None = None,
        book: SourceBook | None = None,
    ) -> None:
        self.name = name
        self.up = False
        """Whether it reads."""
        self.reason: str | None = "not started"
        """Why it does not."""
        self._book = book or SourceBook()
        self._server = server
        self._timing = timing = timing or StreamTiming()
        self._link = link = Link(server, timing.dead_after)
        self._log = structlog.stdlib.get_logger(__name__).bind(source=name, address=server.shown)
        self.streams = streams = [
            Stream(Names(key.encode(), options.group, options.consumer, options.marks)) for key in options.streams
        ]
        batches = EntryBatches(name, receiver, payload_field=options.payload_field, log=self._log)
        self.reader = GroupReader(
            server,
            link,
            streams,
            NewEntries(link, streams, timing.block),
            options,
            batches=batches,
            isolation=isolation or CrashIsolation(),
            book=self._book,
            clock=clock,
            log=self._log,
        )
        self._work: GroupReader | StreamObserver = self.reader
        if options.observe:
            self._work = StreamObserver(link, streams, batches, most=options.max_in_flight, block=timing.block)
        self._clock = clock
        self._connect_timeout, self._waiting = connect_timeout, waiting
        self._delays = timing.first_delay, timing.longest_delay
        self._backoff = Backoff(*self._delays)
        self._outage = Outage(clock)
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def resets(self) -> int:
        """How often the group, or the stream with it, was lost and made anew."""
        return self.reader.resets

    @property
    def trimmed(self) -> int:
        """Entries that were trimmed or deleted, and so never came to an end here."""
        return self._book.trimmed

    @property
    def trimmed_exact(self) -> bool:
        """Whether `trimmed` is all; else it is at least so many."""
        return self.reader.trimmed.exact

    @property
    def possibly_repeated(self) -> int:
        """Entries that came to an end here though another router may have had them too."""
        return self._book.possibly_repeated + sum(stream.hand.possibly_repeated for stream in self.streams)

    @property
    def in_flight(self) -> int:
        """Entries that are not complete."""
        return sum(stream.hand.unsettled for stream in self.streams)

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        part = f"source {self.name}"
        return [
            Sign(part, COMMAND, self._link.since),
            Sign(f"{part}: keeper", COMMAND, self.reader.acknowledger.since),
        ]

    def succeed(self, other: Source) -> None:
        """Take the place of a source that has stopped, or will before this one runs: what it has in hand is not taken again.

        It goes on acknowledging and renewing that until it is closed. There may be several; those of another kind, server,
        group or consumer mean nothing here.
        """
        if not isinstance(other, StreamSource) or other.address != self.address:
            return
        for stream in self.streams:
            stream.hand.elders += [each.hand for each in other.streams if each.names[:3] == stream.names[:3]]

    # Its life.

    async def start(self) -> None:
        """Connect and make the groups; returns when the server allows everything that will be needed.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` when it refuses.
        """
        self.reason = f"{self._server.shown}: no answer yet"
        begins = partial(self._log.warning, "not connected; the router keeps trying")
        health = Health(self._server.shown, Outage(self._clock), begins=begins, delays=self._delays)
        await reach(
            self._prepare, health, who=f"source {self.name}", within=self._connect_timeout, waiting=self._not_yet
        )
        self.up, self.reason = True, None
        if self._work is self.reader:
            self.reader.acknowledger.start()

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
        self._work.stop.set()
        self.reader.stirred()
        try:
            async with asyncio.timeout(self._timing.leave):
                await self._ended.wait()
        except TimeoutError:
            await self._link.close()  # nobody answers: what the read would have brought stays pending
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.leave):
                    await self._ended.wait()
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Acknowledge what is complete, give the rest back, close the connections."""
        await self.reader.acknowledger.close(self._timing.leave)
        await self._link.close()
        # The source that a reload puts in its place goes on counting in the same book.
        self._book.trimmed_exact, self._book.possibly_repeated = self.trimmed_exact, self.possibly_repeated
        for stream in self.streams:
            stream.hand.possibly_repeated = 0

    async def _prepare(self) -> None:
        for stream in self.streams:
            try:
                await self._work.prepare(stream)
            except Refused as error:
                raise ConfigError([Problem(f"{self._server.shown} {error}", path=f"sources.{self.name}")]) from error

    def _not_yet(self, reason: str) -> None:
        self.reason = reason
        if self._waiting is not None:
            self._waiting(reason)

    async def _guarded(self) -> None:
        """Do the work until it fails, say why, and wait a little."""
        began, stop = self._clock.monotonic(), self._work.stop
        try:
            await self._work.run(self._answered)
        except Exception as error:  # noqa: BLE001  # one source must not end the others
            if stop.is_set():
                return
            if self._clock.monotonic() - began >= self._timing.stable:
                self._backoff.reset()
            await self._lose(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next()):
                    await stop.wait()

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
            await self._link.close()

    def _answered(self) -> None:
        """Note that Redis has answered a read."""
        if self._outage.succeeded() is not None:
            self._log.warning("reading again")
        self.up, self.reason = True, None
