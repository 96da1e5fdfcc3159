"""The clauses of a `match`, each with its path in the payload, its tests and its place in the configuration; pure.

Clauses have no equality (`eq=False`), because in Python `1 == True`: a clause for `1` would equal one for `true`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.core.conditions import paths
from router.core.conditions.paths import EACH, Path

SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
"""The signs of the operators that compare, for messages."""

NUMBERS = ("gt", "gte", "lt", "lte")
"""The operators that take a number."""

_WORDS = {
    "in": "is one of",
    "prefix": "starts with",
    "suffix": "ends with",
    "contains": "contains",
    "regex": "matches the regex",
    "exists": "exists",
}

_LONGEST = 200
"""The largest number of characters of a clause's text."""


class Test(msgspec.Struct, frozen=True, eq=False):
    """A test of one value: an `operator` of section `match`, and its operand.

    `wanted` is a tuple for `in` and for the operators on text. One of its elements must match.
    """

    __test__ = False  # pytest would collect a class of this name

    operator: str
    wanted: Any

    @property
    def text(self) -> str:
        """The test in words, without its subject."""
        if self.operator == "exists":
            return "exists"
        wanted = self.wanted if isinstance(self.wanted, tuple) else (self.wanted,)
        operand = " or ".join(map(shown, wanted)) if self.operator != "in" else ", ".join(map(shown, wanted))
        return f"{SIGNS.get(self.operator) or _WORDS[self.operator]} {operand}"


class Clause(msgspec.Struct, frozen=True, eq=False):
    """The condition that one value at a path meets all tests. `place` is the clause's place: `file:line:column`."""

    path: Path
    tests: tuple[Test, ...]
    place: str = ""

    @property
    def plain(self) -> bool:
        """True if the path has no `*`. Then it leads to at most one value."""
        return EACH not in self.path

    @property
    def text(self) -> str:
        """The clause in words."""
        return _cut(f"{paths.shown(self.path)} {self.needs}")

    @property
    def needs(self) -> str:
        """The clause in words, without its path."""
        return _cut(" and ".join(test.text for test in self.tests))


class Not(msgspec.Struct, frozen=True, eq=False):
    """The condition that at least one of these clauses does not hold."""

    of: tuple[Node, ...]
    place: str = ""

    @property
    def text(self) -> str:
        """The clause in words."""
        if len(self.of) == 1:
            (inner,) = self.of
            if isinstance(inner, Clause) and [test.operator for test in inner.tests] == ["exists"]:
                return _cut(f"{paths.shown(inner.path)} does not exist")
        return _cut(f"not ({conjunction(self.of)})")


class AnyOf(msgspec.Struct, frozen=True, eq=False):
    """The condition that all clauses of at least one alternative hold."""

    alternatives: tuple[tuple[Node, ...], ...]
    place: str = ""

    @property
    def text(self) -> str:
        """The clause in words."""
        return _cut(" or ".join(f"({conjunction(each)})" for each in self.alternatives))


Node = Clause | Not | AnyOf
"""A clause of a `match`. A `match` holds if all of its clauses hold."""


def conjunction(nodes: tuple[Node, ...]) -> str:
    """Return several clauses in words."""
    return " and ".join(node.text for node in nodes)


def shown(value: Any, longest: int = 60) -> str:
    """Return a value of a payload or a test as JSON on one line, cut to `longest` characters."""
    try:
        text = msgspec.json.encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        try:
            text = repr(value)  # an integer that is too large for the encoder
        except (ValueError, RecursionError):
            text = "a value that is too long to be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
