"""Functions that write counts in sentences; floor 0, imports no other module of the router."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number followed by its noun, or by noun and verb, such as `1 item waits` or `2 items wait`.

    `one` is the form for the number 1, and `many` for all others. By default, `many` is `one` with an `s`.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
