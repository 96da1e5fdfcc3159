"""No test sleeps and hopes, and none judges by how long something took on the machine that it happens to run on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SLEEPERS = {
    "support/waiting.py": "everybody waits here",
    "support/redis.py": "looks whether a server that was started answers",
    "testing/faulty_": "these plugins block the loop or never answer, on purpose",
    "faults": "a fault takes its time by nature, and full runs measure; `docs/reliability.md`",
}
CLOCKS = {"monotonic", "time", "perf_counter"}


def faults_of(text: str) -> Iterator[tuple[int, str]]:
    """(line, what it does) of each sleep, and of each assertion that something took no longer than so long."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}:
            if ast.unparse(node.args[0]) != "0":
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            sides = [node.test.left, *node.test.comparators]
            pairs = zip(sides, node.test.ops, sides[1:], strict=False)
            if any(_judges(one, operator, other) for one, operator, other in pairs):
                yield node.lineno, ast.unparse(node)


def _judges(one: ast.expr, operator: ast.cmpop, other: ast.expr) -> bool:
    """Whether time that went by must be less than something, or something less than a part of that time."""
    less, more = (other, one) if isinstance(operator, ast.Gt | ast.GtE) else (one, other)
    part = isinstance(more, ast.BinOp) and isinstance(more.op, ast.Sub) and _elapsed(more.left)
    return isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and (_elapsed(less) or part)


def _elapsed(expression: ast.expr) -> bool:
    if not isinstance(expression, ast.BinOp):
        return False
    calls = [node.func for node in ast.walk(expression) if isinstance(node, ast.Call) and not node.args]
    return any(isinstance(called, ast.Attribute) and called.attr in CLOCKS for called in calls)


def test_no_test_sleeps_and_hopes_or_judges_by_a_clock():
    found = [
        f"{file}:{line}: {what}"
        for file in sorted(TESTS.rglob("*.py"))
        if not str(file.relative_to(TESTS)).startswith(tuple(SLEEPERS))
        for line, what in faults_of(file.read_text())
    ]
    assert not found, "\n".join(["wait for a count or an event (tests/support/waiting.py):", *found])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("await asyncio.sleep(0.5)", True),
        ("time.sleep(pause)", True),
        ("await asyncio.sleep(0)", False),
        ("assert time.monotonic() - began < 2", True),
        ("assert 2 > loop.time() - began", True),
        ("assert 0 < gap < time.monotonic() - began - 4 * 0.1", True),
        ("assert 0 < gap <= time.monotonic() - began", False),
        ("assert time.monotonic() - began >= 0.3", False),
        ("assert time.process_time() - began < 2", False),
    ],
)
def test_what_counts_as_such(text, fault):
    assert bool(list(faults_of(f"async def test(): {text}"))) is fault
