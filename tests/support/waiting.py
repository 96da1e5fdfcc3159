"""Waiting: for a condition, up to the one deadline of the whole suite, or over a time in which nothing may change."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 120.0 * float(os.environ.get("EVENT_ROUTER_TEST_PATIENCE", "1"))
"""Seconds after which a wait has failed. Only a failing test ever waits so long, so the figure is generous."""

LOOK_EVERY = 0.005
"""Seconds between two looks at first."""

LOOK_AT_LEAST_EVERY = 0.05
"""Seconds between two looks at last: a look may cost a command of a server or a file, and takes CPU from what is waited for."""


class Told:
    """What is waited for, put into words only when the wait has failed."""

    def __init__(self, words: Callable[[], str]) -> None:
        self._words = words

    def __str__(self) -> str:
        return self._words()


def looks(seconds: float) -> Iterator[float]:
    """The pauses between looks until so many seconds are over: a tenth of the time waited so far, within the bounds above."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        yield min(max(LOOK_EVERY, waited / 10), LOOK_AT_LEAST_EVERY)


async def until(condition: Callable[[], T], what: object = "", *, within: float = PATIENCE) -> T:
    """Wait until `condition()` is truthy and return its value.

    The condition must be one that stays: a count, an event, a line of a log. A state that may pass between two looks
    makes a test that fails at times. Fails, naming `what`, after `within` seconds, and never before `PATIENCE`.
    """
    for pause in looks(max(within, PATIENCE)):
        if value := condition():
            return value
        await asyncio.sleep(pause)
    raise AssertionError(f"waited in vain for {what or condition}")


def wait_until(condition: Callable[[], T], what: object = "", *, within: float = PATIENCE) -> T:
    """Wait as `until` does, where there is no event loop."""
    for pause in looks(max(within, PATIENCE)):
        if value := condition():
            return value
        time.sleep(pause)
    raise AssertionError(f"waited in vain for {what or condition}")


async def stays(condition: Callable[[], object], seconds: float) -> None:
    """Fail as soon as `condition()` no longer holds, within the next `seconds`.

    For what must *not* happen. A busy machine makes such a test weaker, never red.
    """
    end = time.monotonic() + seconds
    while True:
        assert condition(), f"no longer so: {condition}"
        if time.monotonic() >= end:
            return
        await asyncio.sleep(LOOK_EVERY)


def block(seconds: float) -> None:
    """Stand still, as a plugin does that blocks the event loop."""
    time.sleep(seconds)


async def moment(seconds: float) -> None:
    """Let others work for about so long: in tests whose faults may strike anywhere, and for what takes its time by nature.

    Nothing may be asked afterwards that depends on how far the others have come.
    """
    await asyncio.sleep(seconds)
