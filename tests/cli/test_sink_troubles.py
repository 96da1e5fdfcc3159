"""The line of `status` that says why deliveries of a sink wait or were dropped."""

import pytest
from msgspec.structs import replace

from router.cli.operate.sink_troubles import trouble
from router.core.accounts.snapshot import Failure, Fault, document
from tests.support.status import SINK, SNAPSHOT

NOW = 1000.0
WELL = replace(SINK, pending=0, delayed=0, dropped={}, dropped_by_channel={}, max_events=5)
REFUSED = Fault(NOW - 303, "HTTP 401: Unauthorized")
BUSY = Failure(NOW - 20, "451 mailbox busy")


def line(*without, **changes):
    """The line for a sink that differs from a healthy one, without some fields as an older router leaves them out."""
    told = document(replace(SNAPSHOT, sinks={"mail": replace(WELL, **changes)}))
    sink = {field: value for field, value in told["sinks"]["mail"].items() if field not in without}
    return trouble("mail", sink, told["books"]["sinks"]["mail"], NOW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"pending": 4, "last_failure": BUSY}, None),  # it works again, and nothing waits for a retry
        ({"dropped": {"full": 3}}, None),  # by another router, or before the start
        (
            {"fault": REFUSED, "breaker_open": True, "pending": 3, "next_attempt": NOW + 297},
            "failing for 5 m 3 s, breaker open: HTTP 401: Unauthorized; 3 deliveries wait, next attempt in 4 m 57 s",
        ),
        (
            {"fault": REFUSED, "breaker_open": True, "pending": 1},
            "failing for 5 m 3 s, breaker open: HTTP 401: Unauthorized; 1 delivery waits, an attempt is under way",
        ),
        (
            {"fault": REFUSED, "pending": 3, "delayed": 2, "next_attempt": NOW - 1, "last_failure": BUSY},
            "failing for 5 m 3 s: HTTP 401: Unauthorized; 2 deliveries wait for a retry, next attempt in 0 s",
        ),
        (
            {"pending": 3, "delayed": 1, "next_attempt": NOW + 12, "last_failure": BUSY},
            "1 delivery waits for a retry, next attempt in 12 s; last failure 20 s ago: 451 mailbox busy",
        ),
        ({"pending": 3, "delayed": 1}, "1 delivery waits for a retry"),
        (
            {"fault": REFUSED, "pending": 3, "next_attempt": NOW + 12},  # `order_by`: the retry is in flight
            "failing for 5 m 3 s: HTTP 401: Unauthorized; 3 deliveries wait, next attempt in 12 s",
        ),
        ({"pending": 4}, None),
        ({"pending": 5}, "the queue is full (5 deliveries, limit 5)"),
        (
            {"dropped": {"full": 10}, "dropped_by_channel": {"a": 1, "b": 2, "c": 3, "d": 4}},
            "10 deliveries dropped because the queue was full (since the start; by channel: d 4, c 3, b 2)",
        ),
        ({"dropped": {"outage": 1}, "dropped_by_channel": {"a": 1}}, None),
    ],
)
def test_it_says_what_waits_and_for_what(changes, said):
    assert line(**changes) == (said and f"sink mail: {said}")


def test_a_router_of_an_older_version_says_less():
    newer = ("next_attempt", "last_failure", "max_events", "when_full")
    assert line(*newer, pending=9, delayed=2) == "sink mail: 2 deliveries wait for a retry"
