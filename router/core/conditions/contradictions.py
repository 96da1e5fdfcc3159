"""Clauses of a `match` that can never hold together; pure.

Only contradictions that are certain without a schema are found: between listed values, between bounds of numbers, and
between types. A field that must both exist and not exist is also found. All other clauses count as possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

from router.core.conditions.clauses import NUMBERS, AnyOf, Clause, Node, Not, Test
from router.core.conditions.match import holding
from router.core.conditions.paths import Path

_KINDS = frozenset({"null", "boolean", "number", "string", "array", "object"})
_OPPOSITE = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
_MOST = 50
"""The largest number of clauses about one path that are compared in pairs."""

Effect = Literal["match", "alternative", "not"]


class Contradiction(NamedTuple):
    """Clauses that can't all be true for one event.

    `effect` names the consequence: a `match` never holds, an alternative never holds, or a `not` always holds.
    """

    clauses: tuple[Node, ...]
    effect: Effect


def contradictions(clauses: Sequence[Node]) -> Iterator[Contradiction]:
    """Yield the contradictions in a `match`: at most one for each alternative or group that can't be true."""
    yield from _within(tuple(clauses), (), "match")


def _within(own: tuple[Node, ...], around: tuple[Node, ...], effect: Effect) -> Iterator[Contradiction]:
    """Yield the contradictions among the clauses `own`, which must hold together with the clauses `around`.

    Contradictions between a clause of `own` and a clause of `around` are included. The clauses in `around` do not
    contradict each other.
    """
    plain = (*around, *(each for each in own if not isinstance(each, AnyOf)))
    found = _contradicting(plain)
    if found:
        yield Contradiction(found, effect)
        return
    for node in own:
        if isinstance(node, AnyOf):
            for alternative in node.alternatives:
                yield from _within(alternative, plain, "alternative")
        elif isinstance(node, Not):
            yield from _within(node.of, (), "not")


