"""The daemon threads of one sink, for blocking functions; floor 5.

The executor of the standard library waits for its threads at exit. So a function that hangs would block the exit
forever. Daemon threads end with the process. Each sink has its own threads, so a thread that hangs affects no other
sink.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from router.errors import class_and_text


class DaemonThreads:
    """A pool of at most `size` daemon threads, started on demand."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the function in a thread; return its result or raise its exception.

        If `run` is cancelled before a thread is free, the function is not called. If `run` is cancelled while the
        function runs, the result of the function is ignored.
        """
        job = _Job(asyncio.get_running_loop(), function, args)
        with self._lock:
            if self._idle <= self._jobs.qsize() and self._started < self._size:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put(job)
        return await job.future

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            job.run()

    def close(self) -> None:
        """End each thread after its current call."""
        for _ in range(self._size):
            self._jobs.put(None)


class _Job:
    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._function = function
        self._args = args

    def run(self) -> None:
        """Call the function, unless the job was cancelled, and pass the outcome to the event loop."""
        if self.future.cancelled():
            return
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._function(*self._args)
        except BaseException as raised:  # noqa: BLE001  # SystemExit must not end the thread
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits for the outcome
            self._loop.call_soon_threadsafe(self._complete, result, error)

    def _complete(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if isinstance(error, Exception) and not isinstance(error, StopIteration):  # a future refuses `StopIteration`
            self.future.set_exception(error)
        elif error is not None:
            told = RuntimeError(class_and_text(error))
            told.__cause__ = error
            self.future.set_exception(told)
        else:
            self.future.set_result(result)
