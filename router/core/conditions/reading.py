"""The parser of a written `match`: it returns clauses and collects all faults; pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from router.core.conditions import paths
from router.core.conditions.clauses import NUMBERS, AnyOf, Clause, Node, Not, Test, shown
from router.core.conditions.match_slips import condition_in, joined_below, misplaced, of_fields, path_fault
from router.core.conditions.paths import Path, PathError
from router.core.validation import SchemaProblem, compile_schema, pattern_fault

At = tuple[str | int, ...]
"""The path to a part of a written `match`: keys and list positions, from the outside to the inside."""

Place = Callable[[At], str]
"""A function that returns the place of a part in the configuration: `file:line:column`."""

TEXTS = ("prefix", "suffix", "contains", "regex")
"""The operators that take a string or a list of strings. `contains` takes other scalars too."""

OPERATORS = ("eq", "ne", "in", *NUMBERS, *TEXTS, "exists", "not")

ANY = "any"

_MEANT = {
    "=": "eq",
    "==": "eq",
    "equals": "eq",
    "equal": "eq",
    "is": "eq",
    "!=": "ne",
    "<>": "ne",
    "neq": "ne",
    "not_eq": "ne",
    ">": "gt",
    "above": "gt",
    "greater": "gt",
    "greater_than": "gt",
    "min": "gte",
    ">=": "gte",
    "ge": "gte",
    "<": "lt",
    "below": "lt",
    "less": "lt",
    "less_than": "lt",
    "max": "lte",
    "<=": "lte",
    "le": "lte",
    "one_of": "in",
    "any_of": "in",
    "startswith": "prefix",
    "starts_with": "prefix",
    "endswith": "suffix",
    "ends_with": "suffix",
    "has": "contains",
    "includes": "contains",
    "like": "contains",
    "pattern": "regex",
    "matches": "regex",
    "present": "exists",
    "defined": "exists",
}
"""The operator for each word that other languages use, for the hint in the message."""

_MEANT_NOT = ("nin", "not_in", "notin", "none_of")


class Fault(msgspec.Struct, frozen=True):
    """A fault of a written `match`: its path, and a message that names the fault and what is allowed.

    `in_key` is True if the fault is in the key at the path, and False if it is in the value.
    """

    at: At
    message: str
    in_key: bool = False


class Reader:
    """The parser of one `match`.

    `faults` are the faults of the `match`, `nulls` the paths of comparisons with null. `doubts` are string operands
    that look like a condition, such as `"> 5"`.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.faults: list[Fault] = []
        self.nulls: list[At] = []
        self.doubts: list[Fault] = []

    def match(self, written: Any, at: At = ()) -> tuple[Node, ...]:
        """Return the clauses of a mapping of paths to conditions."""
        if not isinstance(written, Mapping):
            cure = "; write alternatives as `any: [{…}, {…}]`" if isinstance(written, list) else ""
            return self._wrong(at, f"must be a mapping of paths to conditions, not {_described(written)}{cure}")
        if not written:
            return self._wrong(at, "must not be empty: write a path and a condition for its value")
        found: list[Node] = []
        for name, condition in written.items():
            place = (*at, name)
            slip = misplaced(name, condition, OPERATORS)
            if slip is not None:
                self._wrong(place, slip, in_key=True)
            elif name == ANY:
                found += self._any(condition, place)
            else:
                found += self._clauses(name, condition, place)
        return tuple(found)

    def _wrong(self, at: At, message: str, *, in_key: bool = False) -> tuple[Node, ...]:
        self.faults.append(Fault(at, message, in_key))
        return ()

    def _any(self, written: Any, at: At) -> tuple[Node, ...]:
        """Return the clause of `any: [{…}, {…}]`."""
        if not isinstance(written, list):
            quoted = "; if a field has this name, write it in double quotes: '\"any\"'"
            return self._wrong(
                at, f"the value of `any` must be a list of mappings, [{{…}}, {{…}}], not {_described(written)}{quoted}"
            )
        if not written:
            return self._wrong(at, "`any` must not be empty: a list without alternatives never matches")
        alternatives = [self.match(each, (*at, number)) for number, each in enumerate(written)]
        return (AnyOf(tuple(alternatives), self._place(at)),)

    def _clauses(self, name: str, condition: Any, at: At) -> tuple[Node, ...]:
        """Return the clauses of a path, one clause for each operator.

        A path with a `*` has a single clause for all operators, because all tests must hold for the same element of the
        list.
        """
        try:
            path = paths.parse(_sound(name))
        except PathError as error:
            return self._wrong(at, f"{shown(name)} is not a path: {path_fault(name, error)}", in_key=True)
        clauses = self._condition(path, condition, at)
        found: list[Node] = []
        for clause in clauses:
            if isinstance(clause, Clause) and clause.plain and isinstance(condition, Mapping):
                found += [Clause(path, (test,), self._place((*at, test.operator))) for test in clause.tests]
            else:
                found.append(clause)
        return tuple(found)

    def _condition(self, path: Path, condition: Any, at: At) -> tuple[Node, ...]:
        """Return the clauses of a condition on the values at a path."""
        if isinstance(condition, list):
            wanted = self._scalars(condition, at, "a list of values")
            return (Clause(path, (Test("in", wanted),), self._place(at)),) if wanted else ()
        if not isinstance(condition, Mapping):
            self._doubt(condition, at)
            return (Clause(path, (Test("eq", self._scalar(condition, at)),), self._place(at)),)
        if not condition:
            return self._wrong(at, f"must not be empty: write at least one of the operators {', '.join(OPERATORS)}")
        tests: list[Test] = []
        others: list[Node] = []
        for operator, wanted in condition.items():
            place = (*at, operator)
            if operator == "not":
                inner = self._condition(path, wanted, place)
                if inner:
                    others.append(Not(inner, self._place(place)))
            elif operator not in OPERATORS:
                self._wrong(place, joined_below(path, operator, wanted) or _unknown(operator), in_key=True)
            elif operator == "exists" and wanted is False:
                others.append(Not((Clause(path, (Test("exists", True),)),), self._place(place)))
            else:
                test = self._test(path, operator, wanted, place)
                if test is not None:
                    tests.append(test)
        own: list[Node] = [Clause(path, tuple(tests), self._place(at))] if tests else []
        return (*own, *others)

    def _test(self, path: Path, operator: str, wanted: Any, at: At) -> Test | None:
        """Return the test of an operator. If the operand is invalid, add a fault and return None."""
        if operator == "exists":
            if wanted is True:
                return Test(operator, True)
            self._wrong(at, f"the value of `exists` must be true or false, not {_described(wanted)}")
        elif operator in NUMBERS:
            if type(wanted) is int or (isinstance(wanted, float) and math.isfinite(wanted)):
                return Test(operator, wanted)
            cure = "; remove the quotes" if isinstance(wanted, str) and _is_number(wanted) else ""
            self._wrong(at, f"the value of `{operator}` must be a number, not {_described(wanted)}{cure}")
        elif operator == "in":
            if isinstance(wanted, list):
                many = self._scalars(wanted, at, "`in`")
                return Test(operator, many) if many else None
            self._wrong(at, f"the value of `in` must be a list, not {_described(wanted)}; for a single value, use `eq`")
        elif operator in {"eq", "ne"}:
            if not isinstance(wanted, list | Mapping):
                return Test(operator, self._scalar(wanted, at))
            cure = "write `in: […]`" if operator == "eq" else "write `not: {in: […]}`"
            several = f"; for several values {cure}" if isinstance(wanted, list) else ""
            if isinstance(wanted, Mapping):
                several = of_fields(path, operator, wanted, OPERATORS)
            self._wrong(at, f"the value of `{operator}` must be a single value, not {_described(wanted)}{several}")
        else:
            return self._of_text(path, operator, wanted, at)
        return None

    def _of_text(self, path: Path, operator: str, wanted: Any, at: At) -> Test | None:
        """Return the test of `prefix`, `suffix`, `contains` or `regex`.

        If the operand is invalid, add a fault and return None.
        """
        before = len(self.faults)
        if isinstance(wanted, list):
            many = self._scalars(wanted, at, f"`{operator}`")
            places = [(*at, number) for number in range(len(many))]
        elif isinstance(wanted, Mapping):
            fields = of_fields(path, operator, wanted, OPERATORS)
            self._wrong(at, f"the value of `{operator}` must be a string or a list of strings, not a mapping{fields}")
            return None
        else:
            many, places = (self._scalar(wanted, at),), [at]
        for one, place in zip(many, places, strict=True):
            if operator == "contains":
                continue
            if not isinstance(one, str):
                self._wrong(place, f"the value of `{operator}` must be a string, not {_described(one)}")
            elif not one:
                self._wrong(
                    place,
                    f"the value of `{operator}` must not be empty, because it would match every string; write `exists: true`",
                )
            elif operator == "regex":
                self._regex(one, place)
        return Test(operator, many) if many and len(self.faults) == before else None

    def _doubt(self, value: Any, at: At) -> None:
        """Add a doubt if a string operand looks like a condition.

        A string below the operator `eq` is not checked, because `eq` shows that the string is intended.
        """
        meant = condition_in(value) if isinstance(value, str) else None
        if meant is not None:
            message = (
                f"{shown(value)} is read as a string, and only an equal string matches it (did you mean `{meant}`?)"
            )
            self.doubts.append(Fault(at, f"{message}; to compare with the string, write `{{eq: {shown(value)}}}`"))

    def _regex(self, pattern: str, at: At) -> None:
        try:
            compile_schema({"pattern": pattern}, uri="schema:///match", retrieve=nothing)
        except SchemaProblem:
            self._wrong(at, f"{shown(pattern)} {pattern_fault(pattern)}")

    def _scalars(self, written: list[Any], at: At, what: str) -> tuple[Any, ...]:
        """Return the valid values of a list. Add a fault for each invalid value."""
        if not written:
            self._wrong(at, f"{what} must not be empty, because no value would match")
        found: list[Any] = []
        for number, one in enumerate(written):
            if isinstance(one, list | Mapping):
                self._wrong(
                    (*at, number),
                    f"an item of this list must be a string, a number, true, false or null, not {_described(one)}",
                )
            else:
                found.append(self._scalar(one, (*at, number)))
        return tuple(found)

    def _scalar(self, value: Any, at: At) -> Any:
        """Return the value with which fields are compared. Add a fault for an operand that can't occur in JSON."""
        if value is None:
            self.nulls.append(at)
        elif isinstance(value, float) and not math.isfinite(value):
            self._wrong(at, "this value can't occur in a payload, because JSON has neither infinity nor NaN")
        elif isinstance(value, str):
            try:
                return _sound(value)
            except PathError as error:
                self._wrong(at, str(error))
        return value


def nothing(_uri: str) -> Any:
    """Refuse to retrieve a document, because conditions have no references."""
    raise LookupError("conditions have no references")


def _sound(text: str) -> str:
    """Return a string as a plain `str`.

    Raises `PathError` for half of a surrogate pair, which no JSON text can contain.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PathError("this string contains half of a surrogate pair, which is not a character") from None
    return str(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _described(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the string {shown(value)}"
    if isinstance(value, int | float):
        return f"the number {value:g}" if isinstance(value, float) else f"the number {shown(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


def _unknown(operator: str) -> str:
    """Return the message for an unknown operator."""
    word = operator.lower()
    if word in _MEANT_NOT:
        hint = " (did you mean `not: {in: […]}`?)"
    elif word == ANY:
        hint = " (write `any` in the place of a path, not below a path)"
    else:
        near = difflib.get_close_matches(word, OPERATORS, n=1, cutoff=0.6)
        meant = _MEANT.get(word) or (near[0] if near else "")
        hint = f" (did you mean `{meant}`?)" if meant else "; to name a field of an object, write a dot: `order.total`"
    return f"unknown operator {shown(operator)}, allowed: {', '.join(OPERATORS)}{hint}"
