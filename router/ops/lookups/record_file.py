"""The store of a lookup whose records are in a file. A changed file is read again; floor 4."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from router.contracts import Clock
from router.core.rendering.sandbox.lookup_records import Record
from router.errors import TransientError
from router.ops.loading.record_files import RecordFileError, Table, read_records
from router.ops.watching import State, states

LOOK = 1.0
"""The longest time, in seconds, between two checks whether the file has changed."""

QUIET = 0.1
"""Seconds without a further change before a changed file is read, because it may be half written."""

LOOKS = 20
"""The largest number of waits of `QUIET` seconds each.

If a file changes again and again, it is read after the last wait, and again at the next check.
"""


class RunBlocking(Protocol):
    """Runs a blocking function in a thread and returns its result."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run the function with these arguments."""


class RecordFile:
    """The records of one file. If a changed file can't be used, the earlier records are still used.

    `by` is the name of the column or field with the key. A change of the file is noticed within `ttl` seconds.
    """

    def __init__(self, path: str, by: str | None, *, ttl: float, clock: Clock, run_blocking: RunBlocking) -> None:
        self._path = Path(path)
        self._by = by
        self._every = min(ttl, LOOK)
        self._clock = clock
        self._run_blocking = run_blocking
        self._table: Table | None = None
        self._state: State = None  # the state of the file when it was last read
        self._next_look = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self.fault: str | None = None
        """The reason why the current file can't be used; None if the file can be used."""

    def __len__(self) -> int:
        return len(self._table or ())

    @property
    def loaded(self) -> bool:
        """True after the file has been read once without an error: from then on there are records."""
        return self._table is not None

    async def fetch_many(self, keys: Sequence[str]) -> list[Record | Exception | None]:
        """Return the record of each key, or None if the file has no record for the key. A changed file is read first.

        Raises `TransientError` if the file has never been readable.
        """
        reading = self.look()
        if reading is not None:
            await asyncio.wait({reading})  # a cancellation does not end the reading, because a large file takes long
        if self._table is None:
            raise TransientError(self.fault or "the file has not been read yet")
        return [self._table.get(key) for key in keys]

    def look(self) -> asyncio.Task[None] | None:
        """Check the file if the last check is long enough ago, and start to read a changed file. Returns the reading
        under way.
        """
        now = self._clock.monotonic()
        if self._reading is None and now >= self._next_look:
            self._next_look = now + self._every
            state = self._state_now()
            if state is None or state != self._state:
                self._reading = asyncio.create_task(self._read(state), name=f"reading {self._path.name}")
                self._reading.add_done_callback(self._ended)
        return self._reading

    async def _read(self, state: State) -> None:
        """Read the file as soon as it has stopped changing."""
        for _ in range(LOOKS if self.loaded else 0):
            await asyncio.sleep(QUIET)
            before, state = state, self._state_now()
            if state == before:
                break
        try:
            self._table = await self._run_blocking(read_records, self._path, self._by)
        except RecordFileError as error:
            self.fault = f"{self._path.name}{error.place}: {error}"
        else:
            self.fault = None
        self._state = state

    def _state_now(self) -> State:
        return states([self._path])[self._path]

    def _ended(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled() and (error := reading.exception()) is not None:
            self.fault = f"{self._path.name}: {type(error).__name__}"  # a fault of the router

    async def close(self) -> None:
        """End the reading under way."""
        if self._reading is not None:
            self._reading.cancel()
