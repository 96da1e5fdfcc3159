"""The stall watch: names the plugin that blocks the event loop; floor 5.

An `async def` that computes, or waits without `await`, blocks the whole router: nothing is read or delivered. A thread
checks the loop from outside and logs the line at which it is blocked.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Protocol

import structlog

log = structlog.stdlib.get_logger(__name__)

BLOCKED = 0.5
"""Seconds without a heartbeat after which the loop counts as blocked."""

_LOOK = 0.2  # seconds between two checks


class Told(Protocol):
    """A function that is told of a blocked event loop."""

    def __call__(self, place: str, *, of_plugin: bool) -> None:
        """Take the place, as file, line and function. `of_plugin` is True if it is in the code of a plugin."""


def _log(place: str, *, of_plugin: bool) -> None:
    if of_plugin:
        log.error("a plugin blocks the event loop: write a plain `def`, or await", at=place)
    else:
        log.error("the event loop is blocked", at=place)


class StallWatch:
    """The watch of one event loop, which calls `beat` several times a second.

    `plugins` are the files of the plugins, to find their frames in a stack. `told` is called, in a thread, when the loop is
    blocked; by default that is logged.
    """

    def __init__(self, plugins: Iterable[Path], told: Told = _log) -> None:
        self._told = told
        self._plugins: set[str] = set()
        self.know(plugins)
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)

    def know(self, plugins: Iterable[Path]) -> None:
        """Set the files of the plugins."""
        self._plugins = {str(path) for path in plugins}

    def start(self) -> None:
        """Start watching the loop of the calling thread."""
        self._watched = threading.get_ident()
        self._beat = time.monotonic()
        self._thread.start()

    def beat(self) -> None:
        """Note a heartbeat of the loop."""
        self._beat = time.monotonic()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        blocked_since: float | None = None
        while not self._over.wait(_LOOK):
            beat = self._beat
            if time.monotonic() - beat < BLOCKED:
                if blocked_since is not None:
                    log.warning("the event loop is running again", seconds=round(beat - blocked_since, 1))
                    blocked_since = None
            elif blocked_since is None:
                blocked_since = beat
                frame = sys._current_frames().get(self._watched)  # documented, in spite of its underscore
                place = _innermost(frame, self._plugins)
                self._told(_shown(place or frame), of_plugin=place is not None)


def _innermost(frame: FrameType | None, files: set[str]) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename not in files:
        frame = frame.f_back
    return frame


def _shown(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})" if frame else "unknown"
