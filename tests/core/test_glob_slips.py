"""Globs that were meant as something else."""

import re

import pytest

from router.core.matching import glob
from router.core.wiring.glob_slips import broken_class, regular_expression


@pytest.mark.parametrize(
    ("written", "meant", "channel"),
    [
        (r"orders\..*", "orders.*", "orders.new"),
        (r"^orders\..*$", "orders.*", "orders.new"),
        ("^orders", "orders*", "orders.new"),
        ("orders$", "*orders", "my-orders"),
        ("^orders$", "orders", "orders"),
        ("orders.+", "orders?*", "orders.new"),
        (".*orders", "*orders", "my-orders"),
        (r"order\d", "order[0-9]", "order7"),
        (r"order-\d+", "order-[0-9]*", "order-71"),
    ],
)
def test_a_regular_expression_is_told_with_the_glob_that_matches_the_same(written, meant, channel):
    assert regular_expression(written).endswith(f"; write `{meant}`")
    assert re.search(written, channel)
    assert glob(meant)(channel.encode())


def test_alternatives_become_a_glob_each():
    told = regular_expression("^orders.(new|paid)$")
    assert told.endswith("; write `orders.new` and `orders.paid` as separate entries")
    assert regular_expression("(a|b)(c|d)(e|f)(g|h)").endswith("* matches any text")


@pytest.mark.parametrize("written", ["(orders|ne+ws)", "(a|b)*", "[a-z]+", r"\w+", "^(a)$", "^[ab].*", "[0-9]{2}"])
def test_a_regular_expression_that_is_no_glob_is_told_too(written):
    assert regular_expression(written).endswith("; a dot matches only a dot, and * matches any text")


@pytest.mark.parametrize(
    "written",
    [
        "orders",
        "orders.*",
        "*.orders",
        "*",
        "or?er.*",
        "[^a]*",
        "a\\*b",
        "a\\[b",
        "__keyspace@0__:user:*",
        "C++",
        "a(b)",
        "$SYS",
        "{user1}:*",
        "user+tag",
        "a|b",
        "*@example.org",
        "orders..*",
        "a\\\\b",
        "#general",
    ],
)
def test_a_glob_is_left_alone(written):
    assert regular_expression(written) is None
    assert broken_class(written) is None


@pytest.mark.parametrize("written", ["[", "a[b", "[^", "a[b\\]", "[a]b[c", "\\\\[a", "[a-"])
def test_a_class_that_is_not_closed(written):
    assert "not closed" in broken_class(written)


@pytest.mark.parametrize("written", ["[a]", "[a\\]]", "\\[", "a\\", "[^a]", "[^]", "[[]"])
def test_a_class_that_is_closed(written):
    assert broken_class(written) is None


def test_a_class_without_members():
    assert "matches nothing" in broken_class("a[]")
    assert not glob("a[]")(b"a")
