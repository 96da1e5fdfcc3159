"""Handing deliveries over to Redis queues: once, in order, with bounded memory."""

import asyncio

import pytest
import structlog

from router.broker.server.outage import KINDS
from router.contracts import Removal
from router.core.accounts.books import Books, ProcessBook
from router.core.accounts.records import pack
from router.errors import Reason
from router.events import Outcome
from tests.support.engine import make_event
from tests.support.proxy import DOWN, Proxy
from tests.support.queues import Line
from tests.support.receipts import NeutralReceipt
from tests.support.waiting import PATIENCE

STREAM = "{event-router}:queue:s"
MARKS = "{event-router}:handed-over"


@pytest.fixture
async def line():
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes))
        return made[-1]

    yield make
    for one in made:
        await one.die()


class Receipt(NeutralReceipt):
    """Keeps what is over; offers the script nothing."""

    def __init__(self):
        self.over = []

    def settle(self, position):
        self.over.append(position)


class Removable(Receipt):
    """Offers `removals` where all that is open is handed over, `partly` where other deliveries are open too."""

    def __init__(self, removals, deliveries=1, partly=None):
        super().__init__()
        self.removals = removals
        self.partly = partly or removals
        self.deliveries = deliveries
        self.handed = []
        self.marks = []

    def open(self, position):
        return self.deliveries

    def removal(self, position, *, whole):
        return self.removals[position] if whole else self.partly[position]

    def handed_over(self, position):
        self.handed.append(position)

    def marked(self, position):
        self.marks.append(position)


def entries(count, receipt, **fields):
    return [make_event(b"%d" % n, _receipt=receipt, _position=n, **fields) for n in range(count)]


def appended(server, stream=STREAM):
    return server.do("XLEN", stream)


async def test_a_batch_whose_answer_is_lost_is_appended_once(redis_server, line):
    async with Proxy(redis_server.port) as proxy:
        one = line(proxy.url)
        one.put(make_event(b"known"))
        await one.until(lambda: not one.inbox.waiting)
        proxy.blackhole(DOWN)
        one.put(*[make_event(b"%d" % n) for n in range(10)])
        await one.until(lambda: appended(redis_server) == 11)
        assert one.inbox.waiting == 10
        proxy.heal()
        proxy.cut()
        await one.until(lambda: not one.inbox.waiting)
        one.put(make_event(b"next"))
        await one.until(lambda: not one.inbox.waiting)
    assert appended(redis_server) == 12
    assert redis_server.do("HGET", "{event-router}:books:s", "accepted") == b"12"


async def test_an_outage_is_bounded_in_memory_and_its_drops_are_counted(redis_server, line):
    sample = make_event(b"00", id="e" * 10, channel="c0")
    one = line(redis_server.url, outage_buffer=100 * len(pack([sample])[0]))
    redis_server.pause()
    with structlog.testing.capture_logs() as logs:
        for n in range(250):
            one.put(make_event(b"%02d" % (n % 100), id=f"e{n:09}", channel=f"c{n % 2}"))
        assert (one.inbox.waiting, one.book.dropped) == (100, {Reason.OUTAGE: 150})
        assert one.book.dropped_by_channel == {"c0": 75, "c1": 75}
        redis_server.resume()
        await one.until(lambda: not one.inbox.waiting)
    assert appended(redis_server) == 100
    assert one.enqueuer.buffer.used == 0
    one.start()
    await one.refreshed()
    one.put(make_event())
    await one.until(lambda: not one.inbox.waiting)
    book = await one.refreshed()
    assert (book.accepted, book.dropped, book.pending) == (251, {Reason.OUTAGE: 150}, 101)
    assert sum("outage buffer is full" in entry["event"] for entry in logs) == 1


