"""The event loop of a process that runs code of plugins; floor 5."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


def run_to_end(main: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine on a new event loop (uvloop, if it is installed) and return its result.

    At the end, the function cancels the remaining tasks and waits for them. It waits for at most 1 s, because a plugin
    that swallows its cancellation must not block the exit.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    if importlib.util.find_spec("uvloop"):
        import uvloop  # noqa: PLC0415  # an optional dependency

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()
