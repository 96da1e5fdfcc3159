"""Freeing the memory of parts that a reload has replaced; floor 5."""

from __future__ import annotations

import asyncio
import gc

SETTLING = 0.5
"""Seconds after which no timer and no finished task refers to a part that has ended."""


class Freeing:
    """The garbage collections after the end of replaced parts.

    The parts refer to each other, so only a garbage collection frees them. The automatic collections of old objects are
    so rare that the memory of many reloads would add up. A collection takes some milliseconds, and longer if plugins
    hold very many objects.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._ended_at = 0.0

    def part_ended(self) -> None:
        """Free the memory of a part in `SETTLING` seconds. Parts that end at about the same time are freed together."""
        loop = asyncio.get_running_loop()
        self._ended_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(SETTLING, self._collect)

    def _collect(self) -> None:
        self._timer = None
        gc.collect()
        loop = asyncio.get_running_loop()
        if loop.time() - self._ended_at < SETTLING:  # the last part may have ended too late for this collection
            self._timer = loop.call_later(SETTLING, self._collect)
