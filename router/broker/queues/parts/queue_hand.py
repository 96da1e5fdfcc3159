"""The deliveries of one queue that this router has in hand: those that are ready for workers, and those with them; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from router.broker.groups.crash_isolation import CrashIsolation
from router.events import Event


class Bundle(msgspec.Struct):
    """Deliveries that are ready to be taken; `count` is set on one that must be alone in hand: its delivery count."""

    events: list[Event]
    count: int | None = None


class Ready:
    """Deliveries that were read and that no worker has taken, in their order."""

    def __init__(self) -> None:
        self.number = 0
        self.hold = 0
        """How many there may be, but for those that were handed back."""
        self._room = asyncio.Event()
        self._bundles: deque[Bundle] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()

    @property
    def first(self) -> Bundle | None:
        """The next to be taken."""
        return self._bundles[0] if self._bundles else None

    @property
    def entries(self) -> set[bytes]:
        """The entries of all of them."""
        return {event._receipt for bundle in self._bundles for event in bundle.events}

    def make_room(self) -> None:
        """Let `room` return."""
        self._room.set()

    async def room(self) -> None:
        """Wait until some were taken."""
        self._room.clear()
        await self._room.wait()

    def add(self, events: list[Event], count: int | None = None) -> None:
        """Offer deliveries to the workers."""
        self._bundles.append(Bundle(events, count))
        self.number += len(events)
        self._wake()

    def give_back(self, events: list[Event]) -> None:
        """Offer deliveries as the next to be taken."""
        self.number += len(events)
        self.lower(Bundle(events))

    def lift(self) -> Bundle:
        """Take out the first ones. They count as ready until `taken`, or are offered again by `lower`."""
        return self._bundles.popleft()

    def lower(self, bundle: Bundle) -> None:
        """Offer again what was lifted."""
        self._bundles.appendleft(bundle)
        self._wake()

    def taken(self, number: int) -> None:
        """Note that a worker has so many of them."""
        self.number -= number
        if self.number < self.hold:
            self._room.set()

    def take(self, most: int) -> list[Event]:
        """Give some of the first ones to a worker."""
        bundle = self._bundles.popleft()
        events = bundle.events
        if len(events) > most:
            self._bundles.appendleft(Bundle(events[most:]))
            events = events[:most]
        self.taken(len(events))
        if self._bundles:
            self._wake()
        return events

    def remove(self, gone: set[bytes]) -> None:
        """Offer these no more."""
        before = sum(len(bundle.events) for bundle in self._bundles)
        kept: deque[Bundle] = deque()
        for bundle in self._bundles:
            events = [event for event in bundle.events if event._receipt not in gone]
            if events:
                kept.append(Bundle(events, bundle.count))
        self._bundles = kept
        self.number -= before - sum(len(bundle.events) for bundle in kept)
        self._room.set()

    async def arrival(self) -> None:
        """Wait until there are some to be taken; workers are woken in turn."""
        taker = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self._wake()  # it was woken for nothing: the next one takes what is there
            raise

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return


class QueueHand:
    """Implements `crash_isolation.Member` for the entries of one queue that were read and are not out of the stream."""

    def __init__(self, isolation: CrashIsolation) -> None:
        self.ready = Ready()
        self.held: set[bytes] = set()
        self.unreadable: set[bytes] = set()
        """Those that this router can't read."""
        self.lost: set[bytes] = set()
        """Those that vanished from Redis."""
        self._kept: set[bytes] = set()  # in hand, but waiting for its sink or its turn
        self.isolation = isolation
        self._single: bytes | None = None  # the entry for which this queue is alone
        self._quiet = asyncio.Event()

    @property
    def at_work(self) -> bool:
        """Whether a worker has a delivery in hand that does not merely wait there, or Redis does not know its end yet."""
        return len(self.held) > self.ready.number + len(self.unreadable) + len(self._kept)

    @property
    def shut_out(self) -> bool:
        """Whether another member is strictly alone, so that nothing may be handed out."""
        return self.isolation.shuts_out(self)

    @property
    def open(self) -> int:
        """How many are not settled."""
        return len(self.held) - len(self.unreadable)

    @property
    def resting(self) -> bool:
        """Whether nothing is in hand but what waits there for its sink or its turn."""
        return self.open == len(self._kept)

    def let_go(self, entries: Collection[bytes]) -> None:
        """Note that entries are out of the stream, or another router's."""
        self.held.difference_update(entries)
        self.lost.difference_update(entries)
        self._kept.difference_update(entries)
        self.leave_alone(entries)
        self._less()

    def keep(self, entry: bytes) -> bool:
        """Return whether an entry may stay in hand for long: not one that must be alone, all others wait for it."""
        if self._single == entry:
            return False
        self._kept.add(entry)
        self._less()
        return True

    def take_up(self, entries: Iterable[bytes]) -> None:
        """Note that these do not merely wait in hand any more."""
        self._kept.difference_update(entries)

    def _less(self) -> None:
        if self.shut_out:
            self.isolation.finished()
        if self.resting:
            self._quiet.set()

    def stir(self) -> None:
        """Let `change` return."""
        self._quiet.set()

    async def change(self, most: float | None = None) -> None:
        """Wait until nothing is at work, for `most` seconds at most."""
        self._quiet.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._quiet.wait()

    # Isolation.

    async def be_alone(self, entry: bytes) -> None:
        """Wait until this entry is the only suspicious one of the router."""
        await self.isolation.enter()
        self._single = entry

    def leave_alone(self, entries: Collection[bytes] | None = None) -> None:
        """End the isolation if it was for one of these (None: for any). Entries of other queues have the same ids."""
        if self._single is not None and (entries is None or self._single in entries):
            self._single = None
            self.isolation.leave()
