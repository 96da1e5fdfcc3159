"""The index of simple clauses: it evaluates the simple clauses of all routes together; pure.

The cost hardly grows with the number of routes. Each route is a bit of an integer. For each path, the index looks up
the value in the event once. Then it finds the routes that accept the value: for equalities in a dict by value, for
bounds of numbers in a sorted list.

A clause is simple if Python compares its values exactly as the schema engine does. If the simple clauses of a route
hold, its other clauses are evaluated afterwards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from router.core.conditions.clauses import Clause, Node, Test
from router.core.conditions.paths import Path

_EXACT = 2**53
"""Numbers that are not between `-_EXACT` and `_EXACT` are left to the schema engine. That engine compares floats by
their decimals, Python by their bits.
"""

_EQUALITIES = frozenset({"eq", "in"})
_BOUNDS = frozenset({"gt", "gte", "lt", "lte"})
_KINDS: Mapping[type, type] = {str: str, int: int, float: int, bool: bool, type(None): type(None)}
"""The key type in the index for each type of value. An int and a float may be equal, so they share one dict of keys."""

_MISSING: Any = object()

Key = tuple[type, Any]


def is_simple(node: Node) -> bool:
    """Return whether the index evaluates a clause."""
    return isinstance(node, Clause) and node.plain and all(map(_is_simple_test, node.tests))


def _is_simple_test(test: Test) -> bool:
    if test.operator in _EQUALITIES:
        return all(_is_exact(each) for each in operands(test))
    return test.operator in _BOUNDS and _is_exact(test.wanted)


def _is_exact(value: Any) -> bool:
    return not isinstance(value, int | float) or -_EXACT < value < _EXACT


def operands(test: Test) -> Iterable[Any]:
    """Return the wanted values of a test. One of them must match."""
    return test.wanted if isinstance(test.wanted, tuple) else (test.wanted,)


class AskedPath:
    """A path, and the simple tests that routes apply to the value at the path.

    `users` are the routes with such a test, as bits.
    """

    def __init__(self, path: Path, asked: Mapping[int, Sequence[Test]]) -> None:
        self.path = path
        self.users = _bits(asked)
        self._key = path[0] if len(path) == 1 and isinstance(path[0], str) else None
        self._values: dict[type, dict[Any, int]] = {kind: {} for kind in _KINDS.values()}
        self._values[float] = self._values[int]
        equal = {number: keys for number, tests in asked.items() if (keys := _equal_to(tests)) is not None}
        for number, keys in equal.items():
            for kind, value in keys:
                self._values[kind][value] = self._values[kind].get(value, 0) | 1 << number
        self._without_values = ~_bits(equal)
        bounds = {number: found for number, tests in asked.items() if (found := _bounds_of(tests))}
        self._without_bounds = ~_bits(bounds)
        self._points, self._between = _segments(bounds)

    def left(self, payload: Any) -> int:
        """Return the routes whose tests accept the value at this path, as bits.

        Routes without a test of this path are included.
        """
        key = self._key
        value = (
            self._find(payload) if key is None else payload.get(key, _MISSING) if type(payload) is dict else _MISSING
        )
        if value is _MISSING:
            return ~self.users
        kind = type(value)
        values = self._values.get(kind)
        left = self._without_values if values is None else self._without_values | values.get(value, 0)
        points = self._points
        if points:
            if kind is int or kind is float:
                place = bisect_left(points, value)
                exact = place < len(points) and points[place] == value
                left &= self._without_bounds | self._between[2 * place + exact]
            else:
                left &= self._without_bounds
        return left

    def _find(self, payload: Any) -> Any:
        for segment in self.path:
            if type(segment) is str:
                if type(payload) is not dict or segment not in payload:
                    return _MISSING
            elif type(payload) is not list or segment >= len(payload):  # type: ignore[operator]  # plain paths hold no `*`
                return _MISSING
            payload = payload[segment]
        return payload


class Index:
    """The simple tests of all routes of a configuration, by path.

    `clauses` are the clauses of each route, by the number of the route.
    """

    def __init__(self, clauses: Mapping[int, Iterable[Node]]) -> None:
        asked: dict[Path, dict[int, list[Test]]] = {}
        for number, nodes in clauses.items():
            for node in nodes:
                if isinstance(node, Clause) and is_simple(node):
                    asked.setdefault(node.path, {}).setdefault(number, []).extend(node.tests)
        self._paths = [AskedPath(path, tests) for path, tests in asked.items()]
        self._paths.sort(key=lambda each: -each.users.bit_count())

    def asked_by(self, routes: int) -> tuple[AskedPath, ...]:
        """Return the paths that at least one of these routes tests. The path that most routes test comes first."""
        return tuple(each for each in self._paths if each.users & routes)


def equalities(nodes: Iterable[Node]) -> dict[Path, set[Key]]:
    """Return, for each path with an equality, the values with which these clauses hold.

    Clauses that are not simple are ignored.
    """
    tests: dict[Path, list[Test]] = {}
    for node in nodes:
        if isinstance(node, Clause) and is_simple(node):
            tests.setdefault(node.path, []).extend(node.tests)
    return {path: found for path, each in tests.items() if (found := _equal_to(each)) is not None}


def _bits(numbers: Iterable[int]) -> int:
    return reduce(lambda bits, number: bits | 1 << number, numbers, 0)


def _equal_to(tests: Sequence[Test]) -> set[Key] | None:
    """Return the values that meet every equality among these tests; None if no test is an equality."""
    sets = [{(_KINDS[type(each)], each) for each in operands(test)} for test in tests if test.operator in _EQUALITIES]
    return set.intersection(*sets) if sets else None


def _bounds_of(tests: Sequence[Test]) -> list[Test]:
    return [test for test in tests if test.operator in _BOUNDS]


def _segments(bounds: Mapping[int, Sequence[Test]]) -> tuple[list[Any], list[int]]:
    """Return the bounds in order, and for each segment of the number line the routes whose tests hold there, as bits.

    A segment with an even number is an open interval between bounds; a segment with an odd number is a bound.
    """
    points = sorted({test.wanted for tests in bounds.values() for test in tests})
    places = {point: 2 * number + 1 for number, point in enumerate(points)}
    begins = [0] * (2 * len(points) + 2)
    ends = [0] * (2 * len(points) + 2)
    for number, tests in bounds.items():
        first, last = 0, 2 * len(points)
        for test in tests:
            at = places[test.wanted]
            if test.operator in {"gt", "gte"}:
                first = max(first, at + (test.operator == "gt"))
            else:
                last = min(last, at - (test.operator == "lt"))
        if first <= last:
            begins[first] |= 1 << number
            ends[last + 1] |= 1 << number
    between: list[int] = []
    current = 0
    for begin, end in zip(begins, ends, strict=True):
        current = current & ~end | begin
        between.append(current)
    return points, between
