"""The deliveries of one Redis queue in flight at this router: ready for a worker, or taken by a worker; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from router.broker.groups.crash_isolation import CrashIsolation
from router.events import Event


class Bundle(msgspec.Struct):
    """Deliveries that are ready.

    `count` is usually None. For a single delivery that must be alone in flight, `count` is its delivery count.
    """

    events: list[Event]
    count: int | None = None


class Ready:
    """The deliveries that were read and that no worker has taken yet, in order."""

    def __init__(self) -> None:
        self.number = 0
        self.hold = 0
        """The largest number of deliveries to read ahead. If workers give deliveries back, `number` may exceed
        `hold`."""
        self._room = asyncio.Event()
        self._bundles: deque[Bundle] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()

    @property
    def first(self) -> Bundle | None:
        """The next bundle; None if no delivery is ready."""
        return self._bundles[0] if self._bundles else None

    @property
    def entries(self) -> set[bytes]:
        """The entry ids of all ready deliveries."""
        return {event._receipt for bundle in self._bundles for event in bundle.events}

    @property
    def enough(self) -> bool:
        """True while the number of ready deliveries is more than half of `hold`. The reader waits while this is True.

        Otherwise the reader would read one delivery each time a delivery is taken, with a round trip to Redis for every
        delivery.
        """
        return 2 * self.number > self.hold

    def make_room(self) -> None:
        """Make `room` return."""
        self._room.set()

    async def room(self) -> None:
        """Wait until the reader may read more."""
        self._room.clear()
        await self._room.wait()

    def add(self, events: list[Event], count: int | None = None) -> None:
        """Offer deliveries to the workers."""
        self._bundles.append(Bundle(events, count))
        self.number += len(events)
        self._wake()

    def give_back(self, events: list[Event]) -> None:
        """Put deliveries back at the front, so that they are offered next."""
        self.number += len(events)
        self.lower(Bundle(events))

    def lift(self) -> Bundle:
        """Remove and return the first bundle.

        The deliveries of the bundle count as ready until `taken` or `lower` is called.
        """
        return self._bundles.popleft()

    def lower(self, bundle: Bundle) -> None:
        """Put a bundle back as the first one."""
        self._bundles.appendleft(bundle)
        self._wake()

    def taken(self, number: int) -> None:
        """Record that a worker has taken `number` deliveries."""
        self.number -= number
        if not self.enough:
            self._room.set()

    def take(self, most: int) -> list[Event]:
        """Remove up to `most` deliveries from the first bundle and return them."""
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
        """Remove the deliveries of these entries."""
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
        """Wait until a delivery is ready. Workers are woken in the order in which they began to wait."""
        taker = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self._wake()  # this worker was woken, but is cancelled, so wake the next one
            raise

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return


class QueueInFlight:
    """The entries of one queue, from their reading to their removal from the stream. Implements `crash_isolation.Member`."""

    def __init__(self, isolation: CrashIsolation) -> None:
        self.ready = Ready()
        self.held: set[bytes] = set()
        self.unreadable: set[bytes] = set()
        """The entries that this router can't read."""
        self.lost: set[bytes] = set()
        """The entries that vanished from Redis."""
        self._waiting: set[bytes] = (
            set()
        )  # taken, but not attempted: they wait for the sink, or for an earlier delivery
        self.isolation = isolation
        self._single: bytes | None = None  # the suspect for which this queue has entered the isolation
        self._quiet = asyncio.Event()

    @property
    def at_work(self) -> bool:
        """True while deliveries are attempted, or have an outcome that is not reported to Redis yet."""
        return len(self.held) > self.ready.number + len(self.unreadable) + len(self._waiting)

    @property
    def shut_out(self) -> bool:
        """True while another queue or source runs a strict suspect, so that workers must wait."""
        return self.isolation.shuts_out(self)

    @property
    def open(self) -> int:
        """The number of deliveries that are not settled."""
        return len(self.held) - len(self.unreadable)

    @property
    def resting(self) -> bool:
        """True if all deliveries in flight, if any, wait for their sink or for an earlier delivery."""
        return self.open == len(self._waiting)

    def let_go(self, entries: Collection[bytes]) -> None:
        """Forget entries that left the stream or that another router has claimed."""
        self.held.difference_update(entries)
        self.lost.difference_update(entries)
        self._waiting.difference_update(entries)
        self.leave_alone(entries)
        self._less()

    def may_wait(self, entry: bytes) -> bool:
        """Record that an entry waits without an attempt, and return True.

        For a suspect that runs alone, record nothing and return False, because all other deliveries wait for the
        suspect.
        """
        if self._single == entry:
            return False
        self._waiting.add(entry)
        self._less()
        return True

    def take_up(self, entries: Iterable[bytes]) -> None:
        """Record that entries wait no longer, because their attempts begin."""
        self._waiting.difference_update(entries)

    def _less(self) -> None:
        if self.shut_out:
            self.isolation.finished()
        if self.resting:
            self._quiet.set()

    def stir(self) -> None:
        """Make a waiting call of `change` return."""
        self._quiet.set()

    async def change(self, most: float | None = None) -> None:
        """Wait until `resting` may have become true or `stir` is called, at most for `most` seconds (None: no limit)."""
        self._quiet.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._quiet.wait()

    # Isolation.

    async def be_alone(self, entry: bytes) -> None:
        """Wait until no other suspect runs in this router, and enter the isolation for this entry."""
        await self.isolation.enter()
        self._single = entry

    def leave_alone(self, entries: Collection[bytes] | None = None) -> None:
        """Leave the isolation if it was entered for one of these entries (None: for any entry)."""
        if self._single is not None and (entries is None or self._single in entries):
            self._single = None
            self.isolation.leave()
