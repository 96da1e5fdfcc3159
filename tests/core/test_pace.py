"""How many go in a time."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery.pace import Pace


def test_so_many_go_at_once_and_the_next_after_the_time():
    pace = Pace(3, 60.0)
    assert [pace.reserve(1, 100.0) for _ in range(7)] == [0, 0, 0, 60, 60, 60, 120]


def test_what_was_long_ago_counts_no_more():
    pace = Pace(2, 1.0)
    assert pace.reserve(1, 0.0) == 0
    assert pace.reserve(1, 0.75) == 0
    assert pace.reserve(1, 0.75) == 0.25
    assert pace.reserve(1, 1.5) == 0.25


def test_a_batch_goes_as_one():
    pace = Pace(10, 60.0)
    assert pace.reserve(4, 0.0) == 0
    assert pace.reserve(6, 1.0) == 0
    assert pace.reserve(5, 2.0) == 59  # 1 s after the first four, when the six still count: not before they don't
    assert pace.reserve(10, 2.0) == 119


@given(
    number=st.integers(1, 6),
    calls=st.lists(st.tuples(st.integers(1, 6), st.floats(0, 3)), max_size=40),
)
def test_in_no_window_go_more(number, calls):
    pace, now, sent = Pace(number, 10.0), 0.0, []
    for wanted, passed in calls:
        now += passed
        count = min(wanted, number)
        wait = pace.reserve(count, now)
        assert wait >= 0
        sent += [now + wait] * count
    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(sent))
    for first, later in zip(sent, sent[number:], strict=False):
        assert later - first >= 10.0 - 1e-9
