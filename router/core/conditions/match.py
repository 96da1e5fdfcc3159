"""The condition of a route on the payload, `match`, compiled; pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from router.core.conditions.clauses import Clause, Node
from router.core.conditions.index import is_simple, operands
from router.core.conditions.match_schema import document
from router.core.validation import SchemaProblem, compile_schema

if TYPE_CHECKING:
    from router.core.conditions.reading import At, Fault, Place


class BrokenMatchError(Exception):
    """A `match` that can't be compiled. `faults` are all its faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


class Match:
    """A compiled `match`: its clauses, and the function `holds` that evaluates them for a payload.

    `nulls` are the places of comparisons with null. `doubts` are string operands that look like conditions. The
    constructor raises `SchemaProblem` if the clauses can't be compiled.
    """

    def __init__(self, clauses: tuple[Node, ...], nulls: tuple[At, ...] = (), doubts: tuple[Fault, ...] = ()) -> None:
        self.clauses = clauses
        self.nulls = nulls
        self.doubts = doubts
        if not all(map(_surely_compiles, clauses)):
            self.holds  # noqa: B018  # compiles the clauses now, because their faults must be reported at load

    @cached_property
    def holds(self) -> Callable[[Any], bool]:
        """The function that returns whether a payload meets all clauses. It is compiled on first access.

        The index of routes evaluates most clauses itself, so many matches never need this function.
        """
        return holding(self.clauses)


def holding(clauses: tuple[Node, ...]) -> Callable[[Any], bool]:
    """Return a function that returns whether a payload meets all of these clauses.

    Raises `SchemaProblem` if the clauses can't be compiled.
    """
    from router.core.conditions.reading import nothing

    return compile_schema(document(clauses), uri="schema:///match", retrieve=nothing).is_valid


def _surely_compiles(node: Node) -> bool:
    """Return whether the schema of a clause certainly compiles: its keys and values are ASCII texts or small numbers."""
    if not isinstance(node, Clause) or not is_simple(node):
        return False
    values = chain(node.path, chain.from_iterable(map(operands, node.tests)))
    return all(value.isascii() for value in values if isinstance(value, str))


def compile_match(written: Any, place: Place = lambda _at: "") -> Match:
    """Compile a written `match`.

    `place` is a function that returns the place of a part of the `match` in the configuration. Raises
    `BrokenMatchError`.
    """
    from router.core.conditions.reading import Fault, Reader

    reader = Reader(place)
    try:
        clauses = reader.match(written)
        if reader.faults:
            raise BrokenMatchError(reader.faults)
        return Match(clauses, tuple(reader.nulls), tuple(reader.doubts))
    except RecursionError:
        raise BrokenMatchError([Fault((), "the conditions are nested too deeply")]) from None
    except SchemaProblem as problem:  # the patterns together are too large
        raise BrokenMatchError([Fault((), f"the conditions can't be compiled: {problem.message}")]) from None
