"""Deliveries with equal keys go one after another, whatever happens to them in between."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery.ordering import Ordering


def test_the_second_waits_until_the_first_is_over():
    lanes = Ordering[str]()
    assert lanes.enter("a", "a1")
    assert not lanes.enter("a", "a2")
    assert lanes.enter("b", "b1")
    assert lanes.waiting == 1
    assert list(lanes) == ["a2"]
    assert lanes.leave("a") == "a2"
    assert lanes.leave("b") is None
    assert "b" not in lanes
    assert lanes.leave("a") is None
    assert len(lanes) == lanes.waiting == 0


def test_a_split_one_is_over_when_all_its_parts_are():
    lanes = Ordering[str]()
    lanes.enter("a", "a1")
    lanes.enter("a", "a2")
    lanes.add("a", 2)
    assert [lanes.leave("a") for _ in range(3)] == [None, None, "a2"]


def test_what_is_not_there_can_not_leave():
    lanes = Ordering[str]()
    with pytest.raises(KeyError):
        lanes.leave("a")
    with pytest.raises(KeyError):
        lanes.add("a", 1)


def ways(arrivals):
    """Every order in which these can come and be over: (`come` or `over`) as often as there are arrivals each."""
    steps = "c" * len(arrivals) + "o" * len(arrivals)
    return sorted(set(itertools.permutations(steps)))


@pytest.mark.parametrize("keys", ["aaa", "aab", "aba", "abab", "abca", "aaab"])
def test_every_interleaving_keeps_the_order_of_each_key(keys):
    arrivals = [(key, number) for number, key in enumerate(keys)]
    seen = 0
    for way in ways(arrivals):
        for pick in (0, -1):  # which of those that go is over first
            lanes, coming, going, gone = Ordering[tuple[str, int]](), list(arrivals), [], []
            for step in way:
                if step == "c":
                    item = coming.pop(0)
                    if lanes.enter(item[0], item):
                        going.append(item)
                elif going:
                    over = going.pop(pick)
                    gone.append(over)
                    following = lanes.leave(over[0])
                    if following is not None:
                        going.append(following)
                assert len({key for key, _ in going}) == len(going)
            while going:
                over = going.pop(pick)
                gone.append(over)
                following = lanes.leave(over[0])
                if following is not None:
                    going.append(following)
            assert sorted(gone) == sorted(arrivals)
            for key in set(keys):
                assert [n for k, n in gone if k == key] == [n for k, n in arrivals if k == key]
            assert len(lanes) == lanes.waiting == 0
            seen += 1
    assert seen > 10


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_with_retries_and_splits_nothing_is_lost_and_nothing_overtakes(steps):
    lanes, going, gone = Ordering[tuple[str, int]](), dict[str, tuple[tuple[str, int], int]](), list[tuple[str, int]]()

    def over(key):
        item, parts = going.pop(key)
        following = None
        for _ in range(parts):
            assert following is None
            following = lanes.leave(key)
        gone.append(item)
        if following is not None:
            going[key] = (following, 1)

    for number, (key, parts, action) in enumerate(steps):
        item = (key, number)
        if lanes.enter(key, item):
            assert key not in going
            going[key] = (item, 1)
        if action == 1 and going:  # it is split
            chosen = min(going)
            lanes.add(chosen, parts)
            going[chosen] = (going[chosen][0], going[chosen][1] + parts)
        if action >= 3 and going:
            over(sorted(going)[action % len(going)])
        assert lanes.waiting == number + 1 - len(gone) - len(going)
    while going:
        over(min(going))
    assert len(lanes) == lanes.waiting == 0
    for key in "abc":
        assert [item for item in gone if item[0] == key] == sorted(item for item in gone if item[0] == key)
    assert len(gone) == len(steps)
