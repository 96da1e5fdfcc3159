"""The Redis queue of one sink, on real servers."""

import asyncio
import time
from collections import Counter

import msgspec
import pytest
import structlog

from router.broker.queues.parts import queue_settlement
from router.broker.queues.queue_scripts import TICK
from router.broker.server.link import Link
from router.errors import Reason
from router.events import History, Outcome
from tests.support.engine import make_event
from tests.support.proxy import DOWN, Proxy
from tests.support.queues import QUICK, Line
from tests.support.streams import Renewals
from tests.support.waiting import PATIENCE, moment, stays, until

STREAM = "{event-router}:queue:s"
LATER = "{event-router}:later:s"
BOOKS = "{event-router}:books:s"


@pytest.fixture
async def line():
    """Make a started line: `line(url, **changes)`; each is ended after the test."""
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes).start())
        return made[-1]

    yield make
    for one in made:
        await one.die()


def numbered(count, begin=0):
    return [make_event(b"%d" % number) for number in range(begin, begin + count)]


def in_hand(server):
    """How many entries routers have in hand, as far as Redis knows."""
    return server.do("XPENDING", STREAM, "event-router")["pending"]


def raws(events):
    return [int(event.raw) for event in events]


async def test_deliveries_come_in_order_and_leave_nothing_behind(redis_server, line):
    one = line(redis_server.url)
    events = numbered(2345)
    for begin in range(0, 2345, 100):
        one.put(*events[begin : begin + 100])
    taken = []
    while len(taken) < 2345:
        got = await one.take(7)
        assert len(got) <= 7
        one.deliver(got)
        taken += got
    assert raws(taken) == list(range(2345))
    assert [event.id for event in taken] == [event.id for event in events]
    book = await one.refreshed()
    assert (book.accepted, book.delivered, book.pending, one.queue.held) == (2345, 2345, 0, 0)
    assert redis_server.do("XLEN", STREAM) == 0
    assert redis_server.do("XPENDING", STREAM, "event-router")["pending"] == 0
    assert redis_server.do("HGET", BOOKS, "bytes") == b"0"
    assert (one.book.accepted, one.book.delivered) == (2345, 2345)


async def test_outcomes_that_follow_each_other_quickly_are_reported_together(redis_server, line, monkeypatch):
    monkeypatch.setattr(queue_settlement, "PAUSE", 0.5)
    one = line(redis_server.url)
    one.put(*numbered(11))
    first, *others = [(await one.take(1))[0] for _ in range(11)]

    def reports():
        return redis_server.do("INFO", "commandstats")["cmdstat_xack"]["calls"]

    redis_server.do("CONFIG", "RESETSTAT")
    one.deliver([first])
    await until(lambda: redis_server.do("XLEN", STREAM) == 10)  # at once
    for event in others:
        one.deliver([event])
        await asyncio.sleep(0)
    await until(lambda: redis_server.do("XLEN", STREAM) == 0)
    assert reports() == 2


async def test_few_outcomes_wait_for_more_before_they_are_reported(redis_server, line, monkeypatch):
    monkeypatch.setattr(queue_settlement, "PAUSE", 0.02)
    monkeypatch.setattr(queue_settlement, "LONGEST_PAUSE", PATIENCE)
    monkeypatch.setattr(queue_settlement, "FEW", 3)
    one = line(redis_server.url)
    one.put(*numbered(4))
    events = [(await one.take(1))[0] for _ in range(4)]
    redis_server.do("CONFIG", "RESETSTAT")
    one.deliver(events[:1])
    for _ in range(3):
        await asyncio.sleep(0)  # its report is under way
    one.deliver(events[1:2])
    await until(lambda: redis_server.do("XLEN", STREAM) == 3)
    await stays(lambda: redis_server.do("XLEN", STREAM) == 3, 0.2)
    one.deliver(events[2:])
    await until(lambda: redis_server.do("XLEN", STREAM) == 0)
    assert redis_server.do("INFO", "commandstats")["cmdstat_xack"]["calls"] == 2


async def test_a_shutdown_does_not_wait_for_more_outcomes(redis_server, line, monkeypatch):
    monkeypatch.setattr(queue_settlement, "LONGEST_PAUSE", 2 * PATIENCE)
    one = line(redis_server.url)
    one.put(*numbered(2))
    events = [(await one.take(1))[0] for _ in range(2)]
    one.deliver(events[:1])
    await until(lambda: redis_server.do("XLEN", STREAM) == 1)
    one.deliver(events[1:])
    await one.queue.settled()
    assert redis_server.do("XLEN", STREAM) == 0


