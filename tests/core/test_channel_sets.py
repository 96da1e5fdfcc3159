"""Whether some channel can be in several sets of globs at once, held against all short channels there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core import matching
from router.core.wiring import channel_sets
from router.core.wiring.channel_sets import EVERY, apart, may_have, meet

SIGNS = "ab-"
LONGEST = 6  # two globs of three parts that have a channel in common have one that is no longer
CHANNELS = [
    "".join(signs).encode() for length in range(LONGEST + 1) for signs in itertools.product(SIGNS, repeat=length)
]
PARTS = st.sampled_from(["a", "b", "*", "?", "[ab]", "[^a]", "[^ab]", "[]", "\\a", "\\-"])
GLOBS = st.lists(PARTS, min_size=1, max_size=3).map("".join)
SETS = st.lists(GLOBS, min_size=1, max_size=3).map(tuple)


def matching_all(*globs):
    """Return the short channels that every glob matches."""
    matchers = [matching.any_of(each) for each in globs]
    return [channel for channel in CHANNELS if all(match(channel) for match in matchers)]


@settings(max_examples=150, deadline=None)
@given(GLOBS, GLOBS)
def test_two_globs_meet_where_a_channel_matches_both(first, second):
    assert meet((first,), (second,)) == bool(matching_all([first], [second]))


@settings(max_examples=150, deadline=None)
@given(SETS, SETS)
def test_sets_that_are_apart_have_no_channel_in_common(first, second):
    if apart(first, second):
        assert not matching_all(first, second)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("orders.*.a", "orders.*.b", True),
        ("orders.*", "news.*", True),
        ("orders.1", "orders.2", True),
        ("orders.[12]", "orders.3", False),  # a set has no literal end: `meet` finds them apart
        ("orders.*", "*.new", False),
        ("orders.*a\\*", "orders.*b", True),
    ],
)
def test_literal_beginnings_and_ends_keep_globs_apart(first, second, expected):
    assert apart((first,), (second,)) is expected


@settings(max_examples=150, deadline=None)
@given(SETS, SETS, SETS)
def test_no_channel_is_missed_where_there_is_said_to_be_none(first, second, without):
    excluded = matching.any_of(without)
    found = [channel for channel in matching_all(first, second) if not excluded(channel)]
    if found:
        assert may_have((first, second), without)


@pytest.mark.parametrize(
    ("sets", "without", "expected"),
    [
        ((("orders.*",), ("order.*",)), (), False),
        ((("orders.*",), ("*.new",)), (), True),
        ((("orders.*",), ("*.new",)), ("orders.*.new",), True),  # orders.new
        ((("orders.*",), ("*.new",)), ("orders.*new",), False),
        ((("orders.*",),), EVERY, False),
        ((("orders.*",),), ("o*",), False),
        ((("orders.*",),), ("orders.?*",), True),  # `orders.` itself
        ((("orders.*",),), ("orders.", "orders.?*"), False),
        ((("orders.*", "news"),), ("orders.*",), True),
        ((("orders.*", "news"),), ("orders.*", "n*"), False),
        ((("orders.[ab]",),), ("orders.a",), True),
        ((("orders.[ab]",),), ("orders.a", "orders.b"), False),
        ((("?",), ("ä",)), (), False),  # two bytes
        ((("??",), ("ä",)), (), True),
        ((("[^a]",), ("a",)), (), False),
        ((("a\\*",), ("a*",)), ("a?",), False),
        (((), ("*",)), (), False),
        ((("*",),), (), True),
    ],
)
def test_whether_there_is_a_channel(sets, without, expected):
    assert may_have(sets, without) is expected


def test_a_name_with_signs_of_a_glob_is_read_exactly():
    name = "a[b]*?\\"
    assert meet((matching.exactly(name),), ("a\\[b*",))
    assert matching.glob(matching.exactly(name))(name.encode())
    assert not meet((matching.exactly("a*"),), ("ab",))


def test_a_walk_that_takes_too_long_is_given_up_in_favour_of_perhaps(monkeypatch):
    assert not may_have((("*a?c",),), ("*a??",))
    may_have.cache_clear()
    monkeypatch.setattr(channel_sets, "MOST_STEPS", 1)
    assert may_have((("*a?c",),), ("*a??",))
    may_have.cache_clear()