async def test_deliveries_wait_through_a_restart_of_redis(start_server, kind, line):
    server = start_server(kind, options={"appendonly": "yes"})
    one = line(server.url)
    one.put(make_event(b"0"))
    await one.until(lambda: not one.inbox.waiting)
    server.stop()
    with structlog.testing.capture_logs() as logs:
        for n in range(1, 1500):
            one.put(make_event(b"%d" % n))
        await one.until(lambda: one.enqueuer.reason)
        server.start()
        await one.until(lambda: not one.inbox.waiting)
    assert appended(server) == 1500
    # One line for each reason: the connection ended, was refused, the server was loading.
    begins, ends = "deliveries can't be queued in Redis; they wait in memory", "deliveries are queued in Redis again"
    assert [line["event"] for line in logs if line["event"] != begins] == [ends]
    assert [line["event"] for line in logs].index(ends) == len(logs) - 1 <= KINDS
    one.start()
    assert [int(event.raw) for event in await one.take_all(1500)] == list(range(1500))


async def test_an_acknowledged_entry_is_over_once_it_is_appended(redis_server, line):
    one = line(redis_server.url)
    receipt = Receipt()
    one.put(*entries(1200, receipt))
    await one.until(lambda: not one.inbox.waiting)
    assert receipt.over == list(range(1200))
    assert appended(redis_server) == 1200


async def test_a_full_queue_holds_acknowledged_sources_back_and_nobody_else(redis_server, line):
    one = line(redis_server.url, config={"max_events": 30})
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    receipt = Receipt()
    with structlog.testing.capture_logs() as logs:
        one.put(*entries(100, receipt, source="stream"))
        await one.until(lambda: len(receipt.over) == 30)
        two.put(make_event(source="web"))
        await one.until(lambda: not two.inbox.waiting)
        assert receipt.over == list(range(30))
        one.start()
        taken = await one.deliver_all(100)
        await one.until(lambda: not one.inbox.waiting)
    assert [int(event.raw) for event in taken] == list(range(100))
    assert receipt.over == list(range(100))
    assert (await one.refreshed()).dropped == {}
    assert sum("are paused" in entry["event"] for entry in logs) == 1


async def test_a_queue_that_drops_does_so_for_acknowledged_sources_too(redis_server, line):
    one = line(redis_server.url, config={"max_events": 30, "when_full": "drop-newest"})
    receipt = Receipt()
    one.put(*entries(100, receipt, channel="orders"))
    await one.until(lambda: not one.inbox.waiting)
    assert receipt.over == list(range(100))
    assert appended(redis_server) == 30
    assert one.book.dropped_by_channel == {"orders": 70}


def pending_stream(server, count):
    server.do("XGROUP", "CREATE", "in", "g", "0", "MKSTREAM")
    ids = [server.do("XADD", "in", "*", "payload", n) for n in range(count)]
    server.do("XREADGROUP", "GROUP", "g", "c", "COUNT", count, "STREAMS", "in", ">")
    return ids


class Disputable(Removable):
    """Hears of entries that Redis does not know any more, and of those that it gave to another router."""

    def __init__(self, removals, **options):
        super().__init__(removals, **options)
        self.forgotten = []
        self.taken = []

    def gone(self, position):
        self.forgotten.append(position)

    def taken_over(self, position):
        self.taken.append(position)


def stream_entries(ids, **options):
    return Disputable([Removal("xack", "in", "g", id_, "c") for id_ in ids], **options)


def process_of(*lines):
    return Books({}, {line.inbox.sink: line.book for line in lines}).process


async def test_the_script_acknowledges_what_it_appends(redis_server, line):
    one = line(redis_server.url)
    receipt = stream_entries(pending_stream(redis_server, 5))
    one.put(*entries(5, receipt))
    await one.until(lambda: not one.inbox.waiting)
    assert (receipt.handed, receipt.over) == ([0, 1, 2, 3, 4], [])
    assert appended(redis_server) == 5
    assert redis_server.do("XPENDING", "in", "g")["pending"] == 0


