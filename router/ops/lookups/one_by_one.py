"""Fetching records key by key, for stores that return one record per request; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from router.errors import TransientError

T = TypeVar("T")

AT_ONCE = 16
"""The largest number of fetches under way at the same time."""

PATIENCE = 8.0
"""Seconds after which keys without an answer fail.

This time is shorter than the time limit of the whole call (`lookup.PATIENCE`), after which all keys would fail.
"""


class OneByOne:
    """Fetches many keys, each by its own call, so that a key without an answer does not delay the other keys."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[object]] = set()

    async def fetch(self, keys: Sequence[str], one: Callable[[str], Awaitable[T]]) -> list[T | TransientError]:
        """Return the result of `one` for each key, in order.

        The result is a `TransientError` for a key without an answer in time.
        """

        async def fetched(key: str) -> T:
            async with self._turns:
                return await one(key)

        tasks = [asyncio.create_task(fetched(key)) for key in keys]
        for task in tasks:
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        try:
            await asyncio.wait(tasks, timeout=PATIENCE)
            late = TransientError(f"no answer within {PATIENCE:g} s")
            return [task.result() if task.done() else late for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved: no caller waits for a late answer
