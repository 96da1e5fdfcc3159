"""When a sink is left alone, and when it is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery.breaker import Breaker, State, Ticket, Verdict, verdict
from router.errors import GoneError, PartialError, PermanentError, PluginError, SinkError, TransientError

W, F, A, N = Verdict.WORKS, Verdict.FAILED, Verdict.AT_FAULT, Verdict.NOTHING


def tried(breaker, *verdicts, now=0.0):
    """Make attempts one after another; returns whether each changed the breaker."""
    changed = []
    for says in verdicts:
        ticket = breaker.enter(now)
        assert ticket is not None
        changed.append(breaker.report(ticket, says, now))
    return changed


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (None, W),
        (TransientError("503"), F),
        (ConnectionRefusedError(), F),
        (TimeoutError(), F),
        (TransientError("429", retry_after=0), N),
        (TransientError("503", retry_after=30, scope="sink"), N),
        (TransientError("500", scope="sink"), F),
        (TransientError("500", scope="address"), N),
        (SinkError("401"), A),
        (SinkError("401", retry_after=30), A),
        (PermanentError("no such user"), N),
        (GoneError("410"), N),
        (PartialError({"a": TransientError("later")}), N),
        (PluginError("no coroutine"), N),
        (KeyError("user_id"), N),
    ],
)
def test_what_a_result_says_of_the_sink(error, says):
    assert verdict(error) is says


def test_failures_in_a_row_open_it():
    breaker = Breaker(3, 30.0)
    assert tried(breaker, F, F, W, F, F) == [False] * 5
    assert breaker.state is State.CLOSED
    assert tried(breaker, F) == [True]
    assert breaker.enter(29.9) is None
    assert breaker.state is State.OPEN


def test_a_permanent_failure_counts_neither_way():
    breaker = Breaker(2, 30.0)
    assert tried(breaker, F, N, N) == [False, False, False]
    assert tried(breaker, F) == [True]


def test_a_sink_at_fault_opens_it_at_once():
    breaker = Breaker(5, 30.0)
    assert tried(breaker, A) == [True]
    assert breaker.ticket is None


def test_one_probe_goes_and_its_success_closes_it():
    breaker = Breaker(1, 30.0)
    tried(breaker, F)
    probe = breaker.enter(30.0)
    assert probe is not None
    assert probe.probe
    assert breaker.enter(31.0) is None
    assert breaker.report(probe, W, 31.0)
    assert breaker.state is State.CLOSED
    assert breaker.enter(31.0) == breaker.ticket


@pytest.mark.parametrize("says", [F, A])
def test_a_probe_that_fails_opens_it_again_without_being_told_twice(says):
    breaker = Breaker(1, 30.0)
    tried(breaker, F)
    probe = breaker.enter(30.0)
    assert probe is not None
    assert not breaker.report(probe, says, 40.0)
    assert breaker.enter(69.9) is None
    assert breaker.enter(70.0) is not None


def test_a_probe_that_tells_nothing_lets_the_next_one_try():
    breaker = Breaker(1, 30.0)
    tried(breaker, F)
    for give_up in (lambda ticket: breaker.report(ticket, N, 30.0), lambda ticket: breaker.give_back(ticket, 30.0)):
        probe = breaker.enter(30.0)
        assert probe is not None
        assert breaker.enter(30.0) is None
        give_up(probe)
    assert breaker.enter(30.0) is not None


def test_an_attempt_that_began_before_it_opened_changes_nothing():
    breaker = Breaker(1, 30.0)
    early = breaker.enter(0.0)
    assert early is not None
    tried(breaker, A)
    for says in (W, F, A):
        assert not breaker.report(early, says, 1.0)
    assert breaker.probe_at == 30.0
    probe = breaker.enter(30.0)
    assert probe is not None
    assert not breaker.report(early, W, 30.0)
    assert breaker.state is State.HALF_OPEN
    breaker.report(probe, W, 30.0)
    assert not breaker.report(early, A, 30.0)
    assert breaker.state is State.CLOSED


def test_retry_after_puts_the_probe_off():
    breaker = Breaker(1, 30.0)
    ticket = breaker.enter(0.0)
    assert ticket is not None
    breaker.report(ticket, A, 0.0, 90.0)
    assert breaker.probe_at == 90.0


@given(st.lists(st.tuples(st.sampled_from(Verdict), st.floats(0, 100), st.booleans()), max_size=60))
def test_it_never_gets_stuck_and_lets_one_probe_go_at_a_time(steps):
    breaker, now, out = Breaker(2, 30.0), 0.0, list[Ticket]()
    for says, passed, answered in steps:
        now += passed
        ticket = breaker.enter(now)
        if ticket is not None:
            out.append(ticket)
        assert sum(one.probe and breaker.state is State.HALF_OPEN for one in out) <= 1 or not ticket
        if answered and out:
            breaker.report(out.pop(0), says, now)
    while out:
        breaker.report(out.pop(), N, now)
    assert breaker.enter(now + 30.0) is not None
