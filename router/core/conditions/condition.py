"""The condition of a route on an event: `match` on its payload, then `when`; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from router.core.conditions.clauses import Node
from router.core.conditions.index import is_simple
from router.core.conditions.match import Match, holding
from router.core.conditions.paths import Path
from router.core.rendering import TemplateEnvironment
from router.core.rendering.faults import BrokenExpressionError, Fault
from router.errors import TemplateError
from router.events import Event

KNOWN = frozenset({"event", "payload", "route"})
"""The names that `when` may use."""


class When:
    """A compiled `when`. The constructor raises `BrokenExpressionError`."""

    def __init__(self, source: str, environment: TemplateEnvironment) -> None:
        from router.core.rendering.expressions import Expression

        self._source = source
        self._environment = environment
        self._expression = Expression(source, environment, "when")
        others = self._expression.names - KNOWN
        if others:
            cure = "to use the sink or a lookup, write this condition in the `only_if` of the sink"
            faults = [
                Fault(f"`when` can use only event, payload and route, not `{name}`: {cure}", None) for name in others
            ]
            raise BrokenExpressionError(faults)

    def holds(self, event: Event, now: float) -> bool:
        """Return whether the expression is true for an event.

        Raises `TemplateError` if the expression can't be evaluated.
        """
        return self._expression.holds(event, now)

    @property
    def shown(self) -> str:
        """The text of the expression on one line, for messages."""
        return self._expression.shown

    def paths(self) -> list[Path]:
        """Return the paths of the payload that the expression reads. The command `explain` shows their values."""
        from router.core.rendering.expressions import parse_expression
        from router.core.rendering.syntax.reads import paths_read

        read = paths_read(parse_expression(self._source, self._environment))
        return [path for path in map(_path, read) if path]


def _path(read: tuple[object, ...]) -> Path:
    """Return `read`, a path that a template reads, as a path of the section `match`.

    Return an empty path if a `match` can't express the path.
    """
    whole = all(type(part) is str or (type(part) is int and part >= 0) for part in read)
    return cast("Path", read) if whole else ()


class Condition:
    """The conditions of one route: `match` and `when`. Both conditions must hold; `match` is evaluated first."""

    def __init__(self, match: Match | None = None, when: When | None = None) -> None:
        self.match = match
        self.when = when

    @property
    def clauses(self) -> tuple[Node, ...]:
        """The clauses of `match`; empty if the route has no `match`."""
        return self.match.clauses if self.match is not None else ()

    def rest(self) -> Callable[[Any], bool] | None:
        """Return a function that evaluates the clauses beyond the index; None if the index evaluates all clauses."""
        left = tuple(node for node in self.clauses if not is_simple(node))
        if self.match is None or not left:
            return None
        return self.match.holds if len(left) == len(self.clauses) else holding(left)


class Failure(msgspec.Struct, frozen=True):
    """The failure to evaluate the `when` of a route for an event."""

    route: str
    error: TemplateError


class Subject:
    """The event for which conditions are evaluated, and the time of the evaluation.

    `failures` are the failed evaluations of `when`.
    """

    __slots__ = ("_now", "event", "failures")

    def __init__(self, event: Event, now: float) -> None:
        self.event = event
        self._now = now
        self.failures: list[Failure] = []

    def meets(self, when: When, route: str) -> bool:
        """Return whether the `when` of a route holds.

        If the `when` can't be evaluated, add a failure and return False.
        """
        try:
            return when.holds(msgspec.structs.replace(self.event, route=route, sink=""), self._now)
        except TemplateError as error:
            self.failures.append(Failure(route, error))
            return False
