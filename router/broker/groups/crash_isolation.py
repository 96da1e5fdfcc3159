"""Who is to blame when the process dies: what may have done it is tried with nothing beside it; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol


class Member(Protocol):
    """Has deliveries in hand that may end the process: a Redis queue, or a source that takes again what was in hand before."""

    @property
    def at_work(self) -> bool:
        """Whether any are in hand at present."""


class CrashIsolation:
    """Lets one suspicious delivery of a whole router be in hand at a time; its sources and Redis queues share one.

    A *strict* one is alone with nothing at all beside it: what it is tried for may find it guilty.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._members: set[Member] = set()
        self._strict: object = None
        self._opened = asyncio.Event()
        self._finished = asyncio.Event()

    def join(self, member: Member) -> None:
        """One that holds back while another one is strictly alone."""
        self._members.add(member)

    def part(self, member: Member) -> None:
        """It is there no more."""
        self._members.discard(member)
        self._finished.set()

    def shuts_out(self, member: object) -> bool:
        """Whether this one may hand nothing out at present."""
        return self._strict is not None and self._strict is not member

    def finished(self) -> None:
        """One that is shut out has less in hand than before."""
        self._finished.set()

    async def opened(self) -> None:
        """Wait until it may again."""
        while self._strict is not None:
            await self._opened.wait()

    async def enter(self) -> None:
        """Wait for the others that are suspicious; then this one is the only one of that kind."""
        await self._lock.acquire()

    @contextlib.asynccontextmanager
    async def entered(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """`enter` and, at the end, `leave`; says whether that came before `stop` was set."""
        entering = asyncio.ensure_future(self.enter())
        try:
            await before(stop, entering)
            yield entering.done()
        finally:
            if entering.done() and not entering.cancelled():
                self.leave()
            entering.cancel()

    async def shut(self, member: object, patience: float) -> bool:
        """Hold back everybody else, and wait until none has anything in hand, for `patience` seconds at most.

        Comes after `enter`; returns whether it is strictly alone now.
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
        """It is over."""
        self._strict = None
        self._opened.set()
        self._lock.release()


async def before(stop: asyncio.Event, what: Awaitable[Any]) -> Any:
    """Wait for it; returns its result, None when `stop` is set before it has one."""
    waiting, stopping = asyncio.ensure_future(what), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        stopping.cancel()
        waiting.cancel()
