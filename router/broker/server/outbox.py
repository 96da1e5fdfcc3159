"""An outbox: sends numbered batches to Redis, in order, each again until Redis has taken it; floor 4.

A batch whose answer was lost is sent again under its number, and its script does nothing for a number it has seen. So every
batch takes effect once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.link import COMMAND, Link, Script, Word, cancelled
from router.contracts import Sign

HURRIED = 0.1
"""Seconds between two attempts, at most, while the outbox is drained."""


class Batch(NamedTuple):
    """The keys and words of one call of the script. The number of the batch is put before the words."""

    keys: Sequence[str]
    words: Sequence[Word]


class Cargo(Protocol):
    """The source of an outbox's batches: it keeps what waits to be sent, and hears what Redis has taken."""

    def next_batch(self) -> Batch | None:
        """Return the next batch; None when nothing waits."""

    def taken(self, answer: Any) -> bool:
        """Hear the answer of the script to the last batch; return whether that batch is to be sent again."""


@dataclass(slots=True)
class Buffer:
    """The bound in bytes of what waits while Redis takes nothing, and how much of it is used."""

    limit: int
    used: int = 0


class Outbox:
    """Sends what a `Cargo` holds. `health` hears of every attempt, under the outbox's name."""

    def __init__(self, name: str, server: Server, script: Script, cargo: Cargo, health: Health) -> None:
        self.idle = asyncio.Event()
        """Set while nothing waits to be sent."""
        self.idle.set()
        self.link = Link(server)
        self._name = name
        self._script = script
        self._cargo = cargo
        self._health = health
        self._number = 0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._turn = asyncio.Lock()  # a batch in doubt must not be overtaken by one with a higher number
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Send what came to the cargo."""
        self.idle.clear()
        self._wake.set()

    async def once(self, batch: Batch) -> Any:
        """Send a batch that nobody misses, when none is in doubt, and return the answer. Raises what `Link` raises."""
        async with self._turn:
            return await self._attempt(self._next_number(), batch)

    def signs(self, part: str) -> Iterator[Sign]:
        """Yield what the outbox is doing, for the watchdog. `part` names it there."""
        yield Sign(part, COMMAND, self.link.since)
        if self._task is not None and self._task.done():
            yield Sign(part, "its task has ended by itself", None, ended=True)

    async def drain(self, patience: float) -> None:
        """Send what waits, for `patience` seconds at most, and end."""
        self._hurry.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.idle.wait()
            await cancelled([self._task])
            self._task = None
        await self.link.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (batch := self._cargo.next_batch()) is not None:
                async with self._turn:
                    await self._send(batch)
            self.idle.set()

    async def _send(self, batch: Batch) -> None:
        """Send the batch until Redis has taken it. The delays grow too while Redis answers that it has no room."""
        number, backoff = self._next_number(), self._health.backoff()
        while True:
            try:
                again = self._cargo.taken(await self._attempt(number, batch))
            except Exception as error:  # noqa: BLE001  # whatever it is, the batch waits and is sent again
                delay = self._health.failed(error, self._name)
            else:
                self._health.succeeded(self._name)
                if not again:
                    return
                delay = backoff.next()
            await self._pause(delay)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _attempt(self, number: int, batch: Batch) -> Any:
        return await self.link.script(self._script, batch.keys, (number, *batch.words))

    async def _pause(self, delay: float) -> None:
        """Wait before the next attempt; hardly at all once the outbox is drained."""
        if self._hurry.is_set():
            await asyncio.sleep(min(delay, HURRIED))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
