"""Functions that write counts in sentences; floor 0, imports no other module of the router."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun, or with noun and verb: `1 item waits`, `2 items wait`.

    `many` is the form for every number but 1. By default it is `one` with an `s`.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
