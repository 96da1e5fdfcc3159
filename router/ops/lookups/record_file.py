"""The records of a lookup that stand in a file, which is read again when it changes; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from router.contracts import Clock
from router.core.rendering.sandbox.lookup_records import Record
from router.errors import TransientError
from router.ops.loading.record_files import RecordFileError, Table, read_records
from router.ops.watching import State, states

LOOK = 1.0
"""Seconds between two looks whether the file has changed."""


class RunBlocking(Protocol):
    """Runs a blocking function in a thread and returns its result."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run the function with these arguments."""


class RecordFile:
    """The records of one file. A file that can't be used any more leaves its last good records in force.

    `by` names the column or field with the key; `ttl` bounds, in seconds, how long a change may go unnoticed.
    """

    def __init__(self, path: str, by: str | None, *, ttl: float, clock: Clock, run_blocking: RunBlocking) -> None:
        self._path = Path(path)
        self._by = by
        self._every = min(ttl, LOOK)
        self._clock = clock
        self._run_blocking = run_blocking
        self._table: Table | None = None
        self._read: State = None
        self._changed: State = None
        self._next_look = 0.0
        self._looking = asyncio.Lock()
        self.fault: str | None = None
        """Why the file as it is now can't be used; None while it can."""

    def __len__(self) -> int:
        return len(self._table or ())

    async def fetch_many(self, keys: Sequence[str]) -> list[Record | Exception | None]:
        """Return the record of each key, None where there is none.

        Raises `TransientError` if the file has never been readable.
        """
        if self._clock.monotonic() >= self._next_look or self._table is None:
            async with self._looking:
                now = self._clock.monotonic()
                if now >= self._next_look:
                    self._next_look = now + self._every
                    await self._look()
        if self._table is None:
            raise TransientError(self.fault or "the file has not been read")
        return [self._table.get(key) for key in keys]

    async def _look(self) -> None:
        """Read the file if it has changed, and has not gone on changing since the last look: it may be half written."""
        state = states([self._path])[self._path]
        if state is not None and state == self._read:
            return
        if self._table is not None and state != self._changed:
            self._changed = state
            return
        try:
            self._table = await self._run_blocking(read_records, self._path, self._by)
        except RecordFileError as error:
            self.fault = f"{self._path.name}{error.place}: {error}"
        else:
            self.fault = None
        self._read = state

    async def close(self) -> None:
        """Do nothing: the file is closed after each reading."""
