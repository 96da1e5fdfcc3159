"""The stream source: reads by a consumer group, and acknowledges an entry when all that came of it is over; floor 4.

One task reads, on a connection of its own: what it left behind when it ended last, then live, and between two reads it
looks for entries of routers that are gone. Whatever breaks, it begins anew from there: nothing is lost, for what is not
acknowledged stays pending in Redis. Acknowledging goes another way, `router.broker.streams.acknowledger`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import structlog
from redis import exceptions as failures

from router.broker.groups.crash_isolation import CrashIsolation, before
from router.broker.server import answers, client
from router.broker.server.client import SILENCE, Backoff
from router.broker.server.link import COMMAND, Link
from router.broker.server.outage import Outage
from router.broker.streams.acknowledger import Acknowledger
from router.broker.streams.stream_entries import Entries, Recovered, Stream
from router.broker.streams.stream_group import Entry, Group, Loss, Refused
from router.contracts import Clock, Receiver, Sign, Source
from router.core.accounts.books import SourceBook
from router.core.delivery import claims
from router.core.delivery.claims import Pending, Take
from router.errors import ConfigError, Problem, Reason, UnavailableError
from router.escaping import cut
from router.events import RawBatch, text

REDIS_ID = "redis-id"
"""The header that holds the bare id of an entry."""

POLL = 0.05
"""Seconds between two looks into streams that can't all be waited for together."""

GLANCE = 1.0
"""Seconds between two looks at how far a group has come: so much would come again were it lost where others read with it.

What was trimmed before it was read is seen by such a look too, and may be taken for read where none came in time.
"""

SAY_AGAIN = 60.0
"""Seconds between two lines about entries that are trimmed again and again."""

UNREAD = "entries were trimmed or deleted before anybody had read them: they are lost; trim less, or read faster"
UNFINISHED = "entries of a router that ended before it had finished with them were trimmed or deleted meanwhile"

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
    sweep_every: float = 60.0
    """How often consumers of routers long gone are looked for."""


MakeReceipt = Callable[[Stream, list[bytes]], Entries]
"""Makes the receipt of entries that are ours since they were asked for, or a little later."""


