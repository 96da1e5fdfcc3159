"""Which part hangs, by what it is at and since when."""

import pytest

from router.contracts import Sign
from router.core.accounts.liveness import Hang, HangDetector


def sign(since, limit=30.0, *, part="source jobs", doing="a command", ended=False):
    return Sign(part, doing, since, limit, ended)


@pytest.mark.parametrize(
    ("signs", "hangs"),
    [
        ([], ()),
        ([sign(None)], ()),
        ([sign(100.0)], ()),
        ([sign(70.0)], ()),
        ([sign(69.0)], (Hang("source jobs", "a command", 31.0),)),
        ([sign(69.0, 40.0)], ()),
        ([sign(160.0)], ()),
        ([sign(69.0), sign(50.0), sign(60.0)], (Hang("source jobs", "a command", 50.0),)),
        ([sign(69.0), sign(99.0), sign(None)], (Hang("source jobs", "a command", 31.0),)),
        (
            [sign(69.0), sign(69.0, part="sink mail", doing="a call")],
            (Hang("source jobs", "a command", 31.0), Hang("sink mail", "a call", 31.0)),
        ),
        ([sign(None, ended=True)], (Hang("source jobs", "a command", 0.0),)),
    ],
)
def test_what_takes_longer_than_it_can_hangs(signs, hangs):
    assert HangDetector().check(signs, 100.0) == hangs


def test_a_part_that_gets_on_hangs_no_more():
    detector = HangDetector()
    assert detector.check([sign(0.0)], 31.0)
    assert not detector.check([sign(31.5)], 32.0)
    assert not detector.check([sign(None)], 100.0)
    assert detector.check([sign(31.5)], 100.0)


def test_what_has_ended_hangs_since_it_was_found_out():
    detector = HangDetector()
    assert [detector.check([sign(None, ended=True)], now)[0].seconds for now in (100.0, 105.0)] == [0.0, 5.0]
    assert not detector.check([sign(None)], 110.0)
    assert detector.check([sign(None, ended=True)], 115.0)[0].seconds == 0.0


def test_nothing_is_held_against_a_part_while_the_event_loop_stands_still():
    detector = HangDetector()
    assert not detector.check([sign(0.0)], 5.0)
    assert not detector.check([sign(0.0)], 45.0, late=35.0)
    assert not detector.check([sign(0.0), sign(20.0)], 65.0)  # 30 seconds of which it could have got on
    (hang,) = detector.check([sign(0.0)], 66.0)
    assert hang.seconds == 31.0


def test_of_a_standstill_only_what_came_after_the_sign_counts():
    detector = HangDetector()
    detector.check([], 40.0, late=35.0)
    assert not detector.check([sign(38.0)], 70.0)
    assert detector.check([sign(38.0)], 70.1)
    assert detector.check([sign(40.0)], 70.1)


def test_many_small_standstills_add_up():
    detector = HangDetector()
    now = 0.0
    while now < 58.0:
        now += 2.0
        assert not detector.check([sign(0.0)], now, late=1.0)
    assert not detector.check([sign(0.0)], 59.0)
    assert detector.check([sign(0.0)], 59.5)


def test_a_look_that_is_a_little_late_is_no_standstill():
    detector = HangDetector()
    for now in range(31):
        assert not detector.check([sign(0.0)], float(now), late=0.2)
    assert detector.check([sign(0.0)], 31.0, late=0.2)


def test_it_says_what_hangs_and_for_how_long():
    assert str(Hang("source jobs", "a command to Redis neither ends nor fails", 31.4)) == (
        "source jobs: a command to Redis neither ends nor fails, for 31 s"
    )
