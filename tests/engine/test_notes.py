"""Lines about events: the first of a kind, and no flood of them."""

import pytest
import structlog.stdlib
from structlog.testing import capture_logs

from router.engine.log_limits import CHANNELS, KINDS, MOST, QUIET, LogLimits


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def notes(clock):
    return LogLimits(structlog.stdlib.get_logger("test"), clock)


def test_the_same_is_said_once_a_minute_with_how_often_it_happened(notes, clock):
    with capture_logs() as lines:
        for number in range(5):
            notes.say("event rejected", "web", event_id=f"e{number}", detail="/a type")
        clock.seconds += QUIET
        notes.say("event rejected", "web", event_id="e5", detail="/a type")
    assert [line["event_id"] for line in lines] == ["e0", "e5"]
    assert "times_since_last_line" not in lines[0]
    assert lines[1]["times_since_last_line"] == 4


def test_another_kind_of_fault_is_said_at_once_and_another_number_is_not(notes):
    with capture_logs() as lines:
        notes.say("delivery given up", "permanent", error="HTTP 400: chat 4711 not found")
        notes.say("delivery given up", "permanent", error="HTTP 400: chat 4712 not found")
        notes.say("delivery given up", "permanent", error="HTTP 403: bot was blocked")
        notes.say("delivery given up", "permanent", error="HTTP 403: bot was blocked")
    assert [line["error"] for line in lines] == ["HTTP 400: chat 4711 not found", "HTTP 403: bot was blocked"]


def test_what_is_different_each_time_is_no_flood(notes, clock):
    with capture_logs() as lines:
        for number in range(1000):
            notes.say("event rejected", "web", detail="/" + "x" * number)
        assert len(lines) == KINDS
        clock.seconds += QUIET
        notes.say("event rejected", "web", detail="/y")
    assert lines[-1]["times_since_last_line"] == 1000 - KINDS


def test_what_is_remembered_is_bounded_and_so_are_the_lines(notes, clock):
    with capture_logs() as lines:
        for number in [*range(MOST + 500), 0]:
            notes.say("no route", f"route {number}", route=number)
        assert [line["route"] for line in lines] == list(range(MOST + 1))  # the rest shares one place
        lines.clear()
        clock.seconds += QUIET
        for number in (MOST + 7, MOST + 8):  # those of a minute ago have made room
            notes.say("no route", f"route {number}", route=number)
    assert [line["route"] for line in lines] == [MOST + 7, MOST + 8]


@pytest.mark.parametrize("channels", [1, 3, CHANNELS + 5])
def test_a_line_says_of_how_many_channels_it_speaks(notes, clock, channels):
    with capture_logs() as lines:
        notes.say("no route", "web", channel="first", times=5)
        for number in range(2 * channels):
            notes.say("no route", "web", channel=f"c{number // 2}", times=3)
        clock.seconds += QUIET
        notes.say("no route", "web", channel="last")
        clock.seconds += QUIET
        notes.say("no route", "web", channel="last")
    assert [line["channel"] for line in lines] == ["first", "last", "last"]
    assert lines[1]["times_since_last_line"] == 4 + 6 * channels
    assert lines[1]["channels_since_last_line"] == 1 + channels
    assert "channels_since_last_line" not in lines[0]
    assert "times_since_last_line" not in lines[2]