class StreamSource:
    """A source that reads streams of one server by a consumer group.

    `payload_field` is the field that becomes the payload, the others become headers. `claim_idle` (seconds) is after how
    long another router's entries are taken over. `consumer` is our name in the group, the same after a restart. With
    `observe` it only looks on: it reads what is added from now on, without a group, and acknowledges nothing.
    `marks` names the hash of entries handed over in part, where the streams are in the router's own Redis. `solitude` is
    shared by everything in the process whose deliveries may end it.
    `connect_timeout` is how long `start` tries, None for ever; `waiting` is told why, each time a try fails. Raises
    `ConfigError` for a URL that isn't one.
    """

    def __init__(
        self,
        name: str,
        url: str,
        streams: Sequence[str],
        *,
        group: str,
        consumer: str,
        receiver: Receiver,
        clock: Clock,
        start: str = "new",
        payload_field: str = "payload",
        claim_idle: float = 60.0,
        max_deliveries: int = 5,
        max_in_flight: int = 1000,
        client_name: str = "event-router",
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        observe: bool = False,
        marks: str | None = None,
        isolation: CrashIsolation | None = None,
        timing: StreamTiming | None = None,
        book: SourceBook | None = None,
    ) -> None:
        self.name = name
        self.up = False
        """Whether it reads."""
        self.reason: str | None = "not started"
        """Why it does not."""
        self.gaps = 0
        self.gap_seconds = 0.0
        self.resets = 0
        """How often the group, or the stream with it, was lost and made anew."""
        self._book = book or SourceBook()
        self._server = client.server(url, client_name=client_name)
        self._timing = timing or StreamTiming()
        self._link = Link(self._server, self._timing.dead_after)
        self._freed = asyncio.Event()
        undisputed = self._undisputed
        self._streams = [
            Stream(key, group, self._stirred, consumer=consumer, removable=marks is not None, undisputed=undisputed)
            for key in streams
        ]
        self._by_key = {stream.key: stream for stream in self._streams}
        self._group = Group(self._link, group, consumer, start=start, idle=claim_idle)
        self._keeper = Acknowledger(
            Link(self._server),
            self._streams,
            group,
            consumer,
            renew_every=claims.renew_every(claim_idle),
            acknowledged=self._freed.set,
            clock=clock,
            source=name,
            shown=self._server.shown,
            marks=marks,
        )
        self._words = ("XREADGROUP", "GROUP", group, consumer)
        self._field = payload_field.encode()
        self._claim_idle = claim_idle
        self._max_deliveries = max_deliveries
        self._max_in_flight = max_in_flight
        self._receiver = receiver
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._waiting = waiting
        self._observe = observe
        self._backoff = Backoff(self._timing.first_delay, self._timing.longest_delay)
        self._outage = Outage(clock)
        self._stop = asyncio.Event()
        self._running = False
        self._ended = asyncio.Event()
        self._crash: Exception | None = None
        self._solitude = isolation or CrashIsolation()
        self._trying = False  # whether entries that may end the process are in hand, several together
        self._stuck = False  # whether the attempt of the last suspicious entries did not come back in time
        self._next_look = self._next_glance = self._next_sweep = 0.0
        self._turn = 0
        self._fruitless = 0  # streams that were looked into in a row and had nothing
        self._log = structlog.stdlib.get_logger(__name__).bind(source=name, address=self._server.shown)

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def duplicates(self) -> int:
        """An entry has no copies."""
        return 0

    @property
    def trimmed(self) -> int:
        """Entries that were trimmed or deleted, and so never came to an end here."""
        return self._book.trimmed

    @property
    def trimmed_exact(self) -> bool:
        """Whether `trimmed` is all; else it is at least so many."""
        return self._book.trimmed_exact and all(stream.exact for stream in self._streams)

    @property
    def possibly_repeated(self) -> int:
        """Entries that came to an end here though another router may have had them too."""
        return self._book.possibly_repeated + sum(stream.possibly_repeated for stream in self._streams)

    @property
    def in_flight(self) -> int:
        """Entries that are not complete."""
        return sum(stream.unsettled for stream in self._streams)

    @property
    def at_work(self) -> bool:
        """Implements `crash_isolation.Member`."""
        return self._trying

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        part = f"source {self.name}"
        return [Sign(part, COMMAND, self._link.since), Sign(f"{part}: keeper", COMMAND, self._keeper.since)]

    def succeed(self, other: Source) -> None:
        """Take the place of a source that has stopped, or will before this one runs: what it has in hand is not taken again.

        It goes on acknowledging and renewing that until it is closed. There may be several; those of another kind, server,
        group or consumer mean nothing here.
        """
        if not isinstance(other, StreamSource):
            return
        words, by_key = other._words, other._by_key  # noqa: SLF001  # of the same class
        if (other.address, words) != (self.address, self._words):
            return
        for stream in self._streams:
            elder = by_key.get(stream.key)
            if elder is not None:
                stream.elders.append(elder)

    # Its life.

    async def start(self) -> None:
        """Connect and make the groups; returns when the server allows everything that will be needed.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` when it refuses.
        """
        self.reason = f"{self._server.shown}: no answer yet"
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._reach()
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.reason} (source {self.name}, tried for {self._connect_timeout:g} s)"
            ) from error
        self._backoff.reset()
        self.up, self.reason = True, None
        if not self._observe:
            self._keeper.start()

    async def run(self) -> None:
        """Read and hand on until `stop`; heals every loss by itself, and goes on after a fault of its own or the receiver's."""
        work = self._look_on if self._observe else self._consume
        self._running = True
        self._solitude.join(self)
        try:
            while not self._stop.is_set():
                await self._guarded(work)
        finally:
            self._solitude.part(self)
            self._running = False
            self._ended.set()

    async def stop(self) -> None:
        """Take no more; returns when the last batch has been handed on."""
        self._stop.set()
        self._freed.set()
        if self._running:
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
        await self._keeper.close(self._timing.leave)
        await self._link.close()
        # The source that a reload puts in its place goes on counting in the same book.
        self._book.trimmed_exact, self._book.possibly_repeated = self.trimmed_exact, self.possibly_repeated
        for stream in self._streams:
            stream.possibly_repeated = 0

    async def _reach(self) -> None:
        while True:
            try:
                for stream in self._streams:
                    await self._prepare(stream)
            except Refused as error:
                raise ConfigError([Problem(f"{self._server.shown} {error}", path=f"sources.{self.name}")]) from error
            except (failures.RedisError, OSError, TimeoutError) as error:
                failure = client.explain(error, self._server.shown)
                if isinstance(failure, ConfigError):
                    raise failure from error
                if str(failure) != self.reason:
                    self._log.warning("not connected; trying on", reason=str(failure))
                self.reason = str(failure)
                if self._waiting is not None:
                    self._waiting(self.reason)
                await asyncio.sleep(self._backoff.next())
            else:
                return

    async def _prepare(self, stream: Stream) -> None:
        if self._observe:
            newest = await self._link.call("XREVRANGE", stream.key, "+", "-", "COUNT", 1)
            stream.last = newest[0][0] if newest else b"0-0"
        else:
            await self._group.make(stream)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work until it fails, say why, and wait a little."""
        began = self._clock.monotonic()
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # one source must not end the others
            if self._stop.is_set():
                return
            if self._clock.monotonic() - began >= self._timing.stable:
                self._backoff.reset()
            await self._lose(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next()):
                    await self._stop.wait()

    async def _lose(self, error: Exception) -> None:
        """Note why it does not read; a lost group is told when it is there again."""
        said = answers.said(error)
        reason = str(client.explain(error, self._server.shown))
        if isinstance(error, failures.ResponseError) and said.startswith(LOST):
            self.up, self.reason = False, reason
            for stream in self._streams:
                stream.group_lost, stream.delivered = True, None
            return
        if isinstance(error, failures.ResponseError) and said.startswith("WRONGTYPE"):
            reason = f"{self._server.shown}: a key of this source holds something that is no stream"
        ended = self.up and isinstance(error, failures.ConnectionError)  # says nothing of the server: the next try does
        if not ended and self._outage.failed(reason):
            self._log.warning("not reading; trying on", reason=reason, exc_info=client.unexpected(error))
        self.up, self.reason = False, reason
        if not isinstance(error, failures.ResponseError) or answers.passes(error):
            for stream in self._streams:
                stream.delivered = None  # an answer may be lost that brought entries
            await self._link.close()

    def _settle(self) -> None:
        """Redis has answered a read."""
        if self._outage.succeeded() is not None:
            self._log.warning("reading again")
        self.up, self.reason = True, None

    def _undisputed(self, since: float) -> bool:
        """Whether what came into our hand then can't have been idle for long enough to be taken over."""
        return self._clock.monotonic() - since < 0.9 * self._claim_idle

    def _stirred(self) -> None:
        """Something is complete: it is to be acknowledged, and there is room for more."""
        self._keeper.wake()
        self._freed.set()

    # Reading by the group.

    async def _consume(self) -> None:
        for stream in self._streams:
            await self._heal(stream)
            await self._group.try_reading(stream)
            await self._look(stream)
        self._settle()
        for stream in self._streams:
            await self._recover(stream)
        while not self._stop.is_set():
            now = self._clock.monotonic()
            if now >= self._next_look:
                await self._look_around(now)
            elif now >= self._next_glance:
                await self._glance(now)
            room = self._room()
            if room:
                await self._read(room, now)
            else:
                await self._wait_for_room(min(self._next_look, self._next_glance) - now)

    async def _heal(self, stream: Stream) -> None:
        lost = await self._group.heal(stream)
        if lost is None:
            return
        self.resets += 1
        begins = "at its beginning" if lost is Loss.STREAM else "where nothing is lost"
        self._log.warning(f"{lost} was gone; the group is made anew and begins {begins}", stream=stream.name)

    def _room(self) -> int:
        """How many entries may be read now. What is complete and waits for its acknowledgement may be as many again."""
        unsettled = sum([stream.unsettled for stream in self._streams])
        waiting = sum([stream.unacknowledged for stream in self._streams])
        return max(0, min(self._max_in_flight - unsettled, 2 * self._max_in_flight - unsettled - waiting))

    async def _wait_for_room(self, most: float) -> None:
        """Until something is complete, or for `most` seconds."""
        self._freed.clear()
        if self._room() or self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(most, 0.0)):
                await self._freed.wait()

    async def _read(self, room: int, now: float) -> None:
        """Read what is new and hand it on.

        COUNT is for each stream, so with little room only some are read, in turn, and none of them is waited for while
        others may have something.
        """
        number = min(len(self._streams), room)
        self._turn = (self._turn + number) % len(self._streams)
        chosen = (self._streams[self._turn :] + self._streams[: self._turn])[:number]
        blocks: tuple[str | int, ...] = ("BLOCK", max(1, int(self._timing.block * 1000)))
        if number < len(self._streams):
            blocks = ()
        reply = await self._link.call(
            *self._words,
            "COUNT",
            room // number,
            *blocks,
            "STREAMS",
            *[stream.key for stream in chosen],
            *[">"] * number,
        )
        self._fruitless = 0 if reply else self._fruitless + number
        if not blocks and self._fruitless >= len(self._streams):
            await asyncio.sleep(POLL)
        for key, entries in reply or ():
            stream = self._by_key[key]
            stream.last = max(stream.last, entries[-1][0], key=claims.parse)
            if stream.delivered is not None:
                stream.delivered += len(entries)
            self._hand_on(stream, self._fresh(stream, entries), partial(Entries, since=now))

    @staticmethod
    def _fresh(stream: Stream, entries: list[Entry]) -> list[Entry]:
        """What a group that was made anew brings again is left out while it is in hand."""
        if stream.replayed is None:
            return entries
        if claims.parse(entries[-1][0]) >= claims.parse(stream.replayed):
            stream.replayed = None
        hand = stream.hand()
        return [entry for entry in entries if entry[0] not in hand]

    # Handing on.

    def _hand_on(
        self,
        stream: Stream,
        entries: list[Entry],
        receipt: MakeReceipt,
    ) -> Entries | None:
        """Give entries to the receiver; returns the receipt of those that have a payload, None where none has."""
        field = self._field
        payloads = [fields[1] for _, fields in entries if len(fields) == 2 and fields[0] == field]
        if len(payloads) == len(entries):  # nothing but payloads, as nearly always
            return self._give(stream, [entry[0] for entry in entries], payloads, None, receipt) if entries else None
        good: list[tuple[bytes, bytes, dict[str, str]]] = []
        for entry_id, fields in entries:
            payload, headers = _split(fields, field)
            if payload is None:
                self._refuse(stream, (entry_id, b"", headers), Reason.FIELD, self._no_field(headers))
            else:
                good.append((entry_id, payload, headers))
        if not good:
            return None
        ids, payloads, others = ([*column] for column in zip(*good, strict=True))
        return self._give(stream, ids, payloads, others, receipt)

    def _give(
        self,
        stream: Stream,
        ids: list[bytes],
        payloads: list[bytes],
        others: list[dict[str, str]] | None,
        receipt: MakeReceipt,
    ) -> Entries | None:
        names = b" ".join(ids).decode().split(" ")
        headers: list[dict[str, str] | None] = [{REDIS_ID: name} for name in names]
        if others is not None:
            headers = [{**other, REDIS_ID: name} for other, name in zip(others, names, strict=True)]
        entries = None if self._observe else receipt(stream, ids)
        batch = RawBatch(stream.key, None, payloads, stream.event_ids(names), headers, entries)
        self._receiver.receive(self.name, [batch])
        return entries

    def _refuse(self, stream: Stream, entry: tuple[bytes, bytes, dict[str, str]], reason: Reason, detail: str) -> None:
        """Make a dead letter of an entry; it is acknowledged when the letter is written."""
        entry_id, payload, headers = entry
        name = entry_id.decode()
        entries = None if self._observe else Entries(stream, [entry_id], self._clock.monotonic())
        ids, told = stream.event_ids([name]), {**headers, REDIS_ID: name}
        batch = RawBatch(stream.key, None, [payload], ids, [told], entries)
        self._receiver.refuse(self.name, batch, reason, detail)

    def _no_field(self, headers: dict[str, str]) -> str:
        found = ", ".join(repr(cut(name, 64)) for name in islice(headers, 10)) or "none"
        return f"the entry has no field {text(self._field)!r}; its fields: {found}"

    # Entries that were delivered before.

    async def _recover(self, stream: Stream) -> None:
        """Hand on our own pending entries that are not in hand, in batches the smaller the more suspicious they are."""
        async for page in self._group.pending(stream):
            for entry in page:
                if claims.is_poison(entry.deliveries, self._max_deliveries):
                    await self._give_up(stream, entry)
            rest = [entry for entry in page if not claims.is_poison(entry.deliveries, self._max_deliveries)]
            for take in claims.takes(rest):
                await self._try(stream, take)
                if self._stop.is_set():
                    return

    async def _try(self, stream: Stream, take: Take) -> None:
        """Take entries and wait until an attempt of each has come back, or until it is clear that none will soon."""
        ids = take.ids
        while ids and not self._stop.is_set():
            room = self._room()
            if not room:
                await self._wait_for_room(self._claim_idle)
            elif take.deliveries is not None:
                await self._try_alone(stream, ids[0], take.deliveries)
                return
            elif self._solitude.shuts_out(self):
                await before(self._stop, self._solitude.opened())
            else:
                await self._try_together(stream, ids[:room])
                ids = ids[room:]

    async def _try_together(self, stream: Stream, ids: list[bytes]) -> None:
        self._trying = True
        try:
            entries = await self._take_again(stream, ids)
            if entries is not None and not self._stuck:
                self._stuck = not await self._within(entries.tried.wait())
        finally:
            self._trying = False
            self._solitude.finished()

    async def _try_alone(self, stream: Stream, entry: bytes, deliveries: int) -> None:
        """Try one while nothing else is in hand that may end the process.

        The count that would find it guilty is not given where another delivery might be to blame.
        """
        async with self._solitude.entered(self._stop) as alone:
            if not alone:
                return
            await self._within(self._emptied())
            decisive = claims.is_poison(deliveries + 1, self._max_deliveries)
            patience = claims.patience(self._claim_idle)
            shut = decisive and await before(self._stop, self._solitude.shut(self, patience))
            if self._stop.is_set():
                return
            entries = await self._take_again(stream, [entry], None if shut or not decisive else deliveries)
            if entries is not None:
                self._stuck = not await self._within(entries.tried.wait())
                if self._stuck:
                    stream.returned += entries.ids  # it lives: whatever it waits for, it is no poison
                    stream.stir()
                await self._within(self._known())

    async def _take_again(self, stream: Stream, ids: list[bytes], count: int | None = None) -> Recovered | None:
        """Take pending entries and hand them on; returns the receipt of those that have a payload."""
        since = self._clock.monotonic()
        found, gone = await self._group.take(stream, ids, count)
        self._forgotten(stream, gone)
        entries = self._hand_on(stream, found, partial(Recovered, since=since))
        return entries if isinstance(entries, Recovered) else None

    async def _emptied(self) -> None:
        """Wait until nothing is in hand, so that what comes next is alone there."""
        while any(stream.unsettled for stream in self._streams):
            self._freed.clear()
            await self._freed.wait()
        await self._known()

    async def _known(self) -> None:
        """Wait until Redis knows of every attempt that came back.

        Were the count of such an entry to stand while another one ends the process, again and again, it would be found
        guilty in that one's place.
        """
        while any(stream.unacknowledged or stream.returned for stream in self._streams):
            self._freed.clear()
            await self._freed.wait()

    async def _within(self, what: Awaitable[Any]) -> bool:
        """Wait for it as long as suspicious entries deserve; returns whether it came. Not any longer once `stop` is called.

        What waits for a retry may take longer.
        """
        ends = {asyncio.ensure_future(what), asyncio.ensure_future(self._stop.wait())}
        done, _ = await asyncio.wait(
            ends, timeout=claims.patience(self._claim_idle), return_when=asyncio.FIRST_COMPLETED
        )
        for end in ends:
            end.cancel()
        return bool(done)

    async def _give_up(self, stream: Stream, entry: Pending) -> None:
        """Make a dead letter of an entry that ended the process again and again."""
        found = await self._group.read(stream, entry.id)
        if found is None:
            self._forgotten(stream, [entry.id])
            return
        payload, headers = _split(found[1], self._field)
        detail = f"delivered {entry.deliveries} times, and each time the router ended before the attempt came back"
        self._log.error(
            "an entry is given up as poison", stream=stream.name, entry=entry.id.decode(), reason=str(Reason.POISON)
        )
        self._refuse(stream, (entry.id, payload or b"", headers), Reason.POISON, detail)

    def _forgotten(self, stream: Stream, ids: list[bytes]) -> None:
        """Entries are pending that the stream holds no more: there is nothing to deliver."""
        if ids:
            stream.done += ids
            stream.stir()
            self._count_trimmed(stream, len(ids), UNFINISHED)

    def _count_trimmed(self, stream: Stream, number: int, message: str) -> None:
        """Count what is gone, and say so: as it begins, then not more often than every `SAY_AGAIN` seconds."""
        self._book.trimmed += number
        now = self._clock.monotonic()
        if number and now >= stream.said.get(message, now):
            stream.said[message] = now + SAY_AGAIN
            exact = "exactly" if self.trimmed_exact else "at least"
            self._log.error(message, stream=stream.name, number=number, in_all=self.trimmed, counted=exact)

    async def _look(self, stream: Stream) -> None:
        self._count_trimmed(stream, await self._group.look(stream), UNREAD)

    async def _glance(self, now: float) -> None:
        self._next_glance = now + GLANCE
        for stream in self._streams:
            await self._look(stream)

    async def _look_around(self, now: float) -> None:
        """Look what is pending, take over what nobody has touched for long, clear away who is long gone."""
        self._next_look = now + claims.look_every(self._claim_idle)
        self._next_glance = now + GLANCE
        for stream in self._streams:
            await self._look(stream)
            room = self._room()
            if not room:
                continue
            taken, trimmed = await self._group.take_over(stream, room)
            self._count_trimmed(stream, trimmed, UNFINISHED)
            if taken:
                self._log.warning("entries of a router that is gone are taken over", stream=stream.name, number=taken)
                await self._recover(stream)
        if now >= self._next_sweep:
            self._next_sweep = now + self._timing.sweep_every
            for stream in self._streams:
                with contextlib.suppress(failures.ResponseError):  # a courtesy: it may not be allowed
                    await self._group.sweep(stream)

    # Looking on.

    async def _look_on(self) -> None:
        while not self._stop.is_set():
            reply = await self._link.call(
                "XREAD",
                "COUNT",
                self._max_in_flight,
                "BLOCK",
                max(1, int(self._timing.block * 1000)),
                "STREAMS",
                *[stream.key for stream in self._streams],
                *[stream.last for stream in self._streams],
            )
            self._settle()
            for key, entries in reply or ():
                stream = self._by_key[key]
                stream.last = entries[-1][0]
                self._hand_on(stream, entries, partial(Entries, since=0.0))


def _split(fields: list[bytes], wanted: bytes) -> tuple[bytes | None, dict[str, str]]:
    """The payload of an entry, None when it has none, and its other fields as text."""
    payload: bytes | None = None
    headers: dict[str, str] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == wanted:
            payload = value
        else:
            headers[text(name)] = text(value)
    return payload, headers
