"""The stall watch: names the plugin that blocks the event loop; floor 5.

An `async def` function that computes for a long time, or waits without `await`, blocks the whole router. Then nothing
is read or delivered. A thread watches the event loop from outside, and logs the line of code that blocks the loop. The
thread looks at the stack of the event loop. If the loop is idle, the thread does not wake the loop. If code is
running, the thread asks the loop to call a function. A busy loop calls the function in its next turn; a blocked loop
does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Protocol

import structlog

log = structlog.stdlib.get_logger(__name__)

BLOCKED = 0.5
"""The loop counts as blocked if it has not called the function within this number of seconds after the thread asked.
The thread asks at most `_LOOK` seconds after the block began.
"""

_LOOK = 0.25  # seconds between two checks


class Report(Protocol):
    """A function that is called when the event loop is blocked."""

    def __call__(self, place: str, *, of_plugin: bool) -> None:
        """Report the place: file, line and function. `of_plugin` is True if the place is in the code of a plugin."""


def _log(place: str, *, of_plugin: bool) -> None:
    if of_plugin:
        log.error(
            "a plugin blocks the event loop: use `await`, or write a plain `def` function instead of `async def`",
            at=place,
        )
    else:
        log.error("the event loop is blocked", at=place)


class StallWatch:
    """The watch of one event loop.

    `plugins` are the files of the plugins. The frames of plugins in a stack are found by these files. `report` is
    called, in a thread, when the loop is blocked. By default, it writes a log line.
    """

    def __init__(self, plugins: Iterable[Path], report: Report = _log) -> None:
        self._report = report
        self._plugins: set[str] = set()
        self.know(plugins)
        self._asked_at: float | None = None  # None if the thread does not wait for a call of `_answer`
        self._answered_at = 0.0
        self._over = threading.Event()

    def know(self, plugins: Iterable[Path]) -> None:
        """Set the files of the plugins."""
        self._plugins = {str(path) for path in plugins}

    def start(self) -> None:
        """Start watching the running loop. Call this method in a coroutine."""
        watched = _Watched()
        threading.Thread(target=self._watch, args=[watched], name="stall watch", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()

    def _answer(self) -> None:
        """Record that the loop runs. The thread asks the loop to call this method."""
        self._asked_at, self._answered_at = None, time.monotonic()

    def _watch(self, watched: _Watched) -> None:
        """Check the event loop at intervals, in a thread. Report each block of the loop once."""
        blocked_since: float | None = None
        while not self._over.wait(_LOOK):
            asked_at, now = self._asked_at, time.monotonic()
            if asked_at is None:
                if blocked_since is not None:
                    log.warning(
                        "the event loop was blocked and is running again",
                        seconds=round(self._answered_at - blocked_since, 1),
                    )
                    blocked_since = None
                if not watched.waits():
                    self._asked_at = now
                    with contextlib.suppress(RuntimeError):  # the loop was closed just now
                        watched.loop.call_soon_threadsafe(self._answer)
            elif blocked_since is None and now - asked_at >= BLOCKED:
                blocked_since = asked_at
                frame = watched.frame
                place = _innermost(frame, self._plugins)
                self._report(_shown(place or frame), of_plugin=place is not None)


def _innermost(frame: FrameType | None, files: set[str]) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename not in files:
        frame = frame.f_back
    return frame


def _shown(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})" if frame else "unknown"


class _Watched:
    """The running event loop of the calling thread. The object must be created in a task."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._runs_loop = _caller_of_task()

    @property
    def frame(self) -> FrameType | None:
        """The innermost frame of the loop's thread."""
        return sys._current_frames().get(self._thread)  # in spite of its underscore, this function is documented

    def waits(self) -> bool:
        """Return whether the loop is idle: it waits for input or for a timer.

        While it waits, no code runs that could block the loop. With uvloop, the wait is in C code, and the innermost
        Python frame is the caller of uvloop. With asyncio, the wait is in a function of the module `selectors`.
        """
        frame = self.frame
        if frame is None or frame.f_code is self._runs_loop:
            return True
        return frame.f_back is not None and frame.f_back.f_code is _RUN_ONCE


_RUN_ONCE = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]  # its stub has the public methods only


def _caller_of_task() -> CodeType | None:
    """Return the code that called the running task. With uvloop, this is the function that runs the loop."""
    task = asyncio.current_task()
    coroutine = task.get_coro() if task else None
    frame = coroutine.cr_frame if isinstance(coroutine, CoroutineType) else None
    return frame.f_back.f_code if frame and frame.f_back else None
