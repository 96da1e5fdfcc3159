"""What the log says of Redis when it refuses for a while: once that it began, once that it is over."""

import asyncio
import contextlib

import pytest
import structlog.testing

from router.broker.dead_letters.dead_letter_writer import Bounds, DeadLetterWriter
from router.broker.server.outage import KINDS, Outage
from tests.broker.test_dead_letters import letter
from tests.support.engine import make_event
from tests.support.lists import Taker
from tests.support.queues import Line
from tests.support.streams import Desk, add, running
from tests.support.waiting import moment, until


class Hand:
    """A clock that the test sets."""

    def __init__(self):
        self.time = 100.0

    def now(self):
        return self.time

    monotonic = now


def test_an_outage_is_told_once_for_each_reason_and_ends_with_an_answer():
    hand = Hand()
    outage = Outage(hand)
    assert outage.succeeded() is None
    assert [outage.failed(reason) for reason in ("READONLY", "refused", "READONLY", "refused")] == [
        True,
        True,
        False,
        False,
    ]
    assert outage.reason == "refused"
    hand.time += 7.0
    assert outage.succeeded() == 7.0
    assert (outage.reason, outage.succeeded()) == (None, None)
    assert outage.failed("READONLY")


def test_it_is_over_when_every_task_has_had_an_answer():
    outage = Outage(Hand())
    assert outage.failed("NOPERM", "settle")
    assert outage.succeeded("read") is None
    assert not outage.failed("NOPERM", "keep")
    assert outage.succeeded("settle") is None
    assert outage.reason == "NOPERM"
    assert outage.succeeded("keep") == 0.0


def test_reasons_without_end_are_not_told_without_end():
    outage = Outage(Hand())
    assert sum(outage.failed(f"number {number}") for number in range(1000)) == KINDS


def refusals(server):
    """How many commands the server has refused, or began and could not do."""
    stats = server.do("INFO", "commandstats").values()
    return sum(stat["rejected_calls"] + stat["failed_calls"] for stat in stats)


FAULTS = {
    "READONLY": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "NOREPLICAS": (("CONFIG", "SET", "min-replicas-to-write", 1), ("CONFIG", "SET", "min-replicas-to-write", 0)),
    "no right to write": (("ACL", "SETUSER", "app", "-@write"), ("ACL", "SETUSER", "app", "+@all")),
    "no right to run scripts": (("ACL", "SETUSER", "app", "-@scripting"), ("ACL", "SETUSER", "app", "+@all")),
    "no right to read a group": (("ACL", "SETUSER", "app", "-xreadgroup"), ("ACL", "SETUSER", "app", "+@all")),
    "no right to wait for a list": (("ACL", "SETUSER", "app", "-blmove"), ("ACL", "SETUSER", "app", "+@all")),
}


@pytest.fixture(params=FAULTS)
def fault(request):
    return FAULTS[request.param]


@pytest.fixture
def app(redis_server):
    """The URL of a user whose rights can be taken away."""
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
    return f"redis://app:pw@127.0.0.1:{redis_server.port}"


@pytest.fixture
def logs():
    with structlog.testing.capture_logs() as found:
        yield found


@contextlib.asynccontextmanager
async def refusing(server, fault, attempts=12):
    """A server that refuses a number of attempts; within the block stands what happens meanwhile."""
    begin, end = fault
    before = refusals(server)
    server.do(*begin)
    yield
    with contextlib.suppress(TimeoutError):  # not every part needs every right
        async with asyncio.timeout(3):
            while refusals(server) < before + attempts:
                await moment(0.02)
    server.do(*end)


def told(logs):
    return [line["event"] for line in logs if line["log_level"] in ("warning", "error", "critical", "info")]


def judge(logs, begins, ends):
    """One line for each reason, one when it is over; or nothing at all."""
    found = told(logs)
    assert set(found) <= {begins, ends}
    reasons = [line["reason"] for line in logs if line["event"] == begins]
    assert len(reasons) == len(set(reasons)) <= 3
    assert found.count(ends) == bool(reasons)


async def test_a_stream_says_it_once(redis_server, app, clock, logs, fault):
    desk = Desk()
    async with running(app, ["billing"], desk, clock) as source:
        async with refusing(redis_server, fault):
            pass
        add(redis_server, "billing", b"after")
        await until(lambda: desk.payloads == [b"after"] and source.up)
        judge(logs, "the source does not read; the router keeps trying", "the source reads again")


async def test_acknowledging_says_it_once(redis_server, app, clock, logs):
    desk = Desk()
    async with running(app, ["billing"], desk, clock) as source:
        fault = ("ACL", "SETUSER", "app", "-xack"), ("ACL", "SETUSER", "app", "+@all")
        async with refusing(redis_server, fault, attempts=4):
            add(redis_server, "billing", b"1")
        await until(lambda: not redis_server.do("XPENDING", "billing", "g")["pending"] and source.up)
        await until(lambda: len(logs) == 2)
        judge(logs, "entries can't be acknowledged; the router keeps trying", "entries are acknowledged again")


