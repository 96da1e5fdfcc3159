"""Clauses as values: what a `match` asks, in which place of the payload, written where; pure.

They are not compared with each other: Python takes a clause that wants `1` for equal to one that wants `true`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.core.conditions import paths
from router.core.conditions.paths import EACH, Path

SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
"""How the operators that compare are shown."""

_WORDS = {
    "in": "is one of",
    "prefix": "starts with",
    "suffix": "ends with",
    "contains": "contains",
    "regex": "fits the regex",
    "exists": "exists",
}

_LONGEST = 200
"""Characters of a clause's text that is shown."""


class Test(msgspec.Struct, frozen=True, eq=False):
    """A question about one value: `operator` of section `match`, and what is wanted.

    `wanted` is a tuple for `in`, and for the operators on text, which take any of several.
    """

    __test__ = False  # pytest takes a class of this name for one of its own

    operator: str
    wanted: Any

    @property
    def text(self) -> str:
        """The test in words, without its subject."""
        if self.operator == "exists":
            return "exists"
        wanted = self.wanted if isinstance(self.wanted, tuple) else (self.wanted,)
        told = " or ".join(map(shown, wanted)) if self.operator != "in" else ", ".join(map(shown, wanted))
        return f"{SIGNS.get(self.operator) or _WORDS[self.operator]} {told}"


class Clause(msgspec.Struct, frozen=True, eq=False):
    """One value at a path must meet all of some tests. `place` is where that is written: `file:line:column`."""

    path: Path
    tests: tuple[Test, ...]
    place: str = ""

    @property
    def plain(self) -> bool:
        """True if the path leads to one value at most."""
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
    """Not all of these hold."""

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
    """All clauses of at least one of the alternatives hold."""

    alternatives: tuple[tuple[Node, ...], ...]
    place: str = ""

    @property
    def text(self) -> str:
        """The clause in words."""
        return _cut(" or ".join(f"({conjunction(each)})" for each in self.alternatives))


Node = Clause | Not | AnyOf
"""What a `match` is made of: all of its nodes have to hold."""


def conjunction(nodes: tuple[Node, ...]) -> str:
    """Return several clauses in words."""
    return " and ".join(node.text for node in nodes)


def shown(value: Any, longest: int = 60) -> str:
    """Return a value of the payload, or one that is wanted, as JSON on one line, cut to some characters."""
    try:
        text = msgspec.json.encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        try:
            text = repr(value)  # an integer that the encoder does not take
        except (ValueError, RecursionError):
            text = "a value that is too long to be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
