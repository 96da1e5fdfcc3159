"""The evaluation of each clause of a `match` for one event: whether the clause held, and the value that it saw; pure.

The commands `explain` and `test` use this module. It runs each clause alone on the schema engine. The router itself
evaluates simple clauses by the `index`, and runs the other clauses of a `match` together on the schema engine.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

from router.core.conditions import paths
from router.core.conditions.clauses import AnyOf, Clause, Node, Not, Test, shown
from router.core.conditions.lookalikes import HINT, composed
from router.core.conditions.match import Match, holding
from router.core.validation import SchemaProblem

MOST = 10
"""The largest number of values of one path that are shown."""

NOTHING = "nothing"
"""The text for the value of a clause whose path is missing in the payload."""


class Reason(NamedTuple):
    """The result of a clause of a `match`: the clause in words, whether it held, the values that it saw, and its
    place.
    """

    clause: str
    held: bool
    saw: str
    place: str
    subject: str = ""
    """The path, if the clause is about one path; else empty."""
    needs: str = ""
    """The clause without its path, if the clause is about one path; else empty."""
    hint: str = ""
    """An explanation if the clause fails because two strings look the same but have different code points; else
    empty.
    """


def why(match: Match, payload: Any) -> list[Reason]:
    """Return the result of each clause for a payload. The payload meets the match if all clauses held."""
    return [_reason(node, payload) for node in match.clauses]


def _reason(node: Node, payload: Any) -> Reason:
    subject, needs = (paths.shown(node.path), node.needs) if isinstance(node, Clause) else ("", "")
    held = holding((node,))(payload)
    hint = HINT if not held and _holds_composed(node, payload) else ""
    return Reason(node.text, held, _saw(node, payload), node.place, subject, needs, hint)


def _holds_composed(node: Node, payload: Any) -> bool:
    """Return whether a clause would hold if the clause and the payload were in the same form of Unicode."""
    if node.text.isascii():
        return False
    try:
        return holding((_composed(node),))(composed(payload))
    except (RecursionError, SchemaProblem):  # the payload is nested too deeply, or a composed pattern can't be compiled
        return False


def _composed(node: Node) -> Node:
    if isinstance(node, Clause):
        tests = tuple(Test(test.operator, composed(test.wanted)) for test in node.tests)
        return Clause(composed(node.path), tests, node.place)
    if isinstance(node, AnyOf):
        return AnyOf(tuple(tuple(map(_composed, each)) for each in node.alternatives), node.place)
    return Not(tuple(map(_composed, node.of)), node.place)


def seen(path: paths.Path, payload: Any) -> str:
    """Return the values at a path of a payload, in words."""
    return _values(path, payload)


def _saw(node: Node, payload: Any) -> str:
    found = {path: _values(path, payload) for path in _paths_of(node)}
    if len(found) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{paths.shown(path)}: {seen}" for path, seen in found.items())


def _paths_of(node: Node) -> list[paths.Path]:
    """Return the paths that a clause tests, without duplicates."""
    if isinstance(node, Clause):
        return [node.path]
    inner = [each for alternative in node.alternatives for each in alternative] if isinstance(node, AnyOf) else node.of
    return list(dict.fromkeys(path for each in inner for path in _paths_of(each)))


def _values(path: paths.Path, payload: Any) -> str:
    seen = [shown(value) for value in islice(paths.values(payload, path), MOST + 1)]
    if len(seen) > MOST:
        seen[MOST] = "…"
    return ", ".join(seen) or NOTHING
