"""Comparisons of expressions agree with a small interpreter of their rules, for values and expressions of every shape."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import Expression
from tests.support.engine import make_event

ENVIRONMENT = TemplateEnvironment()

# The interpreter: an expression is a tree of these, and every value is judged by its kind.


class Name(NamedTuple):
    path: tuple[str, ...]


class Literal(NamedTuple):
    value: Any


class Chain(NamedTuple):
    """`a < b == c`: operands, and the operators between them."""

    operands: tuple[Any, ...]
    operators: tuple[str, ...]


class Logic(NamedTuple):
    operator: str
    operands: tuple[Any, ...]


MISSING = object()


def kind(value: Any) -> str:
    if value is MISSING:
        return "missing"
    names = {type(None): "null", bool: "truth", int: "number", float: "number", str: "text", list: "list", dict: "map"}
    return names[type(value)]


def same(left: Any, right: Any) -> bool:
    if kind(left) != kind(right) or left is MISSING:
        return False
    if kind(left) == "number":
        return Fraction(left) == Fraction(right)
    if kind(left) == "list":
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    if kind(left) == "map":
        return set(left) == set(right) and all(same(value, right[key]) for key, value in left.items())
    return left == right


def sign(left: Any, right: Any) -> int | None:
    """-1, 0 or 1; None for values that have no order."""
    if kind(left) != kind(right) or kind(left) not in {"number", "text", "list"}:
        return None
    if kind(left) == "list":
        for one, other in zip(left, right, strict=False):
            if not same(one, other):
                return sign(one, other)
        return sign(len(left), len(right))
    if kind(left) == "number":
        left, right = Fraction(left), Fraction(right)
    return (left > right) - (left < right)


def inside(left: Any, right: Any) -> bool:
    if kind(right) == "list":
        return any(same(left, each) for each in right)
    return kind(right) in {"text", "map"} and kind(left) == "text" and left in right


def compare(operator: str, left: Any, right: Any) -> bool:
    match operator:
        case "==":
            return same(left, right)
        case "!=":
            return not same(left, right)
        case "in":
            return inside(left, right)
        case "not in":
            return not inside(left, right)
    order = sign(left, right)
    signs = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (1, 0)}
    return order in signs[operator]


def evaluate(tree: Any, payload: Any) -> Any:
    match tree:
        case Literal(value):
            return value
        case Name(path):
            for name in path:
                payload = payload.get(name, MISSING) if isinstance(payload, dict) else MISSING
            return payload
        case Chain(operands, operators):
            values = [evaluate(operand, payload) for operand in operands]
            return all(map(compare, operators, values, values[1:]))
        case Logic("not", (operand,)):
            return not truthy(evaluate(operand, payload))
        case Logic(operator, (left, right)):
            value = evaluate(left, payload)
            return value if truthy(value) == (operator == "or") else evaluate(right, payload)
    raise AssertionError(tree)


def truthy(value: Any) -> bool:
    return value is not MISSING and bool(value)


def written(tree: Any) -> str:
    match tree:
        case Literal(value):
            return json.dumps(value)
        case Name(path):
            return ".".join(("payload", *path))
        case Chain(operands, operators):
            rest = "".join(f" {sign} {written(each)}" for sign, each in zip(operators, operands[1:], strict=True))
            return f"({written(operands[0])}{rest})"
        case Logic("not", (operand,)):
            return f"(not {written(operand)})"
        case Logic(operator, (left, right)):
            return f"({written(left)} {operator} {written(right)})"
    raise AssertionError(tree)


# The values and the expressions.

BIG = 10**40
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 5, BIG, BIG + 1, 2**53, 2**53 + 1, 0.0, 1.0, 5.0, 5.5, 2.0**53, 1e300]),
    st.sampled_from(["", "0", "1", "5", "a", "b", "ab", "true"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=6,
)
PAYLOADS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)
NAMES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map(lambda path: Name(tuple(path)))
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    chains = st.integers(1, 3).flatmap(
        lambda many: st.builds(
            Chain,
            st.tuples(*[inner] * (many + 1)),
            st.tuples(*[st.sampled_from(OPERATORS)] * many),
        )
    )
    both = st.builds(Logic, st.sampled_from(["and", "or"]), st.tuples(inner, inner))
    return st.one_of(chains, both, st.builds(Logic, st.just("not"), st.tuples(inner)))


TREES = st.recursive(st.one_of(NAMES, VALUES.map(Literal)), larger, max_leaves=6)


def asked(tree: Any, payload: Any) -> tuple[Any, bool]:
    """The value that our own expression has, and whether it holds."""
    expression = Expression(written(tree), ENVIRONMENT)
    event = make_event(json.dumps(payload).encode())
    return expression.value(event, 0.0), expression.holds(event, 0.0)


def agree(tree: Any, payload: Any) -> None:
    expected = evaluate(tree, payload)
    value, holds = asked(tree, payload)
    assert holds == truthy(expected)
    assert repr(value) == repr(None if expected is MISSING else expected)


@given(TREES, PAYLOADS)
@example(Chain((Name(("a",)), Literal(None)), ("!=",)), {})
@example(Chain((Literal([True]), Name(("a",))), ("==",)), {"a": [1]})
@example(Chain((Literal({"a": 1}), Name(("a",))), ("==",)), {"a": {"a": 1.0}})
def test_an_expression_is_what_its_rules_say(tree: Any, payload: Any) -> None:
    agree(tree, payload)


@given(st.sampled_from(OPERATORS), VALUES, VALUES)
def test_two_values_compare_by_the_rules(operator: str, left: Any, right: Any) -> None:
    agree(Chain((Name(("a",)), Name(("b",))), (operator,)), {"a": left, "b": right})
    agree(Chain((Literal(left), Name(("b",))), (operator,)), {"b": right})


@given(VALUES, VALUES)
def test_unequal_is_the_opposite_of_equal(left: Any, right: Any) -> None:
    payload = {"a": left, "b": right}
    for paths in ((("a",), ("b",)), (("a",), ("none",)), (("none",), ("b",)), (("none",), ("none",))):
        names = tuple(map(Name, paths))
        assert asked(Chain(names, ("==",)), payload)[0] is not asked(Chain(names, ("!=",)), payload)[0]
        assert asked(Chain(names, ("in",)), payload)[0] is not asked(Chain(names, ("not in",)), payload)[0]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("true == 1", False),
        ("true != 1", True),
        ("false == 0", False),
        ("true in [1]", False),
        ("1 in [true]", False),
        ("1 in [true, 1.0]", True),
        ("true < 2", False),
        ("5 == 5.0", True),
        ("5 in [5.0]", True),
        ("12345678901234567890123 == 12345678901234567890124", False),
        ("12345678901234567890123 < 12345678901234567890124", True),
        ("9007199254740993 == 9007199254740992.0", False),
        ("'5' == 5", False),
        ("'5' < 6", False),
        ("'5' >= 6", False),
        ("'b' > 'a'", True),
        ("null == null", True),
        ("null < 1", False),
        ("[1, 2] < [1, 3]", True),
        ("[true] == [1]", False),
        ("[true] < [2]", False),
        ("{'a': true} == {'a': 1}", False),
        ("[[1], 2] == ([1.0], 2)", True),
        ("{} == []", False),
        ("3 in range(5)", True),
        ("3.0 in range(5)", True),
        ("true in range(5)", False),
        ("1 < 2 < 3", True),
        ("1 < 2 > 3", False),
        ("3 > 2 == 2 in [2]", True),
        ("not 1 == 2", True),
        ("5 in 5", False),
        ("5 not in 5", True),
    ],
)
def test_a_comparison_gives(source: str, value: bool) -> None:
    assert Expression(source, ENVIRONMENT).value(make_event(), 0.0) is value


def test_deep_values_are_compared() -> None:
    deep = b'{"a": ' + b"[" * 900 + b"]" * 900 + b', "b": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert Expression("payload.a == payload.b", ENVIRONMENT).value(make_event(deep), 0.0) is True