async def test_each_outcome_is_counted_with_its_reason(redis_server, line):
    one = line(redis_server.url)
    one.put(*numbered(4))
    a, b, c, d = await one.take_all(4)
    one.deliver([a])
    one.queue.settle([b], 1, Outcome.SUPPRESSED, Reason.NO_ADDRESS)
    one.queue.settle([c], 1, Outcome.DEAD_LETTERED, Reason.TEMPLATE)
    one.queue.settle([d], 1, Outcome.HANDED_OVER)
    book = await one.refreshed()
    assert (book.delivered, book.handed_over, book.pending) == (1, 1, 0)
    assert book.suppressed == {Reason.NO_ADDRESS: 1}
    assert book.dead_lettered == {Reason.TEMPLATE: 1}


async def test_what_is_taken_ahead_is_bounded(redis_server, line):
    one = line(redis_server.url, hold=10)
    one.put(*numbered(100))
    await one.take(1)
    await one.until(lambda: in_hand(redis_server) >= 10)
    await stays(lambda: in_hand(redis_server) <= 20, 0.1)


async def test_what_is_taken_ahead_is_read_several_at_a_time(redis_server, line):
    one = line(redis_server.url, hold=20)
    one.put(*numbered(200))
    await one.until(lambda: not one.inbox.waiting)
    redis_server.do("CONFIG", "RESETSTAT")
    for _ in range(200):
        one.deliver(await one.take(1))
        await moment(0.001)  # the reader may read now
    reads = redis_server.do("INFO", "commandstats")["cmdstat_xreadgroup"]["calls"]
    assert reads <= 50  # about 20, where every read brings ten; 200, where every read brings one


async def test_more_is_read_when_half_of_what_was_read_is_taken(redis_server, line):
    one = line(redis_server.url, hold=10)
    one.put(*numbered(6))
    await until(lambda: one.queue.in_flight.ready.number == 6)
    one.put(*numbered(100))
    await one.until(lambda: not one.inbox.waiting)
    await stays(lambda: in_hand(redis_server) == 6, 0.1)  # six are more than half of ten
    await one.take(1)
    await until(lambda: in_hand(redis_server) > 6)


@pytest.mark.parametrize("when_full", ["block", "drop-newest"])
async def test_pubsub_events_beyond_the_bound_are_dropped_and_counted(redis_server, line, when_full):
    one = line(redis_server.url, config={"max_events": 30, "when_full": when_full})
    one.put(*[make_event(b"%d" % number, channel=f"c{number % 2}") for number in range(100)])
    await one.until(lambda: not one.inbox.waiting)
    taken = await one.take_all(30)
    assert raws(taken) == list(range(30))
    book = await one.refreshed()
    assert (book.accepted, book.dropped, book.pending) == (100, {Reason.FULL: 70}, 30)
    assert book.dropped_by_channel == {"c0": 35, "c1": 35}
    one.deliver(taken)
    await one.refreshed()
    one.put(*numbered(1))
    assert len(await one.take()) == 1


async def test_bytes_bound_the_queue_too(redis_server, line):
    one = line(redis_server.url, config={"max_bytes": 50_000})
    one.put(*[make_event(b'"%s"' % (b"x" * 10_000)) for _ in range(10)])
    await one.until(lambda: not one.inbox.waiting)
    book = await one.refreshed()
    assert (book.accepted, book.dropped.total(), redis_server.do("XLEN", STREAM)) == (10, 6, 4)


async def test_a_retry_comes_when_it_is_due_and_remembers_its_history(redis_server, line):
    one = line(redis_server.url)
    one.put(make_event(b"1", headers={"a": "b"}))
    (event,) = await one.take()
    import msgspec

    began = time.time()
    again = msgspec.structs.replace(event, attempt=2, _history=History(began, 1, "no answer", began, 0.3))
    one.queue.later(again, 0.3)
    (back,) = await one.take()
    assert time.time() - began >= 0.29
    assert (back.id, back.attempt, back._history, back.headers) == (event.id, 2, again._history, {"a": "b"})
    one.deliver([back])
    book = await one.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (1, 1, 0)
    assert redis_server.do("HGET", BOOKS, "bytes") == b"0"


