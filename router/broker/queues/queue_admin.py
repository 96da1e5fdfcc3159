"""Administration of the Redis queues, including the queues of sinks that are no longer configured; floor 4.

`QueueAdmin` finds the queues, counts their deliveries, and moves deliveries to another sink or to the dead letters.
Routers may be running at the same time.
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
from router.core.accounts.records import HEAD, Reader, UnknownRecordError, history_of, pack, received_at
from router.events import DeadLetter, Event

AT_ONCE = 100
"""The largest number of deliveries in one script call."""

AT_ONCE_BYTES = 1024**2
"""The largest number of bytes of records in one script call. A larger record is sent alone."""

LOOKED_AT = 100
"""The number of records at the front of the stream, and of the sorted set, that are searched for the oldest event."""

IDLE = 60.0
"""Seconds without renewal after which the router of an entry in flight counts as dead. For a sink with a long
`timeout`, this time is longer (`claim_idle_of`)."""

KEYS_AT_ONCE = 1000
"""The number of keys that one SCAN examines."""

NOW, LATER = "now", "later"


def claim_idle_of(timeout: float | None) -> float:
    """Return the idle time in seconds after which an entry may be claimed.

    `timeout` is the timeout of the sink in seconds; None if the sink is unknown.
    """
    return IDLE if timeout is None else max(IDLE, 2 * timeout)


class State(IntEnum):
    """The result for one delivery that was to be moved. The scripts return all values except `UNREADABLE`."""

    GONE = 0
    """The delivery is no longer in the queue."""
    TAKEN = 1
    """The delivery was moved."""
    IN_FLIGHT = 2
    """The delivery is in flight at a live router, so it stays in its queue."""
    NO_ROOM = 3
    """The destination is full. The delivery stays in its queue, and the script has stopped."""
    UNREADABLE = 4
    """The record can't be read, so the delivery stays in its queue. The record was written by a newer router, or by
    another program."""


class Due(NamedTuple):
    """A delayed delivery: its due time and its failures so far."""

    at: float
    """Seconds since the epoch, by the clock of the Redis server."""
    attempts: int
    """The number of calls of the sink so far."""
    error: str | None
    """The error of the last attempt. None if no attempt has failed, or if the record can't be read."""


class Standing(NamedTuple):
    """The numbers of deliveries in a queue at one moment."""

    waiting: int
    """Deliveries that are ready and not in flight."""
    delayed: int
    """Deliveries that are due later."""
    in_flight: int
    """Deliveries in flight at any router, alive or dead."""
    kept: int
    """Deliveries in flight at a live router, or at a router that died less than the idle time ago."""
    oldest: float | None
    """The time (seconds since the epoch) at which the oldest event among the first `LOOKED_AT` records was received; None if
    no time is known."""
    next_due: Due | None = None
    """The delayed delivery that is due first; None if no delivery is delayed."""

    @property
    def held(self) -> int:
        """The number of all deliveries in the queue."""
        return self.waiting + self.delayed + self.in_flight

    @property
    def free(self) -> int:
        """The number of deliveries that may be moved."""
        return self.held - self.kept


class Bounds(NamedTuple):
    """The limits of a queue: the number of deliveries and their total size in bytes."""

    events: int
    bytes: int


class _Item(NamedTuple):
    """A delivery in the queue. `place` is `now` or `later`; `name` is the entry id, or the member of the sorted set."""

    place: str
    name: bytes
    record: bytes


Progress = Callable[[Sequence[State]], None]
"""A function that is called with the results for a batch, one for each delivery."""

_Act = Callable[[str, Sequence[_Item]], Awaitable[list[State]]]


