"""The common times of periodic work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.accounts.beats import until_beat

times = st.floats(0, 1e7)
periods = st.sampled_from([0.1, 0.5, 1.0, 5.0, 60.0])


@given(times, times, periods)
def test_timers_of_one_period_fire_a_whole_number_of_periods_apart(one, other, every):
    apart = (one + until_beat(one, every) - other - until_beat(other, every)) / every
    assert apart == pytest.approx(round(apart), abs=1e-6)


@given(times, periods)
def test_at_least_half_a_period_passes_and_less_than_one_and_a_half(now, every):
    assert every / 2 <= until_beat(now, every) < 1.5 * every + 1e-6


def test_a_timer_that_fires_a_moment_too_early_does_not_fire_twice():
    assert until_beat(6.9996, 1.0) == pytest.approx(1.0004)