async def test_a_retry_due_later_than_its_delay_from_now_on_gets_its_delay_anew(redis_server, line):
    """The server's clock was an hour ahead when these were put off, and has been set right since."""
    one = line(redis_server.url)
    one.put(*numbered(250))
    for event in await one.take_all(250):
        one.queue.later(event, 5.0 if int(event.raw) % 2 else 1000.0)
    await one.until(lambda: redis_server.do("ZCARD", LATER) == 250)
    await one.die()
    with redis_server.client() as link:
        for member, due in link.zrange(LATER, 0, -1, withscores=True):
            link.zadd(LATER, {member: due + 3_600_000})
        link.zadd(LATER, {b"1-1/0 an older router's": (time.time() + 10 * 3600) * 1000})
    two = line(redis_server.url)
    assert sorted(raws(await two.take_all(125))) == [number for number in range(250) if number % 2]
    with redis_server.client() as link:
        dues = [due / 1000 - time.time() for _, due in link.zrange(LATER, 0, -1, withscores=True)]
    assert len(dues) == 126
    assert all(900 < due <= 1000 for due in dues[:-1])
    assert 3500 < dues[-1] <= 3600


async def test_a_retry_that_is_not_due_yet_is_shown(redis_server, line):
    one = line(redis_server.url)
    one.put(make_event(b"1"))
    (event,) = await one.take()
    one.queue.later(event, 3600.0)
    await one.until(lambda: redis_server.do("ZCARD", LATER) == 1)
    await one.refreshed()
    assert (one.queue.delayed, one.queue.shared_book.pending) == (1, 1)
    assert one.queue.due_in() == pytest.approx(3600.0, abs=PATIENCE)


async def test_a_retry_outlives_the_router(redis_server, line):
    one = line(redis_server.url)
    one.put(make_event(b"1"))
    (event,) = await one.take()
    one.queue.later(event, 3600.0)
    await one.until(lambda: redis_server.do("ZCARD", LATER) == 1)
    await one.die()
    redis_server.do("ZINCRBY", LATER, -3600_000, redis_server.do("ZRANGE", LATER, 0, 0)[0])
    two = line(redis_server.url)
    (back,) = await two.take()
    assert back.id == event.id


async def test_an_event_split_by_address_becomes_a_delivery_for_each(redis_server, line):
    import msgspec

    one = line(redis_server.url)
    one.put(make_event(b"1"))
    (event,) = await one.take()
    parts = [msgspec.structs.replace(event, address=address) for address in ("a@x", "b@x", "c@x")]
    one.queue.split(event, parts)
    one.queue.later(parts[0], 0.0)
    one.queue.later(parts[1], 0.05)
    assert redis_server.do("ZCARD", LATER) == 0, "the whole is given up only when each part is safe"
    one.queue.settle([parts[2]], 1, Outcome.DEAD_LETTERED, Reason.PERMANENT)
    back = await one.take_all(2)
    assert sorted((each.address, each.key) for each in back) == [
        (address, f"{event.id}:r:s:{address}") for address in ("a@x", "b@x")
    ]
    one.deliver(back)
    book = await one.refreshed()
    assert (book.accepted, book.handed_over, book.delivered, book.pending) == (4, 1, 2, 0)
    assert book.dead_lettered == {Reason.PERMANENT: 1}


async def test_the_books_hold_across_routers(redis_server, line):
    one = line(redis_server.url)
    one.put(*numbered(10))
    one.deliver((await one.take_all(10))[:6])
    await one.refreshed()
    await one.die()
    two = line(redis_server.url)
    two.put(*numbered(5))
    await two.deliver_all(9)
    book = await two.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (15, 15, 0)


async def test_two_routers_share_the_work_and_deliver_nothing_twice(redis_server, line):
    one, two = line(redis_server.url, hold=20), line(redis_server.url, consumer="two", hold=20)
    one.put(*numbered(500))
    two.put(*numbered(500, 500))
    taken = {one: [], two: []}

    async def work(line_):
        while sum(map(len, taken.values())) < 1000:
            try:
                events = await line_.take(10, within=0.3)
            except TimeoutError:
                continue
            taken[line_] += raws(events)
            await moment(0.001)
            line_.deliver(events)

    await asyncio.gather(work(one), work(two))
    assert sorted(taken[one] + taken[two]) == list(range(1000))
    assert min(map(len, taken.values())) > 100
    await two.refreshed()
    book = await one.refreshed()
    assert (book.accepted, book.delivered) == (1000, 1000)