async def test_only_what_redis_says_is_another_routers_is_left_to_it(redis_server, line):
    """Entry 1 is a peer's by now, entry 2 nobody's: it was acknowledged, or trimmed and forgotten."""
    one = line(redis_server.url)
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    ids = pending_stream(redis_server, 4)
    with redis_server.client() as client:
        client.xclaim("in", "g", "peer", 0, [ids[1]], justid=True)
    redis_server.do("XACK", "in", "g", ids[2])
    receipt = stream_entries(ids, deliveries=2)
    for each in (one, two):
        each.put(*entries(4, receipt))
        each.book.planned += 4
    with structlog.testing.capture_logs() as logs:
        await one.until(lambda: not one.inbox.waiting and not two.inbox.waiting)
    assert (receipt.taken, receipt.forgotten, receipt.marks) == ([1], [2], [2])
    assert sorted(receipt.over) == [2, 2]
    assert sorted(receipt.handed) == [0, 0, 1, 1, 3, 3]
    assert appended(redis_server) == appended(redis_server, "{event-router}:queue:other") == 3
    assert redis_server.do("XPENDING", "in", "g")["consumers"] == [{"name": b"peer", "pending": 1}]
    assert [(entry["number"], "another router" in entry["event"]) for entry in logs] == [(1, True)]
    book = process_of(one, two)
    assert book == ProcessBook(planned=8, accepted=6, on_their_way=0, left=2)
    assert not book.difference


async def test_what_redis_does_not_know_is_appended_by_one_router_alone(redis_server, line):
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 3)
    redis_server.do("XACK", "in", "g", *ids)
    first, again = stream_entries(ids), stream_entries(ids)
    one.put(*entries(3, first))
    await one.until(lambda: not one.inbox.waiting)
    one.put(*entries(3, again, source="as after a kill before the marks were removed"))
    await one.until(lambda: not one.inbox.waiting)
    assert first.over == again.over == [0, 1, 2]
    assert first.marks == again.marks == [0, 1, 2], "who acknowledges them removes the marks too"
    assert appended(redis_server) == 3
    one.book.planned = 6
    assert process_of(one) == ProcessBook(planned=6, accepted=3, on_their_way=0, left=3)


async def test_what_redis_does_not_know_waits_for_room_like_any_other(redis_server, line):
    one = line(redis_server.url, config={"max_events": 2})
    ids = pending_stream(redis_server, 5)
    redis_server.do("XACK", "in", "g", *ids)
    receipt = stream_entries(ids)
    one.book.planned += 5
    one.put(*entries(5, receipt))
    await one.until(lambda: len(receipt.over) == 2)
    assert process_of(one) == ProcessBook(planned=5, accepted=2, on_their_way=3, left=0)
    one.start()
    await one.deliver_all(5)
    await one.until(lambda: not one.inbox.waiting)
    assert receipt.over == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "how", [("XGROUP", "DESTROY", "in", "g"), ("DEL", "in"), ("FLUSHALL",), ("SET", "in", "no stream any more")]
)
async def test_entries_of_a_group_that_is_gone_are_appended(redis_server, line, how):
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 5)
    redis_server.do(*how)
    receipt = stream_entries(ids)
    one.put(*entries(5, receipt))
    await one.until(lambda: not one.inbox.waiting)
    assert (receipt.forgotten, receipt.over) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert appended(redis_server) == 5


@pytest.mark.parametrize("how", [("XTRIM", "in", "MAXLEN", "=", 2), ("XDEL", "in")])
async def test_entries_that_were_trimmed_while_a_queue_was_full_are_appended(redis_server, line, how):
    one = line(redis_server.url, config={"max_events": 2})
    ids = pending_stream(redis_server, 8)
    receipt = stream_entries(ids)
    one.put(*entries(8, receipt))
    await one.until(lambda: len(receipt.handed) == 2)
    redis_server.do(*how, *(ids if how[0] == "XDEL" else ()))
    one.start()
    taken = await one.deliver_all(8)
    await one.until(lambda: not one.inbox.waiting)
    assert [int(event.raw) for event in taken] == list(range(8))
    assert receipt.handed == list(range(8))


