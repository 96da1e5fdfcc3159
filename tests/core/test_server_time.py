"""Whether a server's clock was set back."""

import pytest

from router.core.accounts.server_time import ServerTime


def seen(*answers):
    """A server whose answers were these, and whose past nobody has to see to any more."""
    server = ServerTime()
    server.went_back = False
    for seconds, now in answers:
        server.heard(seconds, now)
    return server.went_back


def test_what_was_before_the_first_answer_nobody_knows():
    assert ServerTime().went_back


@pytest.mark.parametrize("step", [0.0, 0.5, -0.5, 3_600, 86_400])
def test_a_clock_that_goes_on_or_forward_is_no_fault(step):
    assert not seen((1e9, 10.0), (1e9 + 5 + step, 15.0))


@pytest.mark.parametrize("step", [-1.5, -3_600, -86_400])
def test_a_clock_that_was_set_back_is_noticed_once(step):
    assert seen((1e9, 10.0), (1e9 + 5 + step, 15.0))
    server = ServerTime()
    server.heard(1e9, 10.0)
    server.heard(1e9 + 5 + step, 15.0)
    server.went_back = False
    server.heard(1e9 + 6 + step, 16.0)
    assert not server.went_back