async def test_one_router_finishes_what_another_left(redis_server, line):
    one = line(redis_server.url, idle=1.0, hold=20)
    one.put(*numbered(50))
    await one.take_all(20)
    two = line(redis_server.url, consumer="two", idle=1.0)
    await one.die()
    taken = await two.take_all(50)
    assert sorted(raws(taken)) == list(range(50))
    two.deliver(taken)
    assert (await two.refreshed()).pending == 0


async def test_what_is_in_hand_for_long_is_renewed(redis_server, line):
    one = line(redis_server.url, idle=2.0)
    one.put(*numbered(3))
    held = await one.take_all(3)
    two = line(redis_server.url, consumer="two", idle=2.0)
    taking = asyncio.create_task(two.take())
    renewals = Renewals(redis_server, STREAM, "event-router")
    await one.until(lambda: renewals.seen() >= 6)
    assert not taking.done()
    taking.cancel()
    one.deliver(held)
    assert (await one.refreshed()).delivered == 3


async def test_a_router_that_slept_does_not_deliver_what_a_peer_took_over(redis_server, line):
    async with Proxy(redis_server.port) as proxy:
        one = line(proxy.url, idle=0.3, hold=10)
        one.put(*numbered(5))
        await one.until(lambda: len(one.queue.in_flight.held) == 5)
        proxy.refuse = True
        proxy.reset()
        two = line(redis_server.url, consumer="two", idle=0.3)
        taken = await two.take_all(5)
        two.deliver(taken)
        await two.refreshed()
        await two.die()
        taking = asyncio.create_task(one.take())
        await stays(lambda: not taking.done(), 0.1)  # it can't know whether they are still its own
        proxy.refuse = False
        one.put(make_event(b"77"))
        assert raws(await taking) == [77]


async def test_a_settlement_whose_answer_is_lost_counts_once(redis_server, line):
    async with Proxy(redis_server.port) as proxy:
        one = line(proxy.url, timing=msgspec.structs.replace(QUICK, tick=60))
        one.put(*numbered(21))
        known, *taken = await one.take_all(21)
        one.deliver([known])  # from here on the server knows the script
        await one.refreshed()
        proxy.blackhole(DOWN)
        one.deliver(taken[:10])
        one.queue.later(taken[10], 3600)
        await one.until(lambda: redis_server.do("XLEN", STREAM) == 10)
        proxy.heal()
        proxy.cut()
        await one.until(lambda: redis_server.do("ZCARD", LATER) == 1)
        one.deliver(taken[11:])
        book = await one.refreshed()
        assert (book.accepted, book.delivered, book.pending) == (21, 20, 1)
        assert redis_server.do("ZCARD", LATER) == 1


async def test_entries_whose_answer_is_lost_are_found_again(redis_server, line):
    async with Proxy(redis_server.port) as proxy:
        one = line(proxy.url, timing=msgspec.structs.replace(QUICK, block=PATIENCE))
        await one.until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == 1)
        proxy.blackhole(DOWN)
        two = Line(redis_server.url)
        two.put(*numbered(5))
        await one.until(lambda: in_hand(redis_server) == 5)
        proxy.heal()
        proxy.cut()
        assert raws(await one.take_all(5)) == list(range(5))
        await two.die()


@pytest.mark.parametrize("command", ["FLUSHALL", f"DEL {STREAM}", f"XGROUP DESTROY {STREAM} event-router"])
async def test_a_queue_that_vanishes_is_told_and_heals(redis_server, line, command):
    one = line(redis_server.url)
    one.put(*numbered(10))
    taken = await one.take_all(10)
    one.deliver(taken[:4])
    await one.refreshed()
    lost = 0 if "DESTROY" in command else 6
    with structlog.testing.capture_logs() as logs:
        redis_server.do(*command.split(" "))
        await one.until(lambda: one.queue.shared_book.dropped[Reason.LOST] == lost)
        one.deliver(taken[4:])
        one.put(*numbered(20, 100))
        again = await one.take_all(20)
        one.deliver(again)
        book = await one.refreshed()
    assert sorted(raws(again)) == list(range(100, 120))
    assert (book.accepted, book.delivered, book.pending) == (30, 30 - lost, 0)
    assert one.book.dropped == +Counter({Reason.LOST: lost})  # which the closing line shows
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry.get("number") for entry in errors] == [lost] * bool(lost)