@pytest.mark.parametrize("peers", [False, True])
async def test_entries_of_a_stream_of_our_own_are_deleted_as_they_are_appended(redis_server, line, peers):
    """Not those that are another router's; one that was appended before is deleted all the same."""
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 3)
    if peers:
        with redis_server.client() as client:
            client.xclaim("in", "g", "peer", 0, [ids[1]], justid=True)
    redis_server.do("HSET", MARKS, b"in g " + ids[2], 1)
    receipt = Disputable([Removal("xdel", "in", "g", id_, "c") for id_ in ids])
    one.put(*entries(3, receipt))
    await one.until(lambda: not one.inbox.waiting)
    assert (receipt.handed, receipt.taken) == ([0, 1, 2], [1] if peers else [])
    with redis_server.client() as client:
        assert [entry for entry, _ in client.xrange("in")] == ([ids[1]] if peers else [])
        assert client.xpending("in", "g")["pending"] == peers
        assert client.exists(MARKS) == 0
    assert appended(redis_server) == 2 - peers
    one.book.planned = 3
    assert process_of(one) == ProcessBook(planned=3, accepted=2 - peers, on_their_way=0, left=1 + peers)


async def test_an_entry_with_other_deliveries_open_is_marked_and_appended_once(redis_server, line):
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 1)
    for deliveries in (2, 2, 1):  # the later times as after a crash before it was acknowledged
        receipt = Removable(
            [Removal("xack", "in", "g", ids[0], "c")], deliveries, partly=[Removal("mark", "in", "g", ids[0], "c")]
        )
        assert redis_server.do("XPENDING", "in", "g")["pending"] == 1
        one.put(*entries(1, receipt))
        await one.until(lambda: not one.inbox.waiting)
        if deliveries == 2:
            assert (receipt.over, receipt.handed, receipt.marks) == ([0], [], [0])
            assert redis_server.do("HKEYS", MARKS) == [b"in g " + ids[0]]
    assert receipt.handed == [0]
    assert appended(redis_server) == 1
    assert redis_server.do("EXISTS", MARKS) == 0
    assert redis_server.do("XPENDING", "in", "g")["pending"] == 0


async def test_a_queue_that_came_later_gets_an_entry_that_another_queue_had(redis_server, line):
    """As after a restart with another configuration: sink `s` was in Redis before, `other` and a second route are new there."""
    one = line(redis_server.url)
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    (id_,) = pending_stream(redis_server, 1)
    mark, xack = Removal("mark", "in", "g", id_, "c"), Removal("xack", "in", "g", id_, "c")
    lines, planned = {"s": one, "other": two}, 0
    for sinks, names, removal in (
        (["s"], b" all:s ", mark),
        (["s", "other"], b" all:s all:other ", mark),
        (["s", "other"], b" all:s all:other ", mark),
        (["s", "more", "other"], None, xack),
    ):
        receipt = Removable([removal], len(sinks) + (removal is mark))
        for sink in sinks:
            each, route = lines.get(sink, one), "more" if sink == "more" else "all"
            each.put(*entries(1, receipt, route=route))
            each.book.planned += 1
        await one.until(lambda: not one.inbox.waiting and not two.inbox.waiting)
        assert redis_server.do("HGET", MARKS, b"in g " + id_) == names
        planned += len(sinks)
    assert (appended(redis_server), appended(redis_server, "{event-router}:queue:other")) == (2, 1)
    assert process_of(one, two) == ProcessBook(planned=planned, accepted=3, on_their_way=0, left=planned - 3)
    assert redis_server.do("XPENDING", "in", "g")["pending"] == 0


async def test_what_is_new_of_an_entry_that_redis_does_not_know_is_appended_once(redis_server, line):
    one = line(redis_server.url)
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    ids = pending_stream(redis_server, 3)
    partly = Removable([Removal("mark", "in", "g", id_, "c") for id_ in ids], deliveries=2)
    one.put(*entries(3, partly))
    await one.until(lambda: not one.inbox.waiting)
    redis_server.do("XACK", "in", "g", *ids)
    for _ in range(2):
        receipt = stream_entries(ids, deliveries=2)
        for each in (one, two):
            each.put(*entries(3, receipt))
        await one.until(lambda: not one.inbox.waiting and not two.inbox.waiting)
        assert (receipt.forgotten, receipt.marks) == ([0, 1, 2], [0, 1, 2])
    assert appended(redis_server) == appended(redis_server, "{event-router}:queue:other") == 3


