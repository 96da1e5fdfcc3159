"""The Redis queues of all sinks, seen from outside, those of sinks that are gone too; floor 4.

Finds them, says what waits in each, and moves it on: to the queue of another sink, or to the dead letters. Routers may
run meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum
from typing import NamedTuple

import msgspec

from router.broker.dead_letters.dead_letter_writer import words_of
from router.broker.queues.parts.queue_common import GROUP
from router.broker.queues.queue_moves import BURY, LOOK, MOVE
from router.broker.server import client, keys
from router.broker.server.client import Server
from router.broker.server.link import PlainLink, Word
from router.config.scalars import NAME
from router.core.accounts.records import HEAD, Reader, UnknownRecordError, pack, received_at
from router.events import DeadLetter, Event

AT_ONCE = 100
"""Deliveries that one script call takes at most."""

AT_ONCE_BYTES = 1024**2
"""Bytes of records that one script call carries at most; a larger one travels alone."""

LOOKED_AT = 100
"""Records, of the stream and of the sorted set, among which the oldest event is looked for."""

IDLE = 60.0
"""Seconds after which an entry in hand that nobody has renewed is a dead router's, unless its sink says otherwise."""

KEYS_AT_ONCE = 1000
"""Keys that one command of a search looks at."""

NOW, LATER = "now", "later"


def claim_idle_of(timeout: float | None) -> float:
    """The same for a sink with this `timeout`, None for one that is gone: the seconds its routers go by."""
    return IDLE if timeout is None else max(IDLE, 2 * timeout)


class State(IntEnum):
    """What became of a delivery that was to be taken out of a queue; all but the last as the scripts say it."""

    GONE = 0
    TAKEN = 1
    IN_HAND = 2
    """A router that lives has it in hand: it stays."""
    NO_ROOM = 3
    """There is no room for it where it was to go; no other was tried after it."""
    UNREADABLE = 4
    """A newer router wrote it, or it is no record: it stays."""


class Standing(NamedTuple):
    """The contents of a queue at one moment, in deliveries."""

    waiting: int
    """In line, in nobody's hand."""
    delayed: int
    """Due later."""
    in_hand: int
    kept: int
    """Of those in hand, the ones that a router which lives has, or one that died a moment ago."""
    oldest: float | None
    """When the event was received that has waited longest (seconds since the epoch), of the first ones looked at."""

    @property
    def held(self) -> int:
        """All of it."""
        return self.waiting + self.delayed + self.in_hand

    @property
    def free(self) -> int:
        """The deliveries that may be taken out."""
        return self.held - self.kept


class Bounds(NamedTuple):
    """The number of deliveries that a queue may hold, and of how many bytes."""

    events: int
    bytes: int


class _Item(NamedTuple):
    """A delivery where it stands: the id of an entry, or a member of the sorted set."""

    place: str
    name: bytes
    record: bytes


Progress = Callable[[Sequence[State]], None]
"""Is told what became of each delivery of a batch."""

_Act = Callable[[str, Sequence[_Item]], Awaitable[list[State]]]


