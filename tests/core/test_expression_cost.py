"""An expression takes time in proportion to what an event brings, up to values of a megabyte."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from time import process_time

import pytest

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import Expression
from router.errors import TemplateError
from router.events import Event
from tests.support.engine import make_event
from tests.support.rendering import subject

LARGE = 1024**2
SMALL = LARGE // 16
LEAST = 0.002
"""Seconds of CPU below which the small value tells nothing."""

STEEPEST = 64
"""Times that sixteen times the size may cost: sixteen is linear, 256 quadratic."""


def event(**payload: object) -> Event:
    found = make_event(json.dumps(payload).encode())
    assert found.payload  # is decoded once, by the first who asks
    return found


def items(value: object) -> Callable[[int], Event]:
    """Two equal lists of one value, as many as fit into half the bytes each."""

    def make(size: int) -> Event:
        each = [value] * (size // 2 // (len(json.dumps(value)) + 2))
        return event(x=each, y=[*each], z=[*each, 1])

    return make


def text(size: int) -> Event:
    return event(x="a" * size, y="a" * size, z="a" * (size // 2) + "b")


def keys(size: int) -> Event:
    table = {f"key {number}": number for number in range(size // 32)}
    return event(x=table, y=dict(table), z={**table, "more": True})


def rows(size: int) -> Event:
    return event(x=[["ab", {"a": [1, 2]}]] * (size // 64), y=[["ab", {"a": [1, 2]}]] * (size // 64), z=["ab", 1])


def strangers(size: int) -> Event:
    words = [f"{number:x}" for number in range(size // 16)]
    return event(x=words, y=[*words], z=[f"-{word}" for word in words])


def searched(size: int) -> Event:
    return event(x=["b"] * (size // 16), y=["c"], z="a" * (size // 2))


def numbers(size: int) -> Event:
    whole = int("9" * 4000)
    return event(x=[whole] * (size // 8000), y=[whole] * (size // 8000), z=[whole + 1])


PAYLOADS = {
    "zeros": items(0),
    "truths": items(True),
    "nulls": items(None),
    "words": items("ab"),
    "empty lists": items([]),
    "text": text,
    "keys": keys,
    "rows": rows,
    "strangers": strangers,
    "words and a text": searched,
    "large numbers": numbers,
}
EXPRESSIONS = [
    "payload.x == payload.y", "payload.x != payload.z", "payload.x < payload.y", "payload.x >= payload.z",
    "payload.x < payload.y <= payload.z == payload.x", "payload.x in payload.y", "payload.z not in payload.x",
    "payload.x in [payload.z, payload.y]", "payload.x[0] in payload.y", "1 in payload.x", "'ab' in payload.x",
    "payload.z[-1] in payload.x", "null in payload.x", "payload.x | select('eq', 1)", "payload.x | select('in', payload.z)",
    "payload.x | reject('in', payload.y) | length == 0", "payload.x | select('==', payload.z)",
    "payload.x | map('length') | sum", "payload.x | unique", "payload.x | first == payload.y | last",
    "payload.x ~ payload.y", "payload.x + payload.y == payload.z", "payload.x[0] * payload.x[-1] > payload.y[0]",
    "payload.x", "not payload.x", "payload.x | length > 5 and payload.y", "payload.a.b.c | default(payload.x)",
    "on(payload.x, true)", "on(payload.none, payload.x)", "cidr(payload.x, '10.0.0.0/8')", "cidr('10.0.0.1', payload.x)",
    "event.raw == event.raw", "event | json | length", "(payload.z[:30000] ~ 'b') in payload.x",
]  # fmt: skip


def cost(expression: Expression, one: Event) -> float:
    """The CPU time in seconds of asking for the value and for the key."""
    started = process_time()
    for evaluate in (expression.holds, expression.key):
        with suppress(TemplateError):
            evaluate(one, 0.0)
    return process_time() - started


@pytest.mark.parametrize(
    "filter_", ["select('eq', 1)", "reject('eq', 0)", "selectattr('a', 'defined')", "rejectattr('b', 'undefined')"]
)
def test_each_element_that_a_filter_judges_is_a_round(filter_: str) -> None:
    """What they let through, which is nothing here, was counted before."""
    few, many = [0] * 99_000, [0] * 101_000
    assert subject(f"{{{{ payload.x | {filter_} | list | length }}}}", {"x": few}) == "0"
    assert Expression(f"payload.x | {filter_}", TemplateEnvironment()).value(event(x=few), 0.0) == []
    with pytest.raises(TemplateError, match="100,000 rounds"):
        subject(f"{{{{ payload.x | {filter_} | list | length }}}}", {"x": many})
    with pytest.raises(TemplateError, match="100,000 rounds"):
        Expression(f"payload.x | {filter_}", TemplateEnvironment()).holds(event(x=many), 0.0)


def test_a_search_again_and_again_ends() -> None:
    words = [f"{number:x}" for number in range(50_000)]
    for expression in ("payload.x | select('in', payload.y)", "payload.x | reject('in', payload.text)"):
        with pytest.raises(TemplateError, match="100,000 rounds"):
            Expression(expression, TemplateEnvironment()).holds(
                event(x=words, y=[f"-{word}" for word in words], text="-" * LARGE), 0.0
            )


@cache
def made(name: str, size: int) -> Event:
    return PAYLOADS[name](size)


@pytest.mark.drawn(3)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_expression_is_slow_for_large_values(expression: str) -> None:
    asked = Expression(expression, TemplateEnvironment())
    steep = {}
    for name in PAYLOADS:
        small, large = made(name, SMALL), made(name, LARGE)
        took = cost(asked, large)
        if took <= STEEPEST * LEAST:
            continue  # whatever the small value costs
        base = max(min(cost(asked, small) for _ in range(3)), LEAST)
        if took > STEEPEST * base and (took := min(cost(asked, large) for _ in range(3))) > STEEPEST * base:
            steep[name] = took / base
    assert not steep