@pytest.mark.parametrize("full", [False, True])
async def test_a_list_says_it_once(redis_server, app, clock, logs, fault, full):  # noqa: PLR0917  # fixtures
    desk = Desk()
    desk.hold = True
    taker = await Taker(app, ["jobs"], desk, clock, max_in_flight=2, lease=60.0).start()
    try:
        if full:  # then nothing is asked for, and only removals fail
            redis_server.do("LPUSH", "jobs", "1", "2")
            await until(lambda: len(desk.payloads) == 2)
        async with refusing(redis_server, fault):
            desk.settle()
        redis_server.do("LPUSH", "jobs", "after")
        await until(lambda: desk.payloads[-1:] == [b"after"] and taker.source.up)
        desk.settle()
        a_list = (
            "a list can't be read; the router tries again, and goes on reading the other lists",
            "the list can be read again",
        )
        every = "the source does not read; the router keeps trying", "the source reads again"
        removals = "entries can't be acknowledged; the router keeps trying", "entries are acknowledged again"
        await until(lambda: all(told(logs).count(ends) >= (begins in told(logs)) for begins, ends in (every, removals)))
        for pair in (a_list, every, removals):
            judge([one for one in logs if one["event"] in pair], *pair)
        assert told(logs) == [text for text in told(logs) if text in {*a_list, *every, *removals}]
    finally:
        await taker.end()


async def test_a_queue_and_the_way_into_it_say_it_once(redis_server, app, logs, fault):
    line = Line(app).start()
    line.put(make_event())
    (event,) = await line.take()
    async with refusing(redis_server, fault):
        line.deliver([event])
        line.put(make_event())
    await line.deliver_all(1)
    book = await line.refreshed()
    assert book.delivered == 2
    await until(lambda: line.queue.reason is None and line.enqueuer.reason is None)
    for begins, ends in (
        ("queues in Redis can't be used; the router keeps trying", "queues in Redis are used again"),
        ("deliveries can't be queued in Redis; they wait in memory", "deliveries are queued in Redis again"),
    ):
        judge([one for one in logs if one["event"] in (begins, ends)], begins, ends)
    await line.end()


async def test_many_queues_of_one_server_say_it_once(redis_server, app, clock, logs, fault):
    shared = Outage(clock)
    lines = [Line(app, sink=f"s{number}", told=shared).start() for number in range(5)]
    for line in lines:
        line.put(make_event())
        await line.deliver_all(1)
    async with refusing(redis_server, fault):
        for line in lines:
            line.put(make_event())
    for line in lines:
        await line.deliver_all(1)
        await until(lambda line=line: line.queue.reason is None)
    pair = "queues in Redis can't be used; the router keeps trying", "queues in Redis are used again"
    judge([one for one in logs if one["event"] in pair], *pair)
    for line in lines:
        await line.end()


async def test_a_queue_that_ends_in_an_outage_keeps_nobody_from_saying_that_it_is_over(clock):
    outage = Outage(clock)
    outage.failed("READONLY", "keep one")
    outage.failed("READONLY", "keep two")
    outage.dismiss("keep two")
    assert outage.succeeded("keep one") is not None


BEGINS, ENDS = "dead letters can't be written; they wait in memory", "dead letters are written again"


async def test_dead_letters_say_it_once(redis_server, app, clock, logs, fault):
    writer = DeadLetterWriter(app, clock=clock, first_delay=0.02, longest_delay=0.1)
    await writer.start()
    writer.add([letter()])
    await until(lambda: writer.written == 1)
    async with refusing(redis_server, fault):
        writer.add([letter()])
    await until(lambda: writer.written == 2)
    judge(logs, BEGINS, ENDS)
    await writer.drain(1.0)


async def test_where_no_letter_waits_a_redis_that_refuses_for_now_is_no_trouble(redis_server, app, clock, logs):
    writer = DeadLetterWriter(app, clock=clock, bounds=Bounds(max_age=0.2), first_delay=0.02, longest_delay=0.1)
    await writer.start()
    async with refusing(redis_server, FAULTS["READONLY"], attempts=4):
        pass
    await writer.drain(1.0)
    assert told(logs) == []


@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_a_connection_that_ended_while_no_letter_came_is_no_trouble_now(redis_server, clock, logs, how):
    writer = DeadLetterWriter(redis_server.url, clock=clock)
    await writer.start()
    writer.add([letter()])
    await until(lambda: writer.written == 1)
    if how == "killed":
        redis_server.kill()
    else:
        redis_server.stop()
    redis_server.start()
    writer.add([letter()])
    await until(lambda: writer.written == 2)
    assert told(logs) == []
    await writer.drain(1.0)
