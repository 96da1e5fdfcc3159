"""What follows from a failed attempt."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery.retry import (
    LONGEST_ASKED,
    SHORTEST_ASKED,
    SLACK,
    GiveUp,
    Hold,
    Retry,
    RetryPolicy,
    Suppress,
    Wait,
    age,
    decide,
    put_off,
    requested_delay,
)
from router.errors import GoneError, PermanentError, PluginError, Reason, SinkError, TransientError
from router.events import History

POLICY = RetryPolicy(initial=1.0, max_delay=300.0, max_age=86400.0)


def decided(error, *, attempt=1, age=0.0, chance=0.5, policy=POLICY):
    return decide(policy, attempt=attempt, age=age, error=error, chance=chance)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (9, 128.0), (10, 150.0), (500, 150.0)])
def test_the_bound_doubles_up_to_its_limit(attempt, delay):
    assert decided(TransientError("x"), attempt=attempt) == Retry(delay)


def test_full_jitter_reaches_from_nothing_to_the_bound():
    assert decided(TransientError("x"), attempt=3, chance=0.0) == Retry(0.0)
    assert decided(TransientError("x"), attempt=3, chance=0.999) == Retry(3.996)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (60, 60.0),
        (1.5, 1.5),
        (0, SHORTEST_ASKED),
        (-5, SHORTEST_ASKED),
        (0.1, SHORTEST_ASKED),
        (math.nan, SHORTEST_ASKED),
        (-math.inf, SHORTEST_ASKED),
        (10**9, LONGEST_ASKED),
        (math.inf, LONGEST_ASKED),
        (True, None),
        ("60", None),
        (None, None),
    ],
)
def test_the_time_that_is_asked_for_has_a_floor_and_a_ceiling(said, kept):
    assert (
        requested_delay(TransientError("x", retry_after=said))
        == requested_delay(SinkError("x", retry_after=said))
        == kept
    )


@pytest.mark.parametrize("error", [None, ValueError("x"), PermanentError("x")])
def test_whoever_else_fails_asks_for_nothing(error):
    assert requested_delay(error) is None


def test_waiting_as_asked_is_no_attempt_and_ends_by_age_alone():
    capped = RetryPolicy(attempts=1)
    assert decided(TransientError("429", retry_after=60), attempt=7, policy=capped) == Wait(60.0)
    assert decided(TransientError("429", retry_after=60), age=86399) == Wait(60.0), "never sooner than asked"
    assert decided(TransientError("429", retry_after=60), age=86400) == GiveUp(Reason.EXHAUSTED)


def test_an_address_that_is_gone_suppresses_however_old_the_delivery_is():
    assert decided(GoneError("410"), attempt=9, age=1e9) == Suppress(Reason.GONE)


def test_permanent_gives_up_at_once():
    assert decided(PermanentError("x")) == GiveUp(Reason.PERMANENT)
    assert decided(PluginError("x")) == GiveUp(Reason.PLUGIN)


def test_age_ends_it_after_one_last_attempt():
    assert decided(TransientError("x"), attempt=20, age=86399, chance=0.9) == Retry(1.0)
    assert decided(TransientError("x"), attempt=21, age=86400) == GiveUp(Reason.EXHAUSTED)


def test_attempts_cap_only_where_set():
    capped = RetryPolicy(attempts=3)
    assert isinstance(decided(TransientError("x"), attempt=2, policy=capped), Retry)
    assert decided(TransientError("x"), attempt=3, policy=capped) == GiveUp(Reason.EXHAUSTED)
    assert isinstance(decided(TransientError("x"), attempt=1000), Retry)


def test_a_sink_at_fault_holds_the_delivery_and_counts_no_attempt():
    assert decided(SinkError("401"), policy=RetryPolicy(attempts=1)) == Hold()
    assert decided(SinkError("401"), attempt=500, age=86399) == Hold()
    assert decided(SinkError("401"), age=86400) == GiveUp(Reason.EXHAUSTED)


def test_an_unexpected_exception_is_tried_again_and_ends_as_plugin():
    assert isinstance(decided(KeyError("x")), Retry)
    assert decided(KeyError("x"), age=86400) == GiveUp(Reason.PLUGIN)


@given(
    attempt=st.integers(1, 10**6),
    age=st.floats(0, 10**6),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_retry_is_never_in_the_past_nor_after_the_last_moment(attempt, age, chance):
    decision = decided(TransientError("x"), attempt=attempt, age=age, chance=chance)
    if isinstance(decision, Retry):
        assert 0 <= decision.delay <= POLICY.max_age - age
    else:
        assert age >= POLICY.max_age


def put_off_by(error, *, age, chance=0.5, policy=POLICY):
    return put_off(policy, age=age, error=error, chance=chance)


@pytest.mark.parametrize(("age", "delay"), [(0, 0.5), (1, 0.5), (10, 5), (400, 150), (86_390, 10)])
def test_a_delivery_without_its_record_waits_longer_the_older_it_is(age, delay):
    assert put_off_by(TransientError("x"), age=age) == Wait(delay)
    one = RetryPolicy(initial=1.0, max_delay=300.0, max_age=86400.0, attempts=1)
    assert put_off_by(TransientError("x"), age=age, policy=one) == Wait(delay), "it is not an attempt"


def test_a_delivery_without_its_record_waits_as_long_as_the_store_asks_and_is_given_up_by_age():
    assert put_off_by(TransientError("x", retry_after=60), age=0) == Wait(60)
    assert put_off_by(TransientError("x", retry_after=10**9), age=0) == Wait(LONGEST_ASKED)
    assert put_off_by(TransientError("x", retry_after=60), age=86_390) == Wait(10)
    assert put_off_by(TransientError("x"), age=86_400) == GiveUp(Reason.EXHAUSTED)


@pytest.mark.parametrize(
    ("passed", "counted"),
    [
        (0, 0),
        (10, 10),
        (80, 80),
        (81, 80),
        (3_600, 80),
        (86_400, 80),  # the clock was put forward a day, or the router was down that long
        (-5, 0),
        (-86_400, 0),
    ],
)
def test_between_two_attempts_age_grows_by_twice_the_planned_delay_and_a_minute_at_most(passed, counted):
    failed = History(1000.0, 3, "no", failed_at=1100.0, planned=10.0)
    assert age(failed, 1100.0 + passed) == 100 + counted
    assert counted <= 2 * 10 + SLACK


def test_a_delivery_that_fails_for_the_first_time_has_no_age():
    assert age(None, 12345.0) == 0


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(-(10**6), 10**6)), min_size=1, max_size=30))
def test_however_the_clock_jumps_age_is_the_sum_of_what_counts(steps):
    now, history, old = 1e9, None, 0.0
    for planned, passed in steps:
        if history is not None:
            old += min(max(passed, 0.0), 2 * history.planned + SLACK)
            now += passed
        assert age(history, now) == pytest.approx(old, abs=1e-3)
        history = History(now - age(history, now), 1, "", now, planned)
