"""What becomes of deliveries that were in flight when a router died."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.queues.parts.queue_common import GROUP
from router.errors import Reason
from router.events import Outcome
from tests.support.engine import make_event
from tests.support.queues import QUICK, Line
from tests.support.streams import pending, renewed_at, server_ms
from tests.support.waiting import stays, until

STREAM = "{event-router}:queue:s"


@pytest.fixture
async def line():
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes).start())
        return made[-1]

    yield make
    for one in made:
        await one.die()


async def put(one, count, begin=0):
    one.put(*[make_event(b"%d" % number) for number in range(begin, begin + count)])
    await one.until(lambda: not one.inbox.waiting)


async def _next_of(run, over):
    """What is taken next; nothing when all is over instead."""
    taking = asyncio.create_task(run.take())
    await until(lambda: taking.done() or over())
    if taking.done():
        return taking.result()
    taking.cancel()
    return []


async def test_recovered_batches_shrink_to_one_and_what_kills_alone_is_poison(redis_server, line):
    one = line(redis_server.url)
    await put(one, 300)
    await one.take_all(300)
    await one.die()
    sizes = []
    delivered = []
    for _ in range(20):
        run = line(redis_server.url)
        while events := await _next_of(run, lambda run=run: run.given_up and run.queue.shared_book.pending == 0):
            sizes.append(len(events))
            if any(event.raw == b"137" for event in events):
                break  # the plugin ends the process
            run.deliver(events)
            delivered += [int(event.raw) for event in events]
            await run.refreshed()
        else:
            book = await run.refreshed()
            await run.die()
            break
        await run.die()
    assert sorted(delivered) == [number for number in range(300) if number != 137]
    assert [(event.raw, reason) for event, reason in run.given_up] == [(b"137", Reason.POISON)]
    assert book.dead_lettered == {Reason.POISON: 1}
    assert book.pending == 0
    assert sizes[0] == 100
    assert 10 in sizes
    assert sizes[-1] == 1


async def test_own_history_that_waits_its_turn_is_renewed_and_no_peers(redis_server, line):
    one = line(redis_server.url)
    await put(one, 150)
    await one.take_all(150)
    await one.die()
    run = line(redis_server.url, idle=5)
    first = await run.take_all(100)
    taken_at = server_ms(redis_server)
    peer = line(redis_server.url, consumer="two", idle=5)
    await peer.until(lambda: peer.queue.events == 150)
    # Each entry is renewed long before its idle time is over, also the 50 entries that no worker has taken.
    await until(lambda: min(renewed_at(redis_server, STREAM, GROUP)) > taken_at)
    assert not peer.queue.in_flight.held
    run.deliver(first)
    rest = await run.deliver_all(50)
    assert sorted(int(event.raw) for event in [*first, *rest]) == list(range(150))


async def test_deliveries_of_a_dead_router_are_claimed_while_enough_others_are_ready(redis_server, line):
    run = line(redis_server.url, idle=2, hold=10)
    await put(run, 8)
    await run.until(lambda: run.queue.in_flight.ready.number == 8)
    peer = line(redis_server.url, consumer="two", idle=2)
    await put(peer, 1, begin=8)
    await peer.until(lambda: len(peer.queue.in_flight.held) == 1)
    await peer.die()
    await run.until(lambda: len(run.queue.in_flight.held) == 9)


async def test_a_restart_is_no_attempt(redis_server, line):
    one = line(redis_server.url)
    await put(one, 5)
    for _ in range(8):
        assert len(await one.take_all(5)) == 5
        await one.end()
        one = line(redis_server.url)
    await one.deliver_all(5)
    assert not one.given_up


async def test_an_attempt_that_returns_sets_the_count_back(redis_server, line):
    one = line(redis_server.url)
    await put(one, 1)
    for _ in range(3):
        for _ in range(2):
            await one.take()
            await one.die()
            one = line(redis_server.url)
        (event,) = await one.take()
        one.queue.later(msgspec.structs.replace(event, attempt=event.attempt + 1), 0)
    (event,) = await one.take()
    assert event.attempt == 4
    assert not one.given_up


async def test_only_one_suspect_of_a_whole_router_is_in_hand(redis_server, line):
    for sink in ("a", "b"):
        one = line(redis_server.url, sink=sink)
        await put(one, 1)
        await one.take()
        await one.die()
        for _ in range(2):
            one = line(redis_server.url, sink=sink)
            await one.take()
            await one.die()
    isolation = CrashIsolation()
    a, b = (line(redis_server.url, sink=sink, isolation=isolation) for sink in ("a", "b"))
    taking = {asyncio.create_task(each.take()): each for each in (a, b)}
    done, left = await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
    (first,), (second,) = done, left
    await stays(lambda: not second.done(), 0.1)
    taking[first].deliver(first.result())
    assert len(await second) == 1


async def _suspicious(line, url, sink, deaths):
    """One delivery of a sink that was alone in flight at so many deaths of its router, but for the first three."""
    one = line(url, sink=sink)
    await put(one, 1)
    for _ in range(deaths):
        await one.take()
        await one.die()
        one = line(url, sink=sink)
    await one.die()


async def test_a_settled_entry_of_one_queue_does_not_end_the_solitude_of_another(redis_server, line):
    for sink in ("a", "b"):
        await _suspicious(line, redis_server.url, sink, 3)
    isolation = CrashIsolation()
    a = line(redis_server.url, sink="a", isolation=isolation)
    (event,) = await a.take()
    b = line(redis_server.url, sink="b", isolation=isolation)
    taking = asyncio.create_task(b.take())
    b.queue.in_flight.let_go([event._receipt])  # its own entry of the same event: it has the same id
    done, _ = await asyncio.wait([taking], timeout=0.3)
    assert not done
    a.deliver([event])
    assert len(await taking) == 1


async def test_while_a_letter_of_a_poisonous_one_is_written_nothing_suspicious_is_tried(redis_server, line):
    await _suspicious(line, redis_server.url, "a", 5)
    await _suspicious(line, redis_server.url, "b", 3)
    isolation = CrashIsolation()
    a = Line(redis_server.url, sink="a", isolation=isolation)
    a.hold_letters = True
    a.start()
    await a.until(lambda: a.given_up)
    b = line(redis_server.url, sink="b", isolation=isolation)
    taking = asyncio.create_task(b.take())
    done, _ = await asyncio.wait([taking], timeout=0.3)
    assert not done
    ((event, reason),) = a.given_up
    a.queue.settle([event], len(event.raw), Outcome.DEAD_LETTERED, reason)  # it is written
    assert len(await taking) == 1
    await a.die()


async def test_where_it_may_be_found_guilty_a_delivery_is_alone_in_the_whole_router(redis_server, line):
    await _suspicious(line, redis_server.url, "a", 4)
    isolation = CrashIsolation()
    b = line(redis_server.url, sink="b", isolation=isolation)
    await put(b, 1)
    (busy,) = await b.take()
    a = line(redis_server.url, sink="a", isolation=isolation)
    trying = asyncio.create_task(a.take())
    await b.until(lambda: isolation.shuts_out(b.queue.in_flight))
    await put(b, 1)
    waiting = asyncio.create_task(b.take())
    done, _ = await asyncio.wait([trying, waiting], timeout=0.3)
    assert not done
    b.deliver([busy])
    (suspect,) = await trying
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    a.deliver([suspect])
    assert len(await waiting) == 1


async def test_what_others_do_not_finish_is_not_waited_for_for_ever_and_finds_nobody_guilty(redis_server, line):
    await _suspicious(line, redis_server.url, "a", 4)
    isolation = CrashIsolation()
    b = line(redis_server.url, sink="b", isolation=isolation)
    await put(b, 1)
    await b.take()  # and it hangs
    a = line(redis_server.url, sink="a", isolation=isolation, timing=replace(QUICK, alone=0.1))
    await a.take()
    assert [count for _, count in pending(redis_server, "{event-router}:queue:a", GROUP).values()] == [
        4
    ]  # had it died now, who could say of what


async def test_a_queue_that_ends_leaves_nobody_waiting(redis_server, line):
    for sink in ("a", "b"):
        await _suspicious(line, redis_server.url, sink, 3)
    isolation = CrashIsolation()
    a = line(redis_server.url, sink="a", isolation=isolation)
    await a.take()
    b = line(redis_server.url, sink="b", isolation=isolation)
    taking = asyncio.create_task(b.take())
    await a.end()
    assert len(await taking) == 1


@pytest.mark.parametrize("how", [("FLUSHALL",), ("DEL", STREAM), ("XTRIM", STREAM, "MAXLEN", "=", 2)])
async def test_what_vanished_from_redis_and_is_ready_here_is_delivered(redis_server, line, how):
    one = line(redis_server.url, idle=0.6, hold=8)  # nothing more is read until some are taken
    await put(one, 8)
    await one.until(lambda: one.queue.in_flight.ready.number == 8)
    await one.until(lambda: one.queue.shared_book.accepted == 8)  # what no look has seen can't be missed
    redis_server.do(*how)
    await one.until(lambda: one.queue.shared_book.dropped == {Reason.LOST: 6 if how[0] == "XTRIM" else 8})
    for _ in range(2):  # renewals go by
        renewed_at = one.queue.renewal.renewed_at
        await one.until(lambda renewed_at=renewed_at: one.queue.renewal.renewed_at > renewed_at)
    assert [int(event.raw) for event in await one.take_all(8)] == list(range(8))


async def test_of_what_vanished_only_that_is_left_which_redis_says_is_a_peers(redis_server, line):
    one = line(redis_server.url, idle=0.6, hold=10)
    await put(one, 8)
    await one.until(lambda: one.queue.in_flight.ready.number == 8)
    ids = list(pending(redis_server, STREAM, GROUP))
    with redis_server.client() as client:
        pipeline = client.pipeline()
        pipeline.xclaim(STREAM, GROUP, "peer", 0, ids[:3], justid=True)
        pipeline.xdel(STREAM, *ids[3:5])
        pipeline.execute()
    await one.until(lambda: one.queue.in_flight.ready.number == 5)
    assert [int(event.raw) for event in await one.take_all(5)] == [3, 4, 5, 6, 7]


async def test_a_suspect_that_a_peer_has_taken_over_meanwhile_is_not_taken_back(redis_server, line):
    await _suspicious(line, redis_server.url, "a", 3)
    stream = "{event-router}:queue:a"
    isolation = CrashIsolation()
    await isolation.enter()
    one = line(redis_server.url, sink="a", isolation=isolation)
    taking = asyncio.create_task(one.take())
    await one.until(lambda: isolation._lock._waiters)
    with redis_server.client() as client:
        client.xclaim(stream, GROUP, "peer", 0, list(pending(redis_server, stream, GROUP)), justid=True)
    isolation.leave()
    await one.until(lambda: not one.queue.in_flight.held)
    assert [owner for owner, _ in pending(redis_server, stream, GROUP).values()] == ["peer"]
    taking.cancel()


async def test_twenty_thousand_events_and_several_kills(redis_server, line):
    total = 20_000
    feeder = Line(redis_server.url)
    events = [make_event(b"%d" % number) for number in range(total)]
    for begin in range(0, total, 500):
        feeder.put(*events[begin : begin + 500])
    seen: list[int] = []
    in_hand = 0
    for kill in range(6):
        run = line(redis_server.url)
        goal = total * (kill + 1) // 6
        while len(seen) < goal and kill < 5:
            got = await run.take(100)
            seen += [int(event.raw) for event in got]
            run.deliver(got)
        if kill < 5:
            await run.die()
            in_hand += redis_server.do("XPENDING", STREAM, GROUP)["pending"]
    while run.queue.shared_book.delivered < total:
        try:
            got = await run.take(100, within=0.5)
        except TimeoutError:
            await run.refreshed()
            continue
        seen += [int(event.raw) for event in got]
        run.deliver(got)
        await asyncio.sleep(0)
    assert set(seen) == set(range(total))
    assert len(seen) - total <= in_hand
    book = await run.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (total, total, 0)
    assert redis_server.do("XLEN", STREAM) == 0
    await feeder.die()
