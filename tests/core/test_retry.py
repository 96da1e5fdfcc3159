"""What follows from a failed attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.retry import LONGEST_ASKED, GiveUp, Hold, RetryAt, RetryPolicy, decide
from router.errors import PermanentError, PluginError, Reason, SinkError, TransientError

POLICY = RetryPolicy(initial=1.0, max_delay=300.0, max_age=86400.0)


def decided(error, *, attempt=1, first=1000.0, now=1000.0, chance=0.5, policy=POLICY):
    return decide(policy, attempt=attempt, first_failed_at=first, error=error, now=now, chance=chance)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (9, 128.0), (10, 150.0), (500, 150.0)])
def test_the_bound_doubles_up_to_its_limit(attempt, delay):
    assert decided(TransientError("x"), attempt=attempt) == RetryAt(1000.0 + delay)


def test_full_jitter_reaches_from_nothing_to_the_bound():
    assert decided(TransientError("x"), attempt=3, chance=0.0) == RetryAt(1000.0)
    assert decided(TransientError("x"), attempt=3, chance=0.999) == RetryAt(1003.996)


def test_retry_after_is_the_least_delay_and_clamped():
    assert decided(TransientError("x", retry_after=60)) == RetryAt(1060.0)
    assert decided(TransientError("x", retry_after=0.1), attempt=3) == RetryAt(1002.0)
    assert decided(TransientError("x", retry_after=10**9)) == RetryAt(1000.0 + LONGEST_ASKED)


def test_permanent_gives_up_at_once():
    assert decided(PermanentError("x")) == GiveUp(Reason.PERMANENT)
    assert decided(PluginError("x")) == GiveUp(Reason.PLUGIN)


def test_age_ends_it_after_one_last_attempt():
    assert decided(TransientError("x"), attempt=20, now=1000 + 86399, chance=0.9) == RetryAt(1000 + 86400)
    assert decided(TransientError("x"), attempt=21, now=1000 + 86400) == GiveUp(Reason.EXHAUSTED)


def test_attempts_cap_only_where_set():
    capped = RetryPolicy(attempts=3)
    assert isinstance(decided(TransientError("x"), attempt=2, policy=capped), RetryAt)
    assert decided(TransientError("x"), attempt=3, policy=capped) == GiveUp(Reason.EXHAUSTED)
    assert isinstance(decided(TransientError("x"), attempt=1000), RetryAt)


def test_a_sink_at_fault_holds_the_delivery_and_counts_no_attempt():
    assert decided(SinkError("401"), policy=RetryPolicy(attempts=1)) == Hold()
    assert decided(SinkError("401"), attempt=500, now=1000 + 86399) == Hold()
    assert decided(SinkError("401"), now=1000 + 86400) == GiveUp(Reason.EXHAUSTED)


def test_an_unexpected_exception_is_tried_again_and_ends_as_plugin():
    assert isinstance(decided(KeyError("x")), RetryAt)
    assert decided(KeyError("x"), now=1000 + 86400) == GiveUp(Reason.PLUGIN)


@given(
    attempt=st.integers(1, 10**6),
    age=st.floats(0, 10**6),
    chance=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(0, 10**12),
)
def test_a_retry_is_never_in_the_past_nor_after_the_last_moment(attempt, age, chance, asked):
    now = 1000.0 + age
    decision = decided(TransientError("x", retry_after=asked), attempt=attempt, now=now, chance=chance)
    if isinstance(decision, RetryAt):
        assert now <= decision.due <= 1000.0 + POLICY.max_age
    else:
        assert age >= POLICY.max_age
