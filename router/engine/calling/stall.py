"""Names the plugin that blocks the event loop; floor 5.

An `async def` that computes or waits without `await` stops everything: no other sink delivers, nothing is read. A thread
looks at the loop from outside and says which line it hangs on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import structlog

log = structlog.stdlib.get_logger(__name__)

BLOCKED = 0.5
"""Seconds without a beat after which the loop counts as blocked."""

_LOOK = 0.2


class StallWatch:
    """Watches one event loop; `beat` is called by that loop several times a second.

    `plugins` are the files of the plugins, to tell theirs from our frames.
    """

    def __init__(self, plugins: Iterable[Path]) -> None:
        self._plugins: set[str] = set()
        self.know(plugins)
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)

    def know(self, plugins: Iterable[Path]) -> None:
        """These are the files of the plugins from now on."""
        self._plugins = {str(path) for path in plugins}

    def start(self) -> None:
        """Start watching the loop of the calling thread."""
        self._watched = threading.get_ident()
        self._beat = time.monotonic()
        self._thread.start()

    def beat(self) -> None:
        """The loop is alive."""
        self._beat = time.monotonic()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()

    def _watch(self) -> None:
        said: float | None = None
        while not self._over.wait(_LOOK):
            beat = self._beat
            if time.monotonic() - beat < BLOCKED:
                if said is not None:
                    log.warning("the event loop runs again", seconds=round(beat - said, 1))
                    said = None
            elif said is None:
                said = beat
                self._say()

    def _say(self) -> None:
        frame = sys._current_frames().get(self._watched)  # the documented way to see another thread's stack
        place = _innermost(frame, self._plugins)
        if place is None:
            log.error("the event loop is blocked", at=_shown(frame))
        else:
            log.error("a plugin blocks the event loop: write a plain `def`, or await", at=_shown(place))


def _innermost(frame: FrameType | None, files: set[str]) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename not in files:
        frame = frame.f_back
    return frame


def _shown(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})" if frame else "unknown"
