"""Lines about events: the first of a kind, and no flood of them."""

import pytest
import structlog.stdlib
from structlog.testing import capture_logs

from router.engine.notes import KINDS, MOST, QUIET, Notes


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
    return Notes(structlog.stdlib.get_logger("test"), clock)


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


def test_what_is_remembered_is_bounded(notes):
    with capture_logs() as lines:
        for number in [*range(MOST + 1), 0]:
            notes.say("no route", str(number), channel=number)
    assert [line["channel"] for line in lines] == [*range(MOST + 1), 0]  # the first was forgotten
