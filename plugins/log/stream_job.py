"""The job of a thread that writes a batch to a stream that may be slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Sequence

from router.api import Event

from .log_options import LogOptions


class StreamJob:
    """A batch that a thread writes to a stream that may be slow. `written` is the number of bytes written so far."""

    def __init__(self, fd: int, data: bytes, lead: int, batch: Sequence[tuple[Event, LogOptions]]) -> None:
        self.data = data
        self.lead = lead
        self.batch = batch
        self.written = 0
        self.error: OSError | None = None
        self.finished = asyncio.Event()
        self.orphaned = False  # True if the writer no longer uses the descriptor; the job closes it at its end
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._claim = threading.Lock()

    def run(self) -> None:
        """Write the batch, or as much of it as possible; runs in a thread."""
        if not self._claim.acquire(blocking=False):
            return
        view = memoryview(self.data)
        try:
            while self.written < len(view):
                self.written += self._write_some(view[self.written : self.written + 65536])
        except OSError as error:
            self.error = error
        finally:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task waits for the result
                self._loop.call_soon_threadsafe(self._finish)

    def abandon(self) -> bool:
        """Prevent the job from starting; return False if it has started."""
        return self._claim.acquire(blocking=False)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process that shares this stream made it non-blocking
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll()
            return 0

    def _finish(self) -> None:
        self.finished.set()
        if self.orphaned:
            os.close(self._fd)
