"""The comparisons of JSON values in expressions: strict about types, and false instead of an error; floor 2.

In Python, `True == 1` is true, and `"a" < 1` is an error. Events may have any shape, so in an expression values of
different types are unequal and have no order. All numbers have one type (`5 == 5.0`). Numbers of any size are compared
exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from router.core.rendering.sandbox.bounds import current
from router.core.rendering.sandbox.values import Missing

Compare = Callable[[Any, Any], bool]

_CHARACTERS = 1024  # the number of characters that a search in a string covers in about the time of one loop round
_ITEMS = 8  # the number of items that a search in a list covers in this time
_HOLDERS = (list, tuple, dict)


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are the same JSON value.

    A missing value is never equal, even to another missing value.
    """
    if isinstance(left, Missing) or isinstance(right, Missing):
        return False
    if isinstance(left, _HOLDERS) and isinstance(right, _HOLDERS):
        return _equal_inside(left, right)
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


def _equal_inside(left: Any, right: Any) -> bool:
    """Compare lists and mappings with all their contents, without recursion: an event may nest them a thousand deep."""
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        pairs = _pairs(one, other)
        if pairs is None:
            return False
        for value, counterpart in pairs:
            if isinstance(value, _HOLDERS):
                waiting.append((value, counterpart))
            elif not equal(value, counterpart):
                return False
    return True


def _pairs(one: Any, other: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the pairs of inner values that must be equal for two lists or mappings to be equal; None if these can't be
    equal.
    """
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return zip(one, other, strict=True) if len(one) == len(other) else None
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return ((value, other[key]) for key, value in one.items())
    return None


def _ordered(compare: Compare) -> Compare:
    """Return a comparison that is false for values without an order."""

    def compared(left: Any, right: Any) -> bool:
        if isinstance(left, bool) or isinstance(right, bool):
            return False
        if isinstance(left, int | float) and isinstance(right, int | float):
            return compare(left, right)
        if isinstance(left, str) and isinstance(right, str):
            return compare(left, right)
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            differ = next((pair for pair in zip(left, right, strict=False) if not equal(*pair)), None)
            return compare(len(left), len(right)) if differ is None else compared(*differ)
        if isinstance(left, date) and isinstance(right, date):
            try:
                return compare(left, right)
            except TypeError:  # a day and a time, or a time without a zone
                return False
        return False

    return compared


def within(left: Any, right: Any) -> bool:
    """Return whether a value is an element of a list, a part of a string, or a key of a mapping."""
    if isinstance(right, Mapping):
        return isinstance(left, str) and left in right
    if isinstance(right, str):
        _count(len(right) // _CHARACTERS)
        return isinstance(left, str) and left in right
    if isinstance(left, Missing) or not isinstance(right, list | tuple | range):
        return False
    _count(len(right) // _ITEMS)
    if isinstance(left, str) or (isinstance(right, range) and isinstance(left, int)):
        return left in right and not isinstance(left, bool)  # this search is fast, because it runs in C
    return _among(left, right)


def _count(rounds: int) -> None:
    """Count a search in a large value as rounds of a loop.

    A filter may search one value for each element of another value. For example, `payload.words | select("in",
    payload.others)` with 90,000 words in each list would take minutes. Raises `OverflowError` past `MAX_STEPS`.
    """
    if rounds:
        current.get().step(rounds)


def _among(left: Any, values: Iterable[Any]) -> bool:
    return any(equal(left, value) for value in values)


COMPARISONS: dict[str, Compare] = {
    "eq": equal,
    "ne": lambda left, right: not equal(left, right),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "in": within,
    "notin": lambda left, right: not within(left, right),
}
"""The comparisons by Jinja's names of their operators."""

_TEST_NAMES = {
    "eq": ("eq", "equalto", "=="),
    "ne": ("ne", "!="),
    "gt": ("gt", "greaterthan", ">"),
    "gteq": ("ge", ">="),
    "lt": ("lt", "lessthan", "<"),
    "lteq": ("le", "<="),
    "in": ("in",),
}

TESTS: dict[str, Compare] = {name: COMPARISONS[operator] for operator, names in _TEST_NAMES.items() for name in names}
"""Jinja's tests that compare: `select('gt', 5)` has the same result as `>`."""
