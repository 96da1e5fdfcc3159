"""The CPU that a function takes, to be compared within one run: never judged by the clock on the wall."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import Any

import msgspec

MEBIBYTE = 2**20


def mebibyte(pattern: str) -> str:
    """A text of one pattern again and again that is a mebibyte in an event's JSON."""
    return pattern * (MEBIBYTE // (len(msgspec.json.encode(pattern)) - 2))


def cost(function: Callable[..., Any], *args: Any, times: int = 3) -> float:
    """Seconds of CPU that a call takes: the least of a few."""
    seconds = []
    for _ in range(times):
        began = process_time()
        function(*args)
        seconds.append(process_time() - began)
    return min(seconds)