def _contradicting(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return a few of these clauses that can't hold together; empty if all clauses can hold together."""
    by_path: dict[Path, list[Node]] = {}
    for node in nodes:
        path = _path(node)
        if path is not None:
            by_path.setdefault(path, []).append(node)
    for path, group in by_path.items():
        if _impossible(group):
            pairs = combinations(group, 2) if len(group) <= _MOST else ()
            single = next(((each,) for each in group if _impossible([each])), None)
            return single or next((pair for pair in pairs if _impossible(pair)), tuple(group))
        for length in range(1, len(path)):
            for above in by_path.get(path[:length], ()):
                below = next((each for each in group if isinstance(each, Clause)), None)
                if below is not None and _leaves_nothing_below(above, path[length]):
                    return (above, below)
    return ()


def _path(node: Node) -> Path | None:
    """Return the path that a clause is about; None if the clause is about several paths or none."""
    if isinstance(node, Clause):
        return node.path
    if isinstance(node, AnyOf):
        return None
    paths = {_path(each) for each in node.of}
    return paths.pop() if len(paths) == 1 else None


def _impossible(nodes: Sequence[Node]) -> bool:
    """Return whether clauses about one path certainly can't hold together."""
    wanted = [node for node in nodes if isinstance(node, Clause)]
    refused = [node.of[0] for node in nodes if isinstance(node, Not) and len(node.of) == 1]
    for clause in wanted:
        for inner in refused:
            if isinstance(inner, Clause) and all(_is_among(test, clause.tests) for test in inner.tests):
                return True
    if not wanted or not wanted[0].plain:  # with `*`, different elements may meet different clauses
        return any(_no_value_meets(clause.tests, [clause]) for clause in wanted)
    return _no_value_meets([test for clause in wanted for test in clause.tests], nodes)


def _is_among(refused: Test, tests: Sequence[Test]) -> bool:
    """Return whether a value that meets all of `tests` certainly meets the test `refused` too."""
    return refused.operator == "exists" or any(
        refused.operator == test.operator and repr(refused.wanted) == repr(test.wanted) for test in tests
    )


def _no_value_meets(tests: Sequence[Test], nodes: Sequence[Node]) -> bool:
    """Return whether certainly no value meets all tests.

    `nodes` are all clauses about the path of the tests, including the negated clauses.
    """
    kinds = _KINDS.intersection(*map(_kinds, tests))
    if not kinds:
        return True
    listed = next((test for test in tests if test.operator in {"eq", "in"}), None)
    if listed is not None:
        if len(tests) == 1 and len(nodes) == 1:
            return False
        values = listed.wanted if listed.operator == "in" else (listed.wanted,)
        return not any(map(holding(tuple(_of_value(node) for node in nodes)), values))
    return _no_number([*tests, *_opposites(nodes)]) if kinds == {"number"} else False


def _of_value(node: Node) -> Node:
    """Return a copy of a clause about one path, with an empty path.

    The copy tests a value itself, instead of a value at the path.
    """
    if isinstance(node, Clause):
        return Clause((), node.tests)
    assert isinstance(node, Not)
    return Not(tuple(map(_of_value, node.of)))


def _kinds(test: Test) -> frozenset[str]:
    """Return the types of the values that may meet a test."""
    operator, wanted = test.operator, test.wanted
    if operator in NUMBERS:
        return frozenset({"number"})
    if operator in {"eq", "in"}:
        return frozenset(map(_kind, wanted if operator == "in" else (wanted,)))
    if operator == "contains":
        return frozenset({"array", "string"} if any(isinstance(each, str) for each in wanted) else {"array"})
    return _KINDS if operator in {"ne", "exists"} else frozenset({"string"})


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _opposites(nodes: Sequence[Node]) -> Iterator[Test]:
    """Yield the bounds that a negated bound puts on a number: `not: {gt: 5}` is `lte: 5`."""
    for node in nodes:
        if (
            isinstance(node, Not)
            and len(node.of) == 1
            and isinstance(node.of[0], Clause)
            and len(node.of[0].tests) == 1
        ):
            (test,) = node.of[0].tests
            if test.operator in NUMBERS:
                yield Test(_OPPOSITE[test.operator], test.wanted)


def _no_number(tests: Sequence[Test]) -> bool:
    """Return whether the bounds exclude every number."""
    bounds = _bounds(tests)
    if bounds is None:
        return False
    (low, over), (high, under) = bounds
    return low > high or (low == high and (over or under))


def no_integer(tests: Sequence[Test]) -> bool:
    """Return whether these bounds allow a number, but no integer, as in `gt: 1, lt: 2`."""
    bounds = _bounds(tests)
    if bounds is None or _no_number(tests):
        return False
    (low, over), (high, under) = bounds
    lowest = math.floor(low) + 1 if over else math.ceil(low)
    highest = math.ceil(high) - 1 if under else math.floor(high)
    return lowest > highest


def _bounds(tests: Sequence[Test]) -> tuple[tuple[float, bool], tuple[float, bool]] | None:
    """Return the lower and the upper bound, and for each whether it is exclusive; None if either bound is missing."""
    lowest = [(test.wanted, test.operator == "gt") for test in tests if test.operator in {"gt", "gte"}]
    highest = [(test.wanted, test.operator == "lt") for test in tests if test.operator in {"lt", "lte"}]
    if not lowest or not highest:
        return None
    return max(lowest), min(highest, key=lambda bound: (bound[0], not bound[1]))


def _leaves_nothing_below(above: Node, segment: str | int | None) -> bool:
    """Return whether a value that meets a clause can't have anything at `segment`, which is a key or an index."""
    if isinstance(above, Not):
        (inner, *others) = above.of
        return not others and isinstance(inner, Clause) and all(test.operator == "exists" for test in inner.tests)
    if not isinstance(above, Clause) or not above.plain:
        return False
    needed = "object" if isinstance(segment, str) else "array"
    return any(needed not in _kinds(test) for test in above.tests)