async def test_a_look_at_the_books_hands_on_what_the_one_before_it_read(redis_server, monkeypatch):
    """Else what was delivered in between counts as lost when the server's data vanishes."""
    one = Line(redis_server.url)
    one.put(*numbered(10))
    await one.until(lambda: not one.inbox.waiting)
    send, said, others = Link.script, [], []

    async def spied(link, script, keys, words):
        if script is TICK:
            said.append(
                words[6:]
            )  # behind the group, the most to be moved, the idle time, two epochs, and how many follow
            if len(said) == 1:
                others.append(asyncio.create_task(one.queue.refresh()))
                await asyncio.sleep(0)
        return await send(link, script, keys, words)

    monkeypatch.setattr(Link, "script", spied)
    await one.queue.refresh()
    await asyncio.gather(*others)
    assert said == [[], ["accepted", 10]]
    await one.die()


async def test_two_routers_count_a_loss_once(redis_server, line):
    one, two = line(redis_server.url), line(redis_server.url, consumer="two")
    one.put(*numbered(10))
    await one.until(lambda: not one.inbox.waiting)
    await one.queue.refresh()
    await two.queue.refresh()
    redis_server.do("FLUSHALL")
    for _ in range(3):
        await one.queue.refresh()
        await two.queue.refresh()
    for each in (one, two):
        book = each.queue.shared_book
        assert (book.accepted, book.dropped, book.pending) == (10, {Reason.LOST: 10}, 0)


async def test_a_record_of_a_newer_router_stays_pending(redis_server, line):
    import msgspec

    newer = msgspec.msgpack.encode([99, "something new"])
    redis_server.do("XADD", STREAM, "*", "d", newer)
    one = line(redis_server.url)
    with structlog.testing.capture_logs() as logs:
        one.put(*numbered(3))
        taken = await one.take_all(3)
        one.deliver(taken)
        book = await one.refreshed()
    assert raws(taken) == [0, 1, 2]
    assert (book.pending, redis_server.do("XLEN", STREAM)) == (1, 1)
    assert sum("can't be read" in entry["event"] for entry in logs) == 1
    await asyncio.wait_for(one.queue.settled(), PATIENCE)
    await one.end()
    assert redis_server.do("XLEN", STREAM) == 1


async def test_an_orphan_of_a_route_that_is_gone_is_given_up(redis_server, line):
    one = line(redis_server.url, overriding=frozenset({"r"}))
    one.put(make_event(b"1"))
    await one.until(lambda: not one.inbox.waiting)
    await one.die()
    two = line(redis_server.url, consumer="two", idle=0.1)
    await two.until(lambda: two.given_up)
    assert [reason for _, reason in two.given_up] == [Reason.ORPHANED]


async def test_memory_runs_out_and_comes_back(start_server, kind, line):
    server = start_server(kind, options={"maxmemory": "100mb", "maxmemory-policy": "noeviction"})
    one = line(server.url)
    one.put(*numbered(10))
    taken = await one.take_all(10)
    server.do("CONFIG", "SET", "maxmemory", "1")
    one.put(*numbered(100, 10))
    await one.until(lambda: one.enqueuer.reason is not None)
    assert "maxmemory" in one.enqueuer.reason
    one.deliver(taken[:5])
    one.queue.later(taken[5], 0.0)
    await one.until(lambda: server.do("XLEN", STREAM) in {4, 5})  # settling needs no memory
    server.do("CONFIG", "SET", "maxmemory", "0")
    rest = await one.take_all(101)
    assert sorted(raws(rest)) == [5, *range(10, 110)]
    one.deliver(taken[6:] + rest)
    book = await one.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (110, 110, 0)


async def test_the_end_leaves_what_waits_and_takes_nothing_back(redis_server, line):
    one = line(redis_server.url, hold=10)
    one.put(*numbered(100))
    hand = await one.take(5)
    one.queue.later(hand[0], 3600)
    settled = asyncio.create_task(one.queue.settled())
    await stays(lambda: not settled.done(), 0.05)  # some are in hand
    one.deliver(hand[1:])
    await asyncio.wait_for(settled, PATIENCE)
    assert one.queue.close([]) == 0
    await one.end()
    two = line(redis_server.url)
    rest = await two.deliver_all(95)
    book = await two.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (100, 99, 1)
    assert sorted(raws(rest)) == list(range(5, 100))


async def test_the_end_delivers_what_stands_ready(redis_server, line):
    one = line(redis_server.url, timing=msgspec.structs.replace(QUICK, linger=PATIENCE))
    one.put(*numbered(300))
    await one.until(lambda: not one.inbox.waiting)

    async def work():
        while True:
            one.deliver(await one.take())

    working = asyncio.create_task(work())
    await asyncio.wait_for(one.queue.settled(), PATIENCE)
    working.cancel()
    assert one.book.delivered == 300
