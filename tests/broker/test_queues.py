"""The queues seen from outside: what waits is found, counted, moved and given up, and never lost nor doubled."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest

from router.broker.queues.queue_admin import AT_ONCE, IDLE, Bounds, Due, QueueAdmin, State, claim_idle_of
from router.broker.server import client
from router.core.accounts.records import Reader, pack
from router.engine.dead_letters.dead_letter_factory import of_waiting
from router.errors import ConfigError, Reason, UnavailableError
from router.events import History, Outcome
from tests.support.engine import make_event
from tests.support.proxy import DOWN, Proxy
from tests.support.queues import Line
from tests.support.waiting import PATIENCE, moment

WIDE = Bounds(100_000, 64 * 1024**2)
PREFIX = "{event-router}"
OLD, NEW, DEAD = f"{PREFIX}:queue:old", f"{PREFIX}:queue:new", f"{PREFIX}:dead"
OLD_LATER, NEW_LATER = f"{PREFIX}:later:old", f"{PREFIX}:later:new"


@pytest.fixture
async def line():
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes))
        return made[-1]

    yield make
    for one in made:
        await one.die()


def queues_of(server, url=None, prefix="event-router", **options):
    return QueueAdmin(client.server(url or server.url), prefix=prefix, **options)


async def put(one, *events):
    one.put(*events)
    await one.until(lambda: not one.inbox.waiting)


def numbered(count, begin=0, **fields):
    return [make_event(b"%d" % number, **fields) for number in range(begin, begin + count)]


async def defer(one, events, delay):
    """Take them and put them off."""
    await put(one, *events)
    for event in await one.take_all(len(events)):
        one.queue.later(event, delay)
    await one.refreshed()


def books(server, sink):
    found = server.do("HGETALL", f"{PREFIX}:books:{sink}")
    if not isinstance(found, dict):
        found = dict(zip(found[::2], found[1::2], strict=True))
    return {name.decode(): int(value) for name, value in found.items() if name != b"epoch"}


def balance(server, sink):
    """What the books call pending, and what there is."""
    found = books(server, sink)
    over = sum(value for name, value in found.items() if name not in {"accepted", "bytes"})
    held = server.do("XLEN", f"{PREFIX}:queue:{sink}") + server.do("ZCARD", f"{PREFIX}:later:{sink}")
    return found.get("accepted", 0) - over, held


def size(server, sink):
    """The bytes of the records of a queue."""
    with server.client() as link:
        entries = [len(fields[b"d"]) for _, fields in link.xrange(f"{PREFIX}:queue:{sink}")]
        members = [len(member.partition(b" ")[2]) for member in link.zrange(f"{PREFIX}:later:{sink}", 0, -1)]
    return sum(entries) + sum(members)


def events_of(server, sink):
    with server.client() as link:
        records = [fields[b"d"] for _, fields in link.xrange(f"{PREFIX}:queue:{sink}")]
        records += [member.partition(b" ")[2] for member in link.zrange(f"{PREFIX}:later:{sink}", 0, -1)]
    return [Reader(sink).read(record, None)[0] for record in records]


async def move(queues, *, name="old", to="new", bounds=WIDE, overriding=frozenset(), **options):
    done: Counter[State] = Counter()
    await queues.move(name, to, bounds=bounds, overriding=overriding, **{"progress": done.update, **options})
    return +done


def maker(reason=Reason.ORPHANED):
    return lambda event: of_waiting(event, reason, "the sink old is gone", now=1000.0)


async def bury(queues, *, make=None, most=100_000, **options):
    done: Counter[State] = Counter()
    await queues.dead_letter("old", make or maker(), most=most, **{"progress": done.update, **options})
    return +done


# Finding and looking.


async def test_queues_are_found_among_many_keys(redis_server, line):
    with redis_server.client() as link:
        pipeline = link.pipeline(transaction=False)
        for number in range(5000):
            pipeline.set(f"session:{number}", "x")
        pipeline.execute()
        for key in ("{event-router}:queue:a b", "{other}:queue:x", "event-router:queue:y", "{event-router}:queued:z"):
            link.xadd(key, {"d": "x"})
        link.zadd("{event-router}:later:only-later", {"1-0/0 x": 1})
    await put(line(redis_server.url, sink="old"), *numbered(3))
    await put(line(redis_server.url, sink="new"), *numbered(1))
    async with queues_of(redis_server) as queues:
        assert await queues.names() == ["new", "old", "only-later"]
        assert await queues.waiting() == {"new": 1, "old": 3, "only-later": 1}
        assert await queues.waiting(["old", "nobody"]) == {"old": 3}
        assert await queues.look("nobody") == (0, 0, 0, 0, None, None)
    async with queues_of(redis_server, prefix="other") as queues:
        assert await queues.names() == ["x"]


async def test_what_a_queue_holds_is_told_apart(redis_server, line):
    one = line(redis_server.url, sink="old", hold=5).start()
    await defer(one, numbered(2, received_at=datetime(2026, 1, 1, tzinfo=UTC)), 100)
    await put(one, *numbered(7, received_at=datetime(2026, 2, 1, tzinfo=UTC)))
    # The router reads more when half of what it holds is taken: so it may hold three, four or five.
    await one.until(lambda: not one.inbox.waiting and redis_server.do("XPENDING", OLD, "event-router")["pending"] > 2)
    async with queues_of(redis_server) as queues:
        found = await queues.look("old")
        assert found[:2] == (7 - found.in_flight, 2)
        assert 3 <= found.in_flight == found.kept <= 5
        assert found.oldest == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        assert found.next_due.at > time.time()
        assert (found.next_due.attempts, found.next_due.error) == (0, None)
        assert (found.held, found.free) == (9, 9 - found.in_flight)
        await one.die()
        assert (await queues.look("old")).kept == found.in_flight
        await moment(0.1)
        assert (await queues.look("old", idle=0.05)).kept == 0


async def test_what_is_no_record_has_no_age(redis_server):
    redis_server.do("XADD", OLD, "*", "d", "hello")
    redis_server.do("XADD", OLD, "*", "d", msgspec.msgpack.encode([1, "id", "no number"]))
    redis_server.do("ZADD", OLD_LATER, 1, "nothing")
    async with queues_of(redis_server) as queues:
        assert await queues.look("old") == (2, 1, 0, 0, None, Due(0.001, 0, None))


# Moving.


async def test_moved_deliveries_are_delivered_by_the_other_sink_and_both_books_balance(redis_server, line):
    one = line(redis_server.url, sink="old").start()
    await defer(one, numbered(30, begin=1000), 0.2)
    await one.end()
    total = 2 * AT_ONCE + 7
    await put(line(redis_server.url, sink="old"), *numbered(total))
    async with queues_of(redis_server) as queues:
        assert await move(queues) == {State.TAKEN: total + 30}
        assert await queues.waiting() == {"new": total + 30}
    assert balance(redis_server, "old") == (0, 0)
    assert balance(redis_server, "new") == (total + 30, total + 30)
    assert books(redis_server, "old") == {"accepted": total + 30, "handed_over": total + 30, "bytes": 0}
    assert books(redis_server, "new") == {"accepted": total + 30, "bytes": size(redis_server, "new")}
    two = line(redis_server.url, sink="new").start()
    taken = await two.deliver_all(total + 30)
    in_line = [int(event.raw) for event in taken if int(event.raw) < 1000]
    assert in_line == list(range(total)), "what was in line keeps its order"
    assert {int(event.raw) for event in taken} == {*range(total), *range(1000, 1030)}
    book = await two.refreshed()
    assert (book.accepted, book.delivered, book.pending) == (total + 30, total + 30, 0)
    again = line(redis_server.url, sink="old").start()
    book = await again.refreshed()
    assert (book.accepted, book.handed_over, book.dropped, book.pending) == (total + 30, total + 30, {}, 0)


async def test_a_moved_delivery_is_new_to_the_other_sink_but_due_when_it_was(redis_server, line):
    one = line(redis_server.url, sink="old", overriding=frozenset({"r"})).start()
    await put(one, make_event(b"1", headers={"a": "b"}, address="a@x"))
    (event,) = await one.take()
    due = time.time() + 100
    one.queue.later(msgspec.structs.replace(event, attempt=3, _history=History(1.0, 2, "no answer")), 100)
    await one.refreshed()
    with redis_server.client() as link:
        ((_, score),) = link.zrange(OLD_LATER, 0, -1, withscores=True)
    async with queues_of(redis_server) as queues:
        assert await move(queues) == {State.TAKEN: 1}
    with redis_server.client() as link:
        ((member, kept),) = link.zrange(NEW_LATER, 0, -1, withscores=True)
    assert kept == score == pytest.approx(due * 1000, abs=2000)
    assert member.partition(b" ")[0].endswith(b"/100000"), "its delay in milliseconds goes with it"
    moved, orphan = Reader("new").read(member.partition(b" ")[2], None)
    assert (moved.id, moved.sink, moved.headers, moved.address) == (event.id, "new", {"a": "b"}, "a@x")
    assert (moved.attempt, moved._history, orphan) == (1, None, False)
    async with queues_of(redis_server) as queues:
        await move(queues, name="new", to="old", overriding=frozenset({"r"}))
    with redis_server.client() as link:
        (member,) = link.zrange(OLD_LATER, 0, -1)
    assert Reader("old").read(member.partition(b" ")[2], None)[1], "its route replaces options of that sink"


async def test_the_same_event_that_waits_for_both_sinks_stays_two_deliveries(redis_server):
    (record,) = pack([make_event(b"1")])
    for key in (OLD_LATER, NEW_LATER):
        redis_server.do("ZADD", key, "12345", b"1-0/0 " + record)
    async with queues_of(redis_server) as queues:
        assert await move(queues) == {State.TAKEN: 1}
        assert await move(queues, name="new", to="old") == {State.TAKEN: 2}
        assert await move(queues) == {State.TAKEN: 2}
    assert redis_server.do("ZCARD", NEW_LATER) == 2


@pytest.mark.parametrize("bound", ["events", "bytes"])
async def test_it_ends_where_the_other_queue_is_full(start_server, line, bound):
    server = start_server("redis")
    old, new = line(server.url, sink="old").start(), line(server.url, sink="new")
    await defer(old, numbered(10, begin=100), 100)
    await old.end()
    await put(line(server.url, sink="old"), *numbered(300))
    await put(new, *numbered(50))
    fitting = 250
    bounds = {"events": Bounds(50 + fitting, WIDE.bytes), "bytes": Bounds(1000, size(server, "new") * 6)}[bound]
    async with queues_of(server) as queues:
        done = await move(queues, bounds=bounds)
        assert done[State.NO_ROOM] == 1
        moved = done[State.TAKEN]
        assert moved == fitting if bound == "events" else 240 <= moved <= 260
        assert (await queues.look("old")).held == 310 - moved
        assert (await move(queues, bounds=bounds)) == {State.NO_ROOM: 1}
        assert (await move(queues))[State.TAKEN] == 310 - moved
    assert balance(server, "old") == (0, 0)
    assert balance(server, "new") == (360, 360)
    assert books(server, "new")["bytes"] == size(server, "new")
    assert [int(event.raw) for event in events_of(server, "new")[50:350]] == list(range(300))


@pytest.mark.parametrize("limit", [1, AT_ONCE, AT_ONCE + 1, 405, 1000])
async def test_a_limit_is_kept_exactly(start_server, line, limit):
    server = start_server("valkey")
    one = line(server.url, sink="old").start()
    await defer(one, numbered(10), 100)
    await one.end()
    await put(line(server.url, sink="old"), *numbered(400))
    async with queues_of(server) as queues:
        assert (await move(queues, limit=limit))[State.TAKEN] == min(limit, 410)
        assert (await queues.waiting()).get("old", 0) == max(410 - limit, 0)


async def test_what_a_living_router_has_in_hand_stays_and_is_settled_there(redis_server, line):
    one = line(redis_server.url, sink="old", hold=5).start()
    await put(one, *numbered(20))
    await one.until(lambda: redis_server.do("XPENDING", OLD, "event-router")["pending"] == 5)
    async with queues_of(redis_server) as queues:
        done = await move(queues)
        assert done == {State.TAKEN: 15, State.IN_FLIGHT: 5}
    one.deliver(await one.take_all(5))
    book = await one.refreshed()
    assert (book.accepted, book.delivered, book.handed_over, book.pending) == (20, 5, 15, 0)
    assert [int(event.raw) for event in events_of(redis_server, "new")] == list(range(5, 20))


async def test_what_a_dead_router_had_in_hand_is_taken_when_nobody_has_renewed_it(redis_server, line):
    one = line(redis_server.url, sink="old").start()
    await put(one, *numbered(8))
    await one.take_all(8)
    await one.die()
    async with queues_of(redis_server) as queues:
        assert await move(queues) == {State.IN_FLIGHT: 8}
        await moment(0.3)
        assert await move(queues, idle=0.2) == {State.TAKEN: 8}
    assert redis_server.do("XPENDING", OLD, "event-router")["pending"] == 0
    assert balance(redis_server, "old") == (0, 0)


async def test_what_a_router_set_free_at_its_end_is_taken_at_once(redis_server, line):
    one = line(redis_server.url, sink="old").start()
    await put(one, *numbered(8))
    await one.take_all(8)
    await one.end()
    assert redis_server.do("XPENDING", OLD, "event-router")["pending"] == 8
    async with queues_of(redis_server) as queues:
        assert (await queues.look("old")).kept == 0
        assert await move(queues) == {State.TAKEN: 8}


async def test_a_consumer_that_is_heard_of_keeps_what_it_renews_seldom(redis_server, line):
    """Its sink may be gone from the configuration that we know, and have had a long timeout in its own."""
    one = line(redis_server.url, sink="old", idle=600.0).start()
    await put(one, *numbered(3))
    taken = await one.take_all(3)
    with redis_server.client() as link:
        link.xclaim(OLD, "event-router", "one", 0, [taken[0]._receipt], idle=90_000, justid=True, retrycount=1)
    async with queues_of(redis_server) as queues:
        assert (await queues.look("old")).kept == 3
        assert await move(queues) == {State.IN_FLIGHT: 3}


async def test_a_group_that_was_destroyed_holds_nothing(redis_server, line):
    one = line(redis_server.url, sink="old").start()
    await put(one, *numbered(3))
    await one.take_all(3)
    await one.die()
    redis_server.do("XGROUP", "DESTROY", OLD, "event-router")
    async with queues_of(redis_server) as queues:
        assert await queues.look("old") == (3, 0, 0, 0, make_event().received_at.timestamp(), None)
        assert await move(queues) == {State.TAKEN: 3}


async def test_records_that_cannot_be_read_stay(redis_server, line):
    newer = msgspec.msgpack.encode([99, "x"])
    for word in (newer, b"hello"):
        redis_server.do("XADD", OLD, "*", "d", word)
    redis_server.do("ZADD", OLD_LATER, "5", b"1-0/0 " + newer)
    redis_server.do("ZADD", OLD_LATER, "6", b"1-0/1 " + pack([make_event(b"1")])[0])
    await put(line(redis_server.url, sink="old"), *numbered(3))
    async with queues_of(redis_server) as queues:
        assert await move(queues) == {State.TAKEN: 4, State.UNREADABLE: 3}
        assert await bury(queues) == {State.UNREADABLE: 3}
    assert redis_server.do("XLEN", OLD) == 2
    assert redis_server.do("ZCARD", OLD_LATER) == 1


async def test_an_answer_that_is_lost_moves_nothing_twice(redis_server, line):
    total = 2 * AT_ONCE
    await put(line(redis_server.url, sink="old"), *numbered(total))
    done: Counter[State] = Counter()
    async with Proxy(redis_server.port) as proxy, queues_of(redis_server, proxy.url, patience=3.0) as queues:

        def progress(states):
            done.update(states)
            proxy.blackhole(DOWN)

        with pytest.raises(UnavailableError):
            await move(queues, progress=progress)
        assert done == {State.TAKEN: AT_ONCE}
        proxy.heal()
        proxy.cut()
        await move(queues)
    assert balance(redis_server, "old") == (0, 0)
    assert balance(redis_server, "new") == (total, total)
    assert sorted(int(event.raw) for event in events_of(redis_server, "new")) == list(range(total))


async def test_a_script_sent_twice_moves_once(redis_server, line):
    await put(line(redis_server.url, sink="old"), *numbered(5))
    async with queues_of(redis_server) as queues:
        sent = queues.script

        async def twice(script, keys, words):
            await sent(script, keys, words)
            return await sent(script, keys, words)

        queues.script = twice
        assert await move(queues) == {State.GONE: 5}
        await put(line(redis_server.url, sink="old"), *numbered(5, begin=5))
        assert await bury(queues) == {State.GONE: 5}
    assert balance(redis_server, "old") == (0, 0)
    assert [int(event.raw) for event in events_of(redis_server, "new")] == list(range(5))
    assert redis_server.do("XLEN", DEAD) == 5


async def test_what_comes_meanwhile_does_not_keep_it_going(redis_server, line):
    one = line(redis_server.url, sink="old")
    await put(one, *numbered(10))
    (record,) = pack([make_event(b"1")])
    redis_server.do("ZADD", OLD_LATER, "5", b"1-0/0 " + record)
    more = iter(range(10_000))

    def progress(states):
        for _ in range(2):
            redis_server.do("XADD", OLD, "*", "d", record)
            redis_server.do("ZADD", OLD_LATER, "6", b"2-0/%d %s" % (next(more), record))

    async with queues_of(redis_server) as queues:
        async with asyncio.timeout(PATIENCE):
            await move(queues, progress=progress)
        assert 0 < (await queues.look("old")).held < 20


async def test_two_commands_at_once_share_the_work(redis_server, line):
    total = 2000
    await put(line(redis_server.url, sink="old"), *numbered(total))
    async with queues_of(redis_server) as one, queues_of(redis_server) as two:
        done = await asyncio.gather(move(one), move(two, to="third"))
    assert sum(each[State.TAKEN] for each in done) == total
    held = [int(event.raw) for sink in ("new", "third") for event in events_of(redis_server, sink)]
    assert sorted(held) == list(range(total))


async def test_large_records_travel_in_small_batches(redis_server, line):
    large = [make_event(b'"%s"' % (b"x" * 700_000)) for _ in range(5)]
    await put(line(redis_server.url, sink="old"), *large)
    sizes = []
    async with queues_of(redis_server) as queues:
        await move(queues, progress=lambda states: sizes.append(len(states)))
    assert sizes == [1] * 5


# Giving up.


async def test_dead_letters_hold_the_delivery_and_the_books_balance(redis_server, line):
    one = line(redis_server.url, sink="old").start()
    await put(one, make_event(b'{"n": 1}', id="e-1", headers={"a": "b"}, address="a@x", pattern="c*"))
    (event,) = await one.take()
    again = msgspec.structs.replace(event, attempt=3, _history=History(1.0, 2, "503 from the other side"))
    one.queue.later(again, 100)
    await one.refreshed()
    await one.end()
    await put(line(redis_server.url, sink="old"), *numbered(AT_ONCE + 5))
    async with queues_of(redis_server) as queues:
        assert await bury(queues) == {State.TAKEN: AT_ONCE + 6}
        assert await queues.letters() == AT_ONCE + 6
    assert balance(redis_server, "old") == (0, 0)
    assert books(redis_server, "old")["dead_lettered:orphaned"] == AT_ONCE + 6
    assert books(redis_server, "old")["bytes"] == 0
    with redis_server.client() as link:
        letters = [fields for _, fields in link.xrange(DEAD)]
    assert [fields[b"payload"] for fields in letters[:-1]] == [b"%d" % number for number in range(AT_ONCE + 5)]
    assert letters[0][b"detail"] == b"the sink old is gone"
    last = letters[-1]
    assert last == {
        b"version": b"1",
        b"id": last[b"id"],
        b"event_id": b"e-1",
        b"reason": b"orphaned",
        b"detail": b"the sink old is gone (last error: 503 from the other side)",
        b"source": b"web",
        b"channel": b"c",
        b"pattern": b"c*",
        b"headers": b'{"a":"b"}',
        b"route": b"r",
        b"sink": b"old",
        b"address": b"a@x",
        b"key": b"e-1:r:old:a@x",
        b"attempts": b"2",
        b"received_at": b"2026-01-02T00:00:00.000000Z",
        b"failed_at": b"1970-01-01T00:16:40.000000Z",
        b"payload": b'{"n": 1}',
    }
    assert len({fields[b"id"] for fields in letters}) == AT_ONCE + 6
    again = line(redis_server.url, sink="old").start()
    book = await again.refreshed()
    assert (book.dead_lettered, book.dropped, book.pending) == ({Reason.ORPHANED: AT_ONCE + 6}, {}, 0)


async def test_no_letter_is_evicted_for_a_new_one(redis_server, line):
    for _ in range(3):
        redis_server.do("XADD", DEAD, "*", "id", "x")
    await put(line(redis_server.url, sink="old"), *numbered(10))
    async with queues_of(redis_server) as queues:
        assert await bury(queues, most=7) == {State.TAKEN: 4, State.NO_ROOM: 1}
        assert await bury(queues, most=7, limit=2) == {State.NO_ROOM: 1}
    assert balance(redis_server, "old") == (6, 6)
    assert redis_server.do("XLEN", DEAD) == 7


async def test_letters_leave_alone_what_is_in_hand_and_keep_the_limit(redis_server, line):
    one = line(redis_server.url, sink="old", hold=5).start()
    await put(one, *numbered(20))
    await one.until(lambda: redis_server.do("XPENDING", OLD, "event-router")["pending"] == 5)
    async with queues_of(redis_server) as queues:
        assert (await bury(queues, limit=3))[State.TAKEN] == 3
        assert await bury(queues, make=maker(Reason.EXHAUSTED)) == {State.TAKEN: 12, State.IN_FLIGHT: 5}
    taken = await one.take_all(5)
    one.queue.settle(taken, 5, Outcome.DELIVERED)
    book = await one.refreshed()
    assert (book.delivered, book.dead_lettered) == (5, {Reason.ORPHANED: 3, Reason.EXHAUSTED: 12})
    assert book.pending == 0


# What is not allowed, or wrong.


RULES = (
    "~{event-router}:queue:* ~{event-router}:later:*",  # no books, no letters
    "~{event-router}:*:old",
    *("~* -" + command for command in ("xdel", "xadd", "zrem", "xack", "hincrby", "xinfo", "xpending")),
)


@pytest.mark.parametrize(
    ("act", "rules"), [*((act, rule) for act in (move, bury) for rule in RULES), (move, "~* -zadd")]
)
async def test_a_missing_permission_moves_nothing(redis_server, line, act, rules):
    one = line(redis_server.url, sink="old").start()
    await defer(one, numbered(3), 100)
    await one.end()
    await put(line(redis_server.url, sink="old"), *numbered(3))
    before = books(redis_server, "old")
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", *rules.split())
    async with queues_of(redis_server, f"redis://bob:pw@127.0.0.1:{redis_server.port}") as queues:
        with pytest.raises(ConfigError, match=r"permission|can.t access|script"):
            await act(queues)
    assert balance(redis_server, "old") == (6, 6)
    assert balance(redis_server, "new") == (0, 0)
    assert books(redis_server, "old") == before
    assert redis_server.do("XLEN", DEAD) == 0


@pytest.mark.parametrize("key", [NEW, NEW_LATER, f"{PREFIX}:books:new", f"{PREFIX}:books:old", DEAD])
async def test_a_key_of_a_wrong_type_moves_nothing(redis_server, line, key):
    (record,) = pack([make_event(b"1")])
    redis_server.do("XADD", OLD, "*", "d", record)
    redis_server.do("ZADD", OLD_LATER, "5", b"1-0/0 " + record)
    redis_server.do("SET", key, "x")
    act = bury if key == DEAD else move
    async with queues_of(redis_server) as queues:
        with pytest.raises(ConfigError, match="WRONGTYPE"):
            await act(queues)
        assert (await queues.look("old")).held == 2


async def test_a_full_redis_still_lets_deliveries_move(redis_server, line):
    await put(line(redis_server.url, sink="old"), *numbered(10))
    redis_server.do("CONFIG", "SET", "maxmemory", "1")
    async with queues_of(redis_server) as queues:
        assert (await move(queues, limit=5))[State.TAKEN] == 5
        assert (await bury(queues))[State.TAKEN] == 5, "what moves takes hardly more room"


async def test_no_redis_is_told_in_plain_words():
    async with QueueAdmin(client.server("redis://127.0.0.1:1"), prefix="event-router") as queues:
        with pytest.raises(UnavailableError, match="connection refused"):
            await queues.names()


def test_how_long_an_entry_in_hand_is_left_alone():
    assert (claim_idle_of(None), claim_idle_of(10.0), claim_idle_of(45.0)) == (IDLE, 60.0, 90.0)