async def test_a_full_queue_holds_nothing_back_that_stands_in_it_already(redis_server, line):
    one = line(redis_server.url, config={"max_events": 3})
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    ids = pending_stream(redis_server, 3)
    one.put(*entries(3, Removable([Removal("mark", "in", "g", id_, "c") for id_ in ids], deliveries=2)))
    await one.until(lambda: not one.inbox.waiting)
    receipt = stream_entries(ids, deliveries=2)
    for each in (one, two):
        each.put(*entries(3, receipt))
    await one.until(lambda: not one.inbox.waiting and not two.inbox.waiting)
    assert appended(redis_server) == appended(redis_server, "{event-router}:queue:other") == 3


async def test_deliveries_that_join_an_entry_while_its_queue_is_full_replace_none(redis_server, line):
    """As when a reload moves the queue of another sink to Redis."""
    one = line(redis_server.url, config={"max_events": 2})
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    receipt = stream_entries(pending_stream(redis_server, 6), deliveries=2)
    with structlog.testing.capture_logs() as logs:
        one.put(*entries(6, receipt))
        await one.until(lambda: [entry for entry in logs if "are paused" in entry["event"]])
    two.put(*entries(6, receipt))
    one.start()
    taken = await one.deliver_all(6)
    await one.until(lambda: not one.inbox.waiting and not two.inbox.waiting)
    assert sorted(int(event.raw) for event in taken) == list(range(6))
    assert appended(redis_server, "{event-router}:queue:other") == 6


async def test_a_mark_of_an_older_router_stands_for_all_queues(redis_server, line):
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 2)
    for id_ in ids:
        redis_server.do("HSET", MARKS, b"in g " + id_, "17")
    removals = [Removal("mark", "in", "g", ids[0], "c"), Removal("xack", "in", "g", ids[1], "c")]
    one.put(*entries(2, Removable(removals)))
    one.book.planned += 2
    await one.until(lambda: not one.inbox.waiting)
    assert redis_server.do("HGETALL", MARKS) == {b"in g " + ids[0]: b"17"}
    assert appended(redis_server) == 0
    assert process_of(one) == ProcessBook(planned=2, accepted=0, on_their_way=0, left=2)


async def test_marks_are_of_entries_whatever_the_ids_of_their_events(redis_server, line):
    """Two groups read one stream, and a payload names the id of an event: each entry is appended for each of them."""
    one = line(redis_server.url)
    ids = pending_stream(redis_server, 2)
    for group in ("g", "h"):
        marks = [Removal("mark", "in", group, id_, "c") for id_ in ids]
        one.put(*entries(2, Disputable(marks, deliveries=2), id="order-17", source=group))
    await one.until(lambda: not one.inbox.waiting)
    assert appended(redis_server) == 4


async def test_an_entry_goes_to_all_its_queues_or_to_none(redis_server, line):
    one = line(redis_server.url, config={"max_events": 3})
    two = line(redis_server.url, sink="other", enqueuer=one.enqueuer)
    ids = pending_stream(redis_server, 5)
    receipt = Removable([Removal("xack", "in", "g", id_, "c") for id_ in ids], deliveries=2)
    events = entries(5, receipt)
    one.put(*events)
    two.put(*events)
    await one.until(lambda: appended(redis_server) == 3)
    assert appended(redis_server, "{event-router}:queue:other") == 3
    assert redis_server.do("XPENDING", "in", "g")["pending"] == 2
    one.start()
    one.deliver(await one.take_all(3))
    await one.until(lambda: not one.inbox.waiting)
    assert appended(redis_server, "{event-router}:queue:other") == 5
    assert sorted(receipt.handed) == sorted([*range(5), *range(5)])


async def test_what_could_not_be_handed_over_is_lost_and_told(redis_server, line):
    one = line(redis_server.url)
    redis_server.kill()
    one.put(make_event(), make_event())
    receipt = Receipt()
    one.put(*entries(3, receipt, source="stream"))
    async with asyncio.timeout(PATIENCE):
        assert await one.enqueuer.close(0.2) == {"s": 2}, "the others stay with their source"
    assert one.book.dropped == {Reason.SHUTDOWN: 2}
    assert receipt.over == []


def test_outcomes_are_counters_of_the_books():
    assert {str(outcome) for outcome in Outcome} == {
        "delivered",
        "dead_lettered",
        "dropped",
        "suppressed",
        "handed_over",
        "printed",
    }
