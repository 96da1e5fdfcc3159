"""Crash isolation: an entry or delivery that may have crashed the process is tried alone; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol


class Member(Protocol):
    """A component that takes part in crash isolation: a Redis queue, or the recovery of a source."""

    @property
    def at_work(self) -> bool:
        """True while deliveries that may crash the process are in flight."""


class CrashIsolation:
    """Runs suspects one at a time. A suspect is an entry or delivery that may have crashed the process.

    All sources and Redis queues of a router share one `CrashIsolation`. A suspect is *strict* if the member that runs
    it has called `shut`: while such a suspect runs, everything else is paused. If the process dies during this time,
    the suspect is the cause.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._members: set[Member] = set()
        self._strict: object = None
        self._opened = asyncio.Event()
        self._finished = asyncio.Event()

    def join(self, member: Member) -> None:
        """Register a member. From then on the member pauses while another member runs a strict suspect."""
        self._members.add(member)

    def part(self, member: Member) -> None:
        """Remove a member."""
        self._members.discard(member)
        self._finished.set()

    def shuts_out(self, member: object) -> bool:
        """Return whether this member must pause, because another member runs a strict suspect."""
        return self._strict is not None and self._strict is not member

    def finished(self) -> None:
        """Make `shut` check again whether the other members have deliveries in flight."""
        self._finished.set()

    async def opened(self) -> None:
        """Wait until no strict suspect is running."""
        while self._strict is not None:
            await self._opened.wait()

    async def enter(self) -> None:
        """Wait until no other suspect runs, and begin a turn.

        The next caller of `enter` waits until `leave` is called.
        """
        await self._lock.acquire()

    @contextlib.asynccontextmanager
    async def entered(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """Call `enter` at the beginning and `leave` at the end.

        Yields False if `stop` was set before the turn began, else True.
        """
        entering = asyncio.ensure_future(self.enter())
        try:
            await before(stop, entering)
            yield entering.done()
        finally:
            if entering.done() and not entering.cancelled():
                self.leave()
            entering.cancel()

    async def shut(self, member: object, patience: float) -> bool:
        """Pause all other members, and wait until they have no deliveries in flight, for `patience` seconds at most.

        Call this method after `enter`. Returns True if no other member has deliveries in flight now.
        """
        self._strict = member
        self._opened.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while any(other.at_work for other in self._members if other is not member):
                    self._finished.clear()
                    await self._finished.wait()
                return True
        return False

    def leave(self) -> None:
        """End the turn, and let the other members go on."""
        self._strict = None
        self._opened.set()
        self._lock.release()


async def before(stop: asyncio.Event, what: Awaitable[Any]) -> Any:
    """Wait for `what` and return its result; return None if `stop` is set first."""
    waiting, stopping = asyncio.ensure_future(what), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        stopping.cancel()
        waiting.cancel()
