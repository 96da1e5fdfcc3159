"""The health of one part of the router: what counts as an outage, what is logged of it, and when to try again."""

import asyncio
from functools import partial

import pytest
import structlog.testing
from redis import exceptions as failures

from router.broker.server.health import Health, reach
from router.broker.server.outage import Outage
from router.broker.server.repeating import Repeating
from router.errors import ConfigError, UnavailableError
from tests.support.waiting import PATIENCE, until

log = structlog.get_logger()
REFUSED = failures.ResponseError("READONLY You can't write against a read only replica.")


class Hand:
    """A clock that the test sets."""

    time = 100.0

    def now(self):
        return self.time

    monotonic = now


def made(outage, name="it", **options):
    begins, ends = partial(log.error, f"{name} fails"), partial(log.warning, f"{name} works again")
    return Health("redis://here", outage, begins=begins, ends=ends, **options)


def test_each_edge_is_one_line_with_what_the_caller_adds():
    hand = Hand()
    health = made(Outage(hand))
    with structlog.testing.capture_logs() as logs:
        health.failed(REFUSED, waiting=1)
        health.failed(REFUSED, waiting=2)
        assert "READONLY" in health.reason
        hand.time += 2.5
        assert health.succeeded(left=3)
        assert not health.succeeded()
    reason = "redis://here: READONLY You can't write against a read only replica"
    assert logs == [
        {"event": "it fails", "log_level": "error", "reason": reason, "waiting": 1},
        {"event": "it works again", "log_level": "warning", "outage_seconds": 2.5, "left": 3},
    ]
    assert health.reason is None


def test_a_connection_that_ended_counts_when_the_next_attempt_fails_too():
    health = made(Outage(Hand()), delays=(50.0, 60.0))
    with structlog.testing.capture_logs() as logs:
        assert health.failed(failures.ConnectionError("Connection closed by server.")) == 0.0
        assert health.reason is None
        assert not health.succeeded()
        assert logs == []
        health.failed(failures.ConnectionError("Connection closed by server."))
        health.failed(failures.ConnectionError("Connection closed by server."))
        assert health.reason
        assert health.succeeded()
    assert [line["event"] for line in logs] == ["it fails", "it works again"]


def test_the_delays_of_a_task_grow_until_it_is_answered(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 1.0)
    health = made(None, delays=(1.0, 4.0))
    assert [health.failed(REFUSED, "a") for _ in range(4)] == [1.0, 2.0, 4.0, 4.0]
    assert health.failed(REFUSED, "b") == 1.0
    health.succeeded("a")
    assert health.failed(REFUSED, "a") == 1.0


def test_parts_that_share_an_outage_are_told_as_one():
    shared = Outage(Hand())
    one, two = made(shared, "one"), made(shared, "two")
    with structlog.testing.capture_logs() as logs:
        one.failed(REFUSED)
        two.failed(REFUSED)
        assert not one.succeeded()
        assert (one.reason, two.reason is None) == (None, False)
        assert two.succeeded()
    assert [line["event"] for line in logs] == ["one fails", "two works again"]


def test_a_task_that_ended_without_an_answer_holds_up_no_end():
    health = made(Outage(Hand()))
    health.failed(REFUSED, "read")
    health.failed(REFUSED, "write")
    health.dismiss("read")
    assert health.succeeded("write")
    assert health.reason is None


def test_a_fault_of_the_router_has_its_traceback():
    health = made(Outage(Hand()))
    fault = ZeroDivisionError("division by zero")
    with structlog.testing.capture_logs() as logs:
        health.failed(fault)
        health.failed(REFUSED)
    assert [line.get("exc_info") for line in logs] == [fault, None]


async def test_reaching_goes_on_until_it_succeeds_and_tells_who_waits():
    answers = [REFUSED, REFUSED, None]
    heard = []

    async def attempt():
        if (answer := answers.pop(0)) is not None:
            raise answer

    health = made(Outage(Hand()), delays=(0.001, 0.001))
    with structlog.testing.capture_logs() as logs:
        await reach(attempt, health, who="it", within=PATIENCE, waiting=heard.append)
    assert [line["event"] for line in logs] == ["it fails", "it works again"]
    assert len(heard) == 2
    assert (answers, health.reason) == ([], None)


async def test_reaching_ends_in_time_and_where_a_person_must_act():
    async def attempt(error):
        raise error

    health = made(None, delays=(0.001, 0.001))
    with pytest.raises(UnavailableError, match=r"READONLY.* \(it, tried for 0.05 s\)"):
        await reach(partial(attempt, REFUSED), health, who="it", within=0.05, waiting=None)
    with pytest.raises(ConfigError, match="permission"):
        await reach(partial(attempt, failures.NoPermissionError("no")), health, who="it", within=None, waiting=None)


async def test_reaching_ends_in_time_though_an_attempt_swallows_the_cancellation():
    """`asyncio.wait_for`, which redis-py sends with, may do so under load: then the source was waited for, for ever."""

    async def attempt():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise failures.ConnectionError("closed by a client that was cancelled") from None

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(UnavailableError):
            await reach(attempt, made(None), who="it", within=0.01, waiting=None)


async def test_what_repeats_outlives_failures_and_can_be_hurried():
    done = []

    async def work():
        done.append(None)
        if len(done) < 3:
            raise REFUSED

    health = made(None, delays=(0.001, 0.001))
    repeating = Repeating("it", work, 1000.0, health)
    repeating.start()
    await until(lambda: len(done) == 3)
    assert health.reason is None
    repeating.hurry()
    await until(lambda: len(done) == 4)
    await repeating.close()
    repeating.hurry()
    await asyncio.sleep(0)
    assert len(done) == 4


async def test_what_repeats_may_ask_for_another_pause():
    done = []

    async def work():
        done.append(None)
        return 0.0 if len(done) < 5 else None

    repeating = Repeating("it", work, 1000.0)
    repeating.start()
    await until(lambda: len(done) == 5)
    await repeating.close()
