"""One subscribed connection: what it wants, how its bytes become batches, whether it still lives; floor 4.

redis-py opens the connection (address, TLS, login); from then on its transport feeds this protocol straight from the
event loop: no task, no `await` and no object per message beyond what hiredis makes. One call hands on what one chunk of
the socket held. Nothing here reconnects; that is `router.broker.pubsub.pubsub_source`.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

from router.broker.server import client
from router.contracts import Clock
from router.core.accounts.books import LONGEST_CHANNEL
from router.core.matching import glob
from router.errors import UnavailableError
from router.events import RawBatch

CHUNK = 64 * 1024
"""Bytes read from the socket at once, and in one turn of the event loop."""

SLICE = 16 * 1024
"""Bytes given to the parser at once: it moves what is left each time it has used up a kilobyte, so small is fast."""

REMEMBERED = 10_000
"""Channels whose winner is remembered."""

MOMENT = 0.01
"""Seconds: the least time between two looks at a connection."""

STANDSTILL = 0.25
"""Seconds that a timer may be late before it counts as the event loop standing still."""

MESSAGE, PMESSAGE, PONG, ERROR = b"message", b"pmessage", b"pong", b"error"
SUBSCRIBE, PSUBSCRIBE = b"subscribe", b"psubscribe"
UNSUBSCRIBE, PUNSUBSCRIBE = b"unsubscribe", b"punsubscribe"

Wanted = tuple[bytes, bytes]
"""One subscription: the command (`subscribe` or `psubscribe`) and the name or glob."""

PINGED: Wanted = (b"ping", b"")
"""Stands for a PING among the commands that are to be answered."""

SWITCH_PING: Wanted = (b"ping", b"fence")
"""Stands for a PING at whose answer other subscriptions come into force."""

PROOF: Wanted = (b"ping", b"proof")
"""Stands for a PING whose answer proves that all that was sent before it has come."""

_ENDS = {SUBSCRIBE: UNSUBSCRIBE, PSUBSCRIBE: PUNSUBSCRIBE}


class Remembered(dict[bytes, bytes | None]):
    """The winners of the channels seen last, as `find` gives them; a very long name is asked for each time."""

    def __init__(self, find: Callable[[bytes], bytes | None]) -> None:
        self._find = find

    def __missing__(self, channel: bytes) -> bytes | None:
        winner = self._find(channel)
        if len(channel) <= LONGEST_CHANNEL:
            if len(self) >= REMEMBERED:
                del self[next(iter(self))]
            self[channel] = winner
        return winner


class Subscriptions:
    """What a source subscribes to, in order of priority: exact names, then globs in the order of the configuration.

    A published event is one event of the source however many of them match: the first that matches wins.
    """

    def __init__(self, names: Iterable[str], globs: Iterable[str]) -> None:
        exact = dict.fromkeys(name.encode() for name in names)
        self.names = frozenset(exact)
        """The exact names."""
        self._globs = {text.encode(): glob(text) for text in globs}
        self.wanted: tuple[Wanted, ...] = (
            *((SUBSCRIBE, name) for name in exact),
            *((PSUBSCRIBE, pattern) for pattern in self._globs),
        )
        """In the order to subscribe: with the winner always first, no event is missed while the rest is confirmed."""
        self.winner: Callable[[bytes], bytes | None] = Remembered(self._winner).__getitem__
        """The glob whose copy of a channel's events counts; None where the exact name's does."""
        self.duplicates = 0
        """Copies dropped so far."""

    def _winner(self, channel: bytes) -> bytes | None:
        if channel in self.names:
            return None
        return next((pattern for pattern, matches in self._globs.items() if matches(channel)), None)


class Subscriber(asyncio.BufferedProtocol):
    """A connection that is subscribed, from the first SUBSCRIBE to its loss.

    `deliver` gets the batches of each chunk, in order; it must not wait. An exception it raises ends the connection and
    stands in `crash`. Times are seconds of `clock.monotonic`.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        subscriptions: Subscriptions,
        deliver: Callable[[Sequence[RawBatch]], None],
        clock: Clock,
    ) -> None:
        self.last_byte = clock.monotonic()
        self.unproven_since: float | None = None
        """When the last byte before a silence came, until a PING sent after the silence is answered; else None."""
        self.refused: dict[Wanted, str] = {}
        """Subscriptions that the server refused, with its words."""
        self.crash: Exception | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        """Done when the connection is gone; its result says why."""
        self.answered: asyncio.Future[None] = loop.create_future()
        """Done when the server has answered every subscription asked for; `refused` says how."""
        self.subscriptions = subscriptions
        """Those in force: which copies count."""
        self._deliver = deliver
        self._monotonic = clock.monotonic
        self._connection = connection
        self._parser = hiredis.Reader(replyError=lambda text: [ERROR, text])  # type: ignore[arg-type,return-value]
        self._gets = self._parser.gets
        self._buffer = memoryview(bytearray(CHUNK))
        self._expected: deque[Wanted] = deque()
        self._unanswered = 0
        self._left: asyncio.Future[None] | None = None
        self._next: Subscriptions | None = None
        self._fenced = False  # whether other subscriptions came into force in the chunk at hand
        self._silence = float("inf")
        self._transport = self._take_over(connection)

    def _take_over(self, connection: AbstractConnection) -> asyncio.Transport:
        """Put this protocol in the place of redis-py's stream reader, which has read everything that was asked for."""
        writer, reader = connection._writer, connection._reader  # noqa: SLF001  # there is no other way to its transport
        if writer is None or reader is None or reader.at_eof() or writer.transport.is_closing():
            raise UnavailableError("the server closed the connection")
        transport = writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # uvloop picks the kind of reading when it begins
        transport.set_protocol(self)
        transport.resume_reading()  # type: ignore[attr-defined]
        return transport  # type: ignore[return-value]

    @property
    def complete_until(self) -> float:
        """Until when (`clock.monotonic`) all that was published is known to have come, if the connection is lost now.

        What is read after a silence may have waited in the socket while this process stood still: of when it was sent,
        and of what the server has dropped since, it says nothing.
        """
        return self.last_byte if self.unproven_since is None else self.unproven_since

    def subscribe(self, wanted: Iterable[Wanted]) -> None:
        """Ask for these subscriptions, each with a command of its own so that a refusal names its channel."""
        wanted = list(wanted)
        for one in wanted:
            self.refused.pop(one, None)
        if self.answered.done():
            self.answered = asyncio.get_running_loop().create_future()
        self._unanswered += len(wanted)
        self._expected.extend(wanted)
        self._write(b"".join(map(_pack, wanted)))

    def unsubscribe(self, unwanted: Iterable[Wanted]) -> None:
        """Give these subscriptions up."""
        commands = [(_ENDS[kind], name) for kind, name in unwanted]
        self._expected.extend(commands)
        self._transport.write(b"".join(map(_pack, commands)))

    def switch(self, subscriptions: Subscriptions) -> None:
        """Have other subscriptions decide which copies count, and give up what they do not want.

        They come into force at one place in the stream of messages, the answer to a PING: what was published is on one
        side of it with all its copies, so it is neither missed nor taken twice. What comes new is subscribed already.
        """
        unwanted = [one for one in self.subscriptions.wanted if one not in subscriptions.wanted]
        self._next = subscriptions
        self._expected.append(SWITCH_PING)
        self._transport.write(b"PING\r\n")
        self.unsubscribe(unwanted)

    def _cross(self) -> None:
        """The fence is reached."""
        assert self._next is not None
        self._next.duplicates += self.subscriptions.duplicates
        self.subscriptions = self._next
        self._fenced = True

    async def settled(self, patience: float) -> None:
        """Wait until the server has answered every subscription, or is lost, for `patience` seconds at most."""
        ends: list[asyncio.Future[Any]] = [self.answered, self.lost]
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._expected.append(PINGED if self.unproven_since is None else PROOF)
        self._write(b"PING\r\n")

    def _write(self, data: bytes) -> None:
        """Send; nothing once the connection is closing, of which we are about to be told (uvloop would raise)."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def readable(self) -> bool:
        """Whether the socket holds something that the event loop has not come to read yet."""
        number = self._transport.get_extra_info("socket").fileno()
        if number < 0:
            return False
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self, why: str) -> None:
        """Give the connection up at once."""
        self._lose(why)
        self._transport.abort()

    async def watch(self, ping_every: float, dead_after: float) -> str:
        """Ping every `ping_every` seconds; return, when the connection is lost, why.

        It is lost too when no byte has come for `dead_after` seconds. Time in which our own event loop stood still is no
        silence of the other side: it is left out, and what waits in the socket is read before anything is judged.
        """
        self._silence = ping_every + STANDSTILL
        heard, pardon, next_ping = self.last_byte, 0.0, self._monotonic()
        while not self.lost.done():
            now = self._monotonic()
            if now >= heard + pardon + dead_after and not self.readable():
                self.abort(f"no byte from the server for {now - heard:.1f} s")
                break
            if now >= next_ping:
                self.ping()
                next_ping = now + ping_every
            due = max(min(next_ping, heard + pardon + dead_after), now + MOMENT)
            await asyncio.wait([self.lost], timeout=due - now)
            now = self._monotonic()
            if self.last_byte != heard:
                heard, pardon = self.last_byte, 0.0
            late = min(now - due, now - heard)  # of the standstill only what came after that byte
            if late > STANDSTILL:
                pardon += late
        return self.lost.result()

    async def leave(self, patience: float) -> None:
        """Unsubscribe and hand on everything published before the server did so, for `patience` seconds at most."""
        if not self.lost.done():
            self._left = asyncio.get_running_loop().create_future()
            self._write(b"UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n")
            ends: list[asyncio.Future[Any]] = [self._left, self.lost]
            await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        await self.close()

    async def close(self) -> None:
        """Close the connection; harmless twice."""
        self.abort("closed by the router")
        await client.close(self._connection)

    # What the event loop calls.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Where the next bytes go: always the same place, for they are taken at once."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes of one chunk."""
        now = self._monotonic()
        if now - self.last_byte > self._silence:
            self._doubt()
        self.last_byte = now
        if nbytes == CHUNK:
            self._let_others_work()
        self._fenced = False
        batches: list[RawBatch] = []
        failure: Exception | None = None
        try:
            for start in range(0, nbytes, SLICE):
                self._parser.feed(self._buffer, start, min(SLICE, nbytes - start))  # type: ignore[arg-type]
                self._split(batches)
        except (hiredis.HiredisError, TypeError, ValueError, IndexError) as error:
            failure = error
        if batches:
            self._hand_on(batches)
        if failure is not None:
            self.abort(f"the server sent what is not pub/sub: {failure}")

    def _doubt(self) -> None:
        """Bytes come after a silence. The next PING proves that nothing is missing; those sent before it do not."""
        if self.unproven_since is None:
            self.unproven_since = self.last_byte
        self._expected = deque(PINGED if asked is PROOF else asked for asked in self._expected)

    def _let_others_work(self) -> None:
        """Read on in the next turn of the event loop.

        Under a flood uvloop would take up to 32 chunks in one turn, as libuv does while each fills the buffer: then
        nothing else is done for some 50 ms, again and again, and what was received is not queued as fast as it comes.
        """
        if self._transport.is_closing() or not self._transport.is_reading():
            return
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The server ended the connection."""
        self._lose("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc or "")
        self._lose(why.lower() or "the server closed the connection")

    def _hand_on(self, batches: list[RawBatch]) -> None:
        try:
            self._deliver(batches)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again where somebody waits
            self.crash = error
            self.abort(f"the router failed: {error!r}")

    def _lose(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)

    def _split(self, batches: list[RawBatch]) -> None:
        """Append what the parser holds to `batches`, as runs of equal channel and pattern.

        This loop runs once per message. A run is known by the channel in `exact` (its name matched) or in `wild`
        (a glob did); a run of copies that lost against another subscription by `extra`, and does not break the others.
        """
        gets = self._gets
        append: Callable[[bytes], None] = batches.append  # type: ignore[assignment]  # replaced before its first use
        exact = wild = pattern = extra = extra_pattern = None
        subscriptions = self.subscriptions
        if batches and not self._fenced:  # the run goes on from the slice before
            last = batches[-1]
            append, pattern = last.payloads.append, last.pattern
            exact, wild = (last.channel, None) if pattern is None else (None, last.channel)
        while (message := gets()) is not False:
            if len(message) == 3:
                kind, name, payload = message
                if name == exact and kind == MESSAGE:
                    append(payload)
                    continue
                if kind == MESSAGE:
                    if name not in subscriptions.names:  # subscribed already, or still, while others are in force
                        subscriptions.duplicates += 1
                        continue
                    run = [payload]
                    append = run.append
                    exact, wild = name, None
                    batches.append(RawBatch(name, None, run))
                    continue
            elif len(message) == 4:
                kind, glob_, name, payload = message
                if name == wild and glob_ == pattern:
                    append(payload)
                    continue
                if name == extra and glob_ == extra_pattern:
                    subscriptions.duplicates += 1
                    continue
                if kind == PMESSAGE:
                    if subscriptions.winner(name) != glob_:
                        subscriptions.duplicates += 1
                        extra, extra_pattern = name, glob_
                        continue
                    run = [payload]
                    append = run.append
                    exact, wild, pattern = None, name, glob_
                    batches.append(RawBatch(name, glob_, run))
                    continue
            self._control(message)
            if subscriptions is not self.subscriptions:
                subscriptions = self.subscriptions
                exact = wild = pattern = extra = extra_pattern = None

    def _control(self, reply: Any) -> None:
        """Take an answer to a command: they come in the order of the commands."""
        kind = reply[0] if isinstance(reply, list) else bytes(reply).lower()
        if self._left is not None:
            self._leaving(kind, reply)
            return
        if kind in {UNSUBSCRIBE, PUNSUBSCRIBE}:
            if self._expected and self._expected[0] == (kind, reply[1]):
                self._expected.popleft()
            else:
                self.abort("the server ended a subscription")
            return
        if not self._expected:
            raise ValueError(f"{reply!r:.100} where nothing was asked")
        asked = self._expected.popleft()
        if asked[0] != PINGED[0]:
            self._answer(asked, kind, reply)
            return
        if kind not in {PONG, ERROR}:
            raise ValueError(f"{reply!r:.100} where the answer to PING was due")
        if asked is SWITCH_PING:
            self._cross()
        elif asked is PROOF:
            self.unproven_since = None

    def _answer(self, asked: Wanted, kind: bytes, reply: list[Any]) -> None:
        if kind == ERROR:
            self.refused[asked] = str(reply[1])
        elif (kind, reply[1]) != asked:
            raise ValueError(f"{reply!r:.100} where the answer to {asked!r:.100} was due")
        self._unanswered -= 1
        if not self._unanswered:
            self.answered.set_result(None)

    def _leaving(self, kind: bytes, reply: list[Any]) -> None:
        """Take an answer while unsubscribing: the last one counts no subscription, or is a refusal."""
        if self._expected and kind not in {UNSUBSCRIBE, PUNSUBSCRIBE}:
            self._expected.popleft()
            return
        over = kind == ERROR or (kind == PUNSUBSCRIBE and reply[2] == 0)
        if over and self._left is not None and not self._left.done():
            self._left.set_result(None)


def _pack(command: Wanted) -> bytes:
    """A command as the bytes to send."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows commands of one word only