class QueueAdmin(PlainLink):
    """The queues under one key prefix. Each method may be called again after an error.

    `patience` is the number of seconds allowed for each answer of Redis.
    """

    def __init__(self, server: Server, *, prefix: str, patience: float = client.TIMEOUT) -> None:
        super().__init__(server, patience)
        self._prefix = prefix

    async def names(self, *, pause: float = 0.0) -> list[str]:
        """Return the sorted names of the sinks that have a queue.

        This scans the whole database, a thousand keys per command, with a pause of `pause` seconds between two commands.
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
        """Return the number of deliveries in each queue that is not empty, including deliveries in flight.

        `names` are the sinks to count; None means all sinks that have a queue.
        """
        held = {}
        for name in await self.names() if names is None else names:
            length = await self.call("XLEN", keys.queue(self._prefix, name))
            held[name] = length + await self.call("ZCARD", keys.later(self._prefix, name))
        return {name: number for name, number in held.items() if number}

    async def look(self, name: str, *, idle: float = IDLE) -> Standing:
        """Return the numbers of deliveries in a sink's queue; all numbers are 0 if the queue does not exist."""
        words: list[Word] = [GROUP, round(idle * 1000), LOOKED_AT, HEAD]
        length, in_flight, kept, delayed, heads, first = await self.script(LOOK, self._keys(name)[:2], words)
        ages = [at for at in map(received_at, heads) if at is not None]
        return Standing(length - in_flight, delayed, in_flight, kept, min(ages, default=None), _due(first))

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
        """Move the waiting deliveries of sink `name` to the queue of sink `to`. Attempts restart at 1; due times do not
        change.

        `bounds` are the limits of the queue of `to`. The move ends at the first delivery that would exceed these
        limits, or after `limit` deliveries (None: no limit). `overriding` contains the routes that override options of
        the sink `to`. Deliveries that arrive during the move may be left in the queue of `name`.
        """
        reader = Reader(to)
        run = os.urandom(8).hex()
        number = 0
        names = [*self._keys(name), *self._keys(to)]

        async def act(place: str, items: Sequence[_Item]) -> list[State]:
            nonlocal number
            words: list[Word] = [GROUP, round(idle * 1000), place, *bounds]
            events, unreadable = _read(reader, items)
            # The attempts start again. But a delivery that was split off for one address is still sent only to this
            # address.
            fresh = [msgspec.structs.replace(event, attempt=1, _history=None) for _, event in events]
            for (item, _), record in zip(events, pack(fresh, overriding), strict=True):
                number += 1
                # Give each member of the sorted set a new unique name, because both sinks may have a delivery of the
                # same event. The third part of the name, the planned delay, does not change (see
                # `queue_scripts.DEFER`).
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
        """Turn the waiting deliveries of a sink into dead letters, all with the same reason.

        The method ends when the stream of dead letters contains `most` letters, or after `limit` deliveries (None: no
        limit). `make` returns the dead letter of a delivery. Deliveries that arrive in the meantime may be left in the
        queue.
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
                fields = words_of(letter)
                words += (item.name, len(fields), *fields)
            return [*map(State, await self.script(BURY, names, words)), *unreadable]

        await self._work_through(name, act, limit, progress)

    async def _work_through(self, name: str, act: _Act, limit: int | None, progress: Progress) -> None:
        """Pass batches of deliveries to `act` until the destination is full or `limit` deliveries are moved."""
        taken = 0
        async for place, page in self._pages(name):
            left = page
            while left:
                batch = left[:AT_ONCE] if limit is None else left[: min(AT_ONCE, limit - taken)]
                batch = _within(batch, AT_ONCE_BYTES)
                left = left[len(batch) :]
                states = await act(place, batch)
                progress(states)
                taken += states.count(State.TAKEN)
                if State.NO_ROOM in states or taken == limit:
                    return

    async def _pages(self, name: str) -> AsyncIterator[tuple[str, list[_Item]]]:
        """Yield the deliveries of a queue in pages: first the entries of the stream, then the delayed deliveries."""
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


def _due(first: Sequence[bytes]) -> Due | None:
    """Return the first delayed delivery of a queue. `first` holds the member of the sorted set and its score, or
    nothing.
    """
    if not first:
        return None
    history = history_of(first[0].partition(b" ")[2])
    at = float(first[1]) / 1000
    return Due(at, 0, None) if history is None else Due(at, history.calls, history.last_error)


def _read(reader: Reader, items: Sequence[_Item]) -> tuple[list[tuple[_Item, Event]], list[State]]:
    """Return the readable items, each with its delivery, and the state `UNREADABLE` once for each unreadable item."""
    events, unreadable = [], []
    for item in items:
        try:
            events.append((item, reader.read(item.record, None)[0]))
        except UnknownRecordError:
            unreadable.append(State.UNREADABLE)
    return events, unreadable


def _within(items: list[_Item], most_bytes: int) -> list[_Item]:
    """Return the first items, with records of at most `most_bytes` in total, but at least one item."""
    size = 0
    for number, item in enumerate(items):
        size += len(item.record)
        if size > most_bytes and number:
            return items[:number]
    return items