class QueueAdmin(PlainLink):
    """The queues under one prefix. Each method may be called again after an error.

    `patience` is how long an answer may take, in seconds.
    """

    def __init__(self, server: Server, *, prefix: str, patience: float = client.TIMEOUT) -> None:
        super().__init__(server, patience)
        self._prefix = prefix

    async def names(self, *, pause: float = 0.0) -> list[str]:
        """The sinks that have a queue, in order; `pause` is how long to wait after each part of the search, in seconds.

        It looks through every key of the database, a thousand at a time.
        """
        begins = tuple(key(self._prefix, "") for key in (keys.queue, keys.later))
        found: set[str] = set()
        cursor = b"0"
        while True:
            cursor, page = await self.call("SCAN", cursor, "MATCH", keys.owned(self._prefix), "COUNT", KEYS_AT_ONCE)
            for begin in begins:
                of_queues = [name.decode("utf-8", "replace") for name in page if name.startswith(begin.encode())]
                found.update(name.removeprefix(begin) for name in of_queues)
            if cursor == b"0":
                break
            await asyncio.sleep(pause)
        return sorted(name for name in found if re.fullmatch(NAME, name))

    async def waiting(self, names: Iterable[str] | None = None) -> Mapping[str, int]:
        """Return how many deliveries each queue holds, whoever has them in hand; without the empty ones.

        `names` are those of the sinks to ask about, None for all that have a queue.
        """
        held = {}
        for name in await self.names() if names is None else names:
            length = await self.call("XLEN", keys.queue(self._prefix, name))
            held[name] = length + await self.call("ZCARD", keys.later(self._prefix, name))
        return {name: number for name, number in held.items() if number}

    async def look(self, name: str, *, idle: float = IDLE) -> Standing:
        """Return what the queue of a sink holds; nothing where there is none."""
        words: list[Word] = [GROUP, round(idle * 1000), LOOKED_AT, HEAD]
        length, in_hand, kept, delayed, heads = await self.script(LOOK, self._keys(name)[:2], words)
        ages = [at for at in map(received_at, heads) if at is not None]
        return Standing(length - in_hand, delayed, in_hand, kept, min(ages, default=None))

    async def letters(self) -> int:
        """Return the number of dead letters."""
        return int(await self.call("XLEN", keys.dead(self._prefix)))

    async def move(
        self,
        name: str,
        to: str,
        *,
        bounds: Bounds,
        overriding: AbstractSet[str],
        idle: float = IDLE,
        limit: int | None = None,
        progress: Progress,
    ) -> None:
        """Move what waits for one sink to the queue of another, as new to it: attempts are counted anew, due times stay.

        `bounds` are those of the other queue: it ends at the first delivery that has no room there, and after `limit`.
        `overriding` are the routes that replace options of the other sink. What comes meanwhile is not waited for.
        """
        reader = Reader(to)
        run = os.urandom(8).hex()
        number = 0
        names = [*self._keys(name), *self._keys(to)]

        async def act(place: str, items: Sequence[_Item]) -> list[State]:
            nonlocal number
            words: list[Word] = [GROUP, round(idle * 1000), place, *bounds]
            events, unreadable = _read(reader, items)
            # It is new to the other sink, but still of the one address it was split off for: the others have theirs.
            fresh = [msgspec.structs.replace(event, attempt=1, _history=None) for _, event in events]
            for (item, _), record in zip(events, pack(fresh, overriding), strict=True):
                number += 1
                # A member must be like no other of the sorted set: two sinks may have had the same event at once.
                # Its delay stands third in its name (`queue_scripts.DEFER`) and stays.
                new = b"/".join((run.encode(), b"%d" % number, *item.name.partition(b" ")[0].split(b"/")[2:]))
                words += (item.name, b"%s %s" % (new, record) if place == LATER else record)
            if not events:
                return unreadable
            return [*map(State, await self.script(MOVE, names, words)), *unreadable]

        await self._work_through(name, act, limit, progress)

    async def dead_letter(
        self,
        name: str,
        make: Callable[[Event], DeadLetter],
        *,
        most: int,
        idle: float = IDLE,
        limit: int | None = None,
        progress: Progress,
    ) -> None:
        """Make dead letters, all of one reason, of what waits for a sink.

        `most` is how many letters may be kept: it ends when there are so many, and after `limit`. What comes meanwhile is
        not waited for.
        """
        reader = Reader(name)
        names = [*self._keys(name), keys.dead(self._prefix)]

        async def act(place: str, items: Sequence[_Item]) -> list[State]:
            events, unreadable = _read(reader, items)
            letters = [make(event) for _, event in events]
            if not letters:
                return unreadable
            words: list[Word] = [GROUP, round(idle * 1000), place, most, f"dead_lettered:{letters[0].reason}"]
            for (item, _), letter in zip(events, letters, strict=True):
                said = words_of(letter)
                words += (item.name, len(said), *said)
            return [*map(State, await self.script(BURY, names, words)), *unreadable]

        await self._work_through(name, act, limit, progress)

    async def _work_through(self, name: str, act: _Act, limit: int | None, progress: Progress) -> None:
        """Let `act` deal with all that waits now, part by part, until it finds no room or has taken `limit`."""
        taken = 0
        async for place, part in self._parts(name):
            left = part
            while left:
                batch = left[:AT_ONCE] if limit is None else left[: min(AT_ONCE, limit - taken)]
                batch = _within(batch, AT_ONCE_BYTES)
                left = left[len(batch) :]
                states = await act(place, batch)
                progress(states)
                taken += states.count(State.TAKEN)
                if State.NO_ROOM in states or taken == limit:
                    return

    async def _parts(self, name: str) -> AsyncIterator[tuple[str, list[_Item]]]:
        """Yield what waits now: what is due first, then what is due later."""
        stream, later = self._keys(name)[:2]
        newest = await self.call("XREVRANGE", stream, "+", "-", "COUNT", 1)
        begin, end = "-", newest[0][0] if newest else b"0-1"
        while True:
            found = await self.call("XRANGE", stream, begin, end, "COUNT", AT_ONCE)
            if found:
                yield NOW, [_Item(NOW, entry, fields[1]) for entry, fields in found]
            if len(found) < AT_ONCE:
                break
            begin = f"({found[-1][0].decode()}"
        left, passed = await self.call("ZCARD", later), 0
        while left > 0:
            members = await self.call("ZRANGE", later, passed, passed + min(AT_ONCE, left) - 1)
            if not members:
                break
            yield LATER, [_Item(LATER, member, member.partition(b" ")[2]) for member in members]
            left -= len(members)
            passed += sum(score is not None for score in await self.call("ZMSCORE", later, *members))

    def _keys(self, name: str) -> list[str]:
        return [key(self._prefix, name) for key in (keys.queue, keys.later, keys.books)]


def _read(reader: Reader, items: Sequence[_Item]) -> tuple[list[tuple[_Item, Event]], list[State]]:
    """The deliveries that can be read, and what becomes of the others."""
    events, unreadable = [], []
    for item in items:
        try:
            events.append((item, reader.read(item.record, None)[0]))
        except UnknownRecordError:
            unreadable.append(State.UNREADABLE)
    return events, unreadable


def _within(items: list[_Item], most_bytes: int) -> list[_Item]:
    """The first ones that have so many bytes together, at least one."""
    size = 0
    for number, item in enumerate(items):
        size += len(item.record)
        if size > most_bytes and number:
            return items[:number]
    return items
