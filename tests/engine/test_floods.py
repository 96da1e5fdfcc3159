"""What a producer chooses, a channel's name above all, makes no flood of lines."""

import pytest
import structlog
from structlog.testing import capture_logs

from router.config.models import RouteConfig, RouteSink
from router.engine.delivery.sink_health import SinkHealth
from router.engine.intake.channels import MOST_CHANNELS
from router.engine.log_limits import CHANNELS, KINDS
from tests.engine.test_pipeline import GOOD, Run

ROUTES = [RouteConfig(id="x", channels=["x"], sinks=[RouteSink(sink="log")])]
MANY = 5 * max(CHANNELS, MOST_CHANNELS)
"""Channels: several times what is remembered of them, so that what is forgotten is met again and again."""


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self):
        self.seconds = 1_000_000.0

    def monotonic(self):
        return self.seconds

    def now(self):
        return self.seconds


@pytest.mark.parametrize(
    ("channels", "events", "keep"), [(3, 2, False), (3, 2, True), (25_000, 1, True), (MANY, 1, False)]
)
def test_channels_that_no_route_takes_make_a_line_a_minute(channels, events, keep):
    clock = Clock()
    run = Run(ROUTES, clock=clock, keep_unmatched=keep)
    with capture_logs() as lines:
        for number in range(channels):
            run.receive(*[GOOD] * events, channel=b"c%d" % number)
        clock.seconds += 60
        run.receive(GOOD, channel=b"late")
        clock.seconds += 59
        run.receive(GOOD, channel=b"later")
    assert [line["channel"] for line in lines] == ["c0", "late"]
    assert {line["source"] for line in lines} == {"web"}
    assert lines[1]["times_since_last_line"] == channels * events - 1
    assert lines[1]["channels_since_last_line"] == channels - (events == 1)
    assert run.book.unmatched == channels * events + 2


@pytest.mark.parametrize(
    ("payload", "mode", "message"),
    [
        (b"{", "enforce", "event rejected"),
        (b'{"user_id": "x"}', "enforce", "event rejected"),
        (
            b'{"user_id": "x"}',
            "warn",
            "event does not fit its schema; it is routed, because the schema has the mode warn",
        ),
    ],
)
def test_channels_with_faulty_events_make_a_line_a_minute(payload, mode, message):
    clock = Clock()
    run = Run(mode=mode, schema_channels=["*"], clock=clock)
    with capture_logs() as lines:
        for number in range(2_000):
            run.receive(payload, channel=b"c%d" % number)
        clock.seconds += 60
        run.receive(payload, channel=b"late")
    assert [(line["event"], line["channel"]) for line in lines] == [(message, "c0"), (message, "late")]
    assert lines[1]["times_since_last_line"] == lines[1]["channels_since_last_line"] == 1_999


def test_errors_that_differ_each_time_make_ten_lines_a_minute():
    """What the other side answers may quote an address: then each delivery fails for a reason of its own."""
    clock = Clock()
    with capture_logs() as lines:
        trouble = SinkHealth(structlog.stdlib.get_logger("test"), clock)
        for number in range(600):
            name = "".join(chr(ord("g") + int(digit)) for digit in str(number))
            trouble.happened("delivery failed", f"no such mailbox: {name}")
            clock.seconds += 1
        assert len(lines) == 10 * KINDS
        assert trouble.fault.why == f"delivery failed: no such mailbox: {name}"
        trouble.ended("the sink delivers again")
    assert (lines[-1]["log_level"], lines[-1]["times"]) == ("info", 600)
