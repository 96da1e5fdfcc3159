"""The outbox: sends numbered batches to Redis in order, and retries each batch until Redis has accepted it; floor 4.

If the answer to a batch is lost, the batch is sent again under the same number. The script does nothing if it has seen
this number before, so every batch takes effect only once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.link import COMMAND, Link, Script, Turn, Word, cancelled
from router.contracts import Sign

HURRIED = 0.1
"""The maximum number of seconds between two attempts during `drain`."""


class Batch(NamedTuple):
    """The keys and arguments of one script call. The outbox puts the number of the batch before the arguments."""

    keys: Sequence[str]
    words: Sequence[Word]


class Cargo(Protocol):
    """The contents of an outbox: the items that wait to be sent.

    The cargo makes the batches and handles the answers.
    """

    def next_batch(self) -> Batch | None:
        """Return the next batch; None if no item waits."""

    def taken(self, answer: Any) -> bool:
        """Handle the script's answer to the last batch; return whether to send that batch again."""


class Buffer(msgspec.Struct):
    """The memory for items that wait for Redis: the limit in bytes, and the number of bytes in use."""

    limit: int
    used: int = 0


class Outbox:
    """Sends the batches of `cargo`, and reports every attempt to `health` as the task `name`."""

    def __init__(self, name: str, server: Server, script: Script, cargo: Cargo, health: Health) -> None:
        self.idle = asyncio.Event()
        """Set while no batch waits to be sent."""
        self.idle.set()
        self.link = Link(server)
        self._name = name
        self._script = script
        self._cargo = cargo
        self._health = health
        self._number = 0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        # Send no other batch before the current batch is accepted: the script ignores numbers below the highest one so
        # far.
        self._turn = Turn()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that sends."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Report that the cargo has a batch to send."""
        self.idle.clear()
        self._wake.set()

    async def once(self, batch: Batch) -> Any:
        """Send a batch once, without retries, and return the answer.

        After an error the batch may be lost. Raises the errors of `Link`.
        """
        async with self._turn:
            return await self.link.script(self._script, batch.keys, (self._next_number(), *batch.words))

    def signs(self, part: str) -> Iterator[Sign]:
        """Yield the progress of the outbox, for the watchdog.

        `part` is the name of the outbox in the watchdog's messages.
        """
        yield Sign(part, COMMAND, self.link.since)
        if self._task is not None and self._task.done():
            yield Sign(part, "its task ended unexpectedly", None, ended=True)

    async def drain(self, patience: float) -> None:
        """Send the waiting batches, for `patience` seconds at most, then stop the task and close the connection."""
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
        """Send a batch until Redis accepts it.

        The delays between the attempts grow, after errors and while a queue is full.
        """
        number, backoff = self._next_number(), None
        while True:
            try:
                answer = await self.link.script(self._script, batch.keys, (number, *batch.words))
                again = self._cargo.taken(answer)
            except Exception as error:  # noqa: BLE001  # after any error the batch is sent again
                delay = self._health.failed(error, self._name)
            else:
                self._health.succeeded(self._name)
                if not again:
                    return
                backoff = backoff or self._health.backoff()
                delay = backoff.next()
            await self._pause(delay)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _pause(self, delay: float) -> None:
        """Wait `delay` seconds before the next attempt. Once `drain` was called, wait at most `HURRIED` seconds."""
        if self._hurry.is_set():
            await asyncio.sleep(min(delay, HURRIED))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
