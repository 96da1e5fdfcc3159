"""Items of a list on their way into Redis queues: each is appended once, whatever dies and whenever."""

import asyncio
from collections import Counter

import pytest
import structlog

from router.broker.lists.list_stream import GROUP
from tests.support.engine import make_event
from tests.support.lists import HANDED, NOWHERE, Taker, beside, deliveries, in_flight, items, left, places
from tests.support.proxy import DOWN, Proxy
from tests.support.queues import Line
from tests.support.waiting import PATIENCE, moment, stays, until

QUEUE = "{event-router}:queue:s"


class Router:
    """A list source, the way into the Redis queue of sink `s`, and `memory` sinks whose deliveries stay open."""

    def __init__(self, url, clock, *, queue_url=None, memory=0, consumer="a", queue=None, **changes):
        self.line = Line(queue_url or url, consumer=consumer, config=queue)
        self.memory = memory
        self.received = []
        self.open = []
        self.taker = Taker(url, ["jobs"], self, clock, consumer=consumer, **({"marks": HANDED} | changes))
        self.source = self.taker.source
        self.alive = False

    def receive(self, _source, batches):
        for batch in batches:
            for position, payload in enumerate(batch.payloads, batch.first):
                self.received.append(payload)
                batch.receipt.expect(position, 1 + self.memory)
                self.open += [(payload, batch.receipt, position)] * self.memory
                self.line.put(make_event(payload, source="in", _receipt=batch.receipt, _position=position))

    def refuse(self, _source, batch, _reason, detail):
        raise AssertionError(f"{batch} is refused: {detail}")

    def settle(self, number=None):
        done, self.open = self.open[:number], self.open[number:] if number is not None else []
        for _, receipt, position in done:
            receipt.settle(position)

    async def start(self):
        await self.taker.start()
        self.alive = True
        return self

    async def die(self):
        """End as kill -9 would."""
        self.alive = False
        await self.taker.die()
        await self.line.die()

    async def end(self):
        """End in order."""
        self.alive = False
        await self.taker.stop()
        await self.line.enqueuer.close(1.0)
        await self.taker.end()


@pytest.fixture
async def router(clock):
    """Make a router and start it: `await router(url, **changes)`."""
    made = []

    async def make(url, **changes):
        made.append(Router(url, clock, **changes))
        return await made[-1].start()

    yield make
    for one in made:
        if one.alive:
            await one.end()
        await one.line.die()


def queued(client):
    return [fields[b"d"] for _, fields in client.xrange(QUEUE)]


def marks(client):
    """How many items are known as handed over in part."""
    return int(client.hlen(HANDED))


async def test_items_leave_the_list_as_they_enter_the_queue(redis_server, router):
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.lpush("jobs", *range(250), *[b"same"] * 250)
        one = await router(redis_server.url)
        await until(lambda: client.xlen(QUEUE) == 500)
        for number in range(300):  # one by one and in small bursts, so that moves and hand-overs cross
            client.lpush("jobs", *[b"%d" % number] * (1 + number % 3))
            await asyncio.sleep(0)
        await until(lambda: client.xlen(QUEUE) == 1100 and not one.source.in_flight)
        assert Counter(one.received) == Counter(
            [b"same"] * 250
            + [b"%d" % number for number in range(250)]
            + [b"%d" % number for number in range(300) for _ in range(1 + number % 3)]
        )
        assert left(client) == 0
        await one.end()
        assert client.keys("*jobs*") == [items().encode()]
        assert marks(client) == 0
    assert [entry["event"] for entry in logs] == []


async def test_never_more_in_hand_than_allowed_and_a_full_queue_holds_the_list_back(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", *range(200))
        one = await router(redis_server.url, max_in_flight=20, queue={"max_events": 50})
        await until(lambda: client.xlen(QUEUE) == 50 and one.source.in_flight == 20 and client.llen("jobs") == 130)
        assert len(in_flight(client)) == 20
        one.line.start()
        taken = await one.line.deliver_all(200)
        assert [int(event.raw) for event in taken] == list(range(200))
        await until(lambda: not one.source.in_flight)


async def test_what_was_not_handed_over_at_a_death_is_appended_once(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", *[b"same"] * 10)
        one = await router(redis_server.url, queue={"max_events": 4})
        await until(lambda: client.xlen(QUEUE) == 4 and one.source.in_flight == 6)
        await one.die()
        two = await router(redis_server.url)
        await until(lambda: client.xlen(QUEUE) == 10 and not two.source.in_flight)
        assert len(two.received) == 6
        assert places(client) == NOWHERE


async def test_what_was_handed_over_at_a_death_is_not_taken_again(redis_server, router):
    """The script ran, but its answer never came."""
    with redis_server.client() as client:
        async with Proxy(redis_server.port) as proxy:
            one = await router(redis_server.url, queue_url=proxy.url)
            client.lpush("jobs", b"known")
            await until(lambda: client.xlen(QUEUE) == 1 and not one.source.in_flight)
            proxy.blackhole(DOWN)
            client.lpush("jobs", *[b"same"] * 10)
            await until(lambda: client.xlen(QUEUE) > 1 and proxy.swallowed and one.source.in_flight)
            await one.die()
        before = client.xlen(QUEUE)
        two = await router(redis_server.url)
        await until(lambda: client.xlen(QUEUE) == 11 and not two.source.in_flight)
        assert len(two.received) == 11 - before
        assert places(client) == NOWHERE


async def test_an_item_that_other_sinks_have_in_hand_is_not_appended_again(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", *[b"same"] * 5, b"other")
        one = await router(redis_server.url, memory=1)
        await until(lambda: client.xlen(QUEUE) == 6 and len(one.open) == 6)
        await until(lambda: marks(client) == 6)
        one.settle(2)
        await until(lambda: in_flight(client) == [b"same"] * 3 + [b"other"] and marks(client) == 4)
        await one.die()
        client.lpush("jobs", b"same")  # a new one, equal to those
        two = await router(redis_server.url, memory=1)
        await until(lambda: len(two.open) == 5)
        assert two.received == [b"same"] * 3 + [b"other", b"same"]
        await until(lambda: client.xlen(QUEUE) == 7)
        two.settle()
        await until(lambda: not two.source.in_flight and not left(client))
        assert client.xlen(QUEUE) == 7
        assert marks(client) == 0


async def test_the_other_sinks_may_be_done_before_it_is_handed_over(redis_server, router):
    """Taken again after a death, with its deliveries to other sinks over first: there is nothing to append then either."""
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = await router(redis_server.url, memory=1)
        await until(lambda: marks(client) == 1)
        await one.die()
        two = await router(redis_server.url, memory=1)
        async with asyncio.timeout(PATIENCE):
            while not two.open:
                await asyncio.sleep(0)
            two.settle()
        await until(lambda: (places(client), marks(client)) == (NOWHERE, 0) and not two.source.in_flight)
        assert client.xlen(QUEUE) == 1


async def test_an_end_in_order_appends_nothing_twice(redis_server, router):
    """What was handed over in part stays in flight; the rest of the list is as it was."""
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        one = await router(redis_server.url, memory=1, queue={"max_events": 2})
        await until(lambda: marks(client) == 2 and len(one.open) == 3)
        one.settle(1)
        await until(lambda: marks(client) == 1)
        await one.end()
        assert places(client) == ([b"3"], [], [b"2"])
        assert deliveries(client) == {b"2": 0}
        two = await router(redis_server.url, memory=1)
        await until(lambda: len(two.open) == 2)
        assert two.received == [b"2", b"3"]
        two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 3


async def test_a_peer_takes_over_what_was_handed_over_in_part(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"1", b"2")
        one = await router(redis_server.url, memory=1)
        await until(lambda: marks(client) == 3)
        await one.die()
        two = await router(redis_server.url, memory=1, consumer="b")
        await until(lambda: len(two.open) == 3)
        two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 3
        await until(lambda: (places(client), marks(client)) == (NOWHERE, 0))


async def test_what_a_peer_has_taken_over_is_not_appended_by_both(redis_server, router):
    """Our lease ran out while the queue was full: the items are the peer's, and what we still try to append is not."""
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        one = await router(redis_server.url, queue={"max_events": 4}, lease=PATIENCE)
        await until(lambda: client.xlen(QUEUE) == 4 and one.source.in_flight == 6)
        with structlog.testing.capture_logs() as logs:
            ids = [entry for entry, _ in client.xrange(items())]
            client.xclaim(items(), GROUP, "in:b", 0, ids, justid=True)
            two = await router(redis_server.url, consumer="b", lease=PATIENCE, memory=1)
            await until(lambda: client.xlen(QUEUE) == 10 and len(two.open) == 6)
            client.xtrim(QUEUE, maxlen=0)
            await until(lambda: not one.source.in_flight)
        assert client.xlen(QUEUE) == 0
        assert one.received[4:] == two.received
        assert [entry["number"] for entry in logs if "not enqueued here" in entry["event"]] == [6]


@pytest.mark.parametrize("memory", [0, 1])
@pytest.mark.parametrize("how", [("FLUSHALL",), ("DEL", items())])
async def test_what_was_read_is_queued_though_redis_has_lost_it(redis_server, router, how, memory):
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        one = await router(redis_server.url, queue={"max_events": 4}, memory=memory)
        await until(lambda: client.xlen(QUEUE) == 4 and len(one.received) == 10)
        client.execute_command(*how)
        for expected in (4, 2):
            client.xtrim(QUEUE, maxlen=0)  # room again
            await until(lambda expected=expected: client.xlen(QUEUE) == expected)
        one.settle()
        await until(lambda: not one.source.in_flight)
        assert (one.line.book.accepted, one.line.book.left) == (10, 0)
        await until(lambda: not left(client) and not marks(client))


async def test_a_list_on_another_server_is_removed_from_by_its_source(start_server, kind, router):
    own, other = start_server(kind), start_server(kind)
    with own.client() as client, other.client() as there:
        there.lpush("jobs", *range(50))
        one = await router(other.url, queue_url=own.url, marks=None)
        await until(lambda: client.xlen(QUEUE) == 50 and not one.source.in_flight)
        assert client.keys("*jobs*") == []
        await until(lambda: left(there) == 0)


@pytest.mark.parametrize(("memory", "total", "burst"), [(0, 2000, 50), (1, 600, 20)])
async def test_cuts_at_any_moment_append_each_item_once(redis_server, router, memory, total, burst):
    """Answers of every command are lost, of the source and of the hand-over, and many payloads are equal."""
    sent = [b"%d" % (number // 4) for number in range(total)]
    async with Proxy(redis_server.port) as of_source, Proxy(redis_server.port) as of_queue:
        one = await router(of_source.url, queue_url=of_queue.url, memory=memory, lease=30.0)
        with redis_server.client() as client:
            for begin in range(0, total, burst):
                client.lpush("jobs", *sent[begin : begin + burst])
                proxy = (of_source, of_queue)[begin // burst % 2]
                proxy.blackhole(DOWN)
                await moment(0.003)
                proxy.reset()
                proxy.heal()
                one.settle(15)
                await moment(0.005)

            def done():
                one.settle()
                return client.xlen(QUEUE) >= total and not one.source.in_flight

            await until(done)
            await until(lambda: not left(client) and not marks(client))
            one.line.start()
            taken = await one.line.deliver_all(total)
            assert Counter(event.raw for event in taken) == Counter(sent)
            await until(lambda: client.xlen(QUEUE) == 0)


async def test_an_attempt_that_came_back_shows_an_item_innocent(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = await router(redis_server.url, memory=2)
        await until(lambda: one.open)
        await one.die()
        two = await router(redis_server.url, memory=2, lease=PATIENCE)
        await until(lambda: two.received == [b"1"] and marks(client))
        assert deliveries(client) == {b"1": 2}
        (_, receipt, position), _ = two.open
        receipt.returned(position)
        await stays(lambda: deliveries(client) == {b"1": 2}, 0.1)  # attempts at the other sinks are still out
        receipt.returned(position)
        receipt.returned(position)
        await until(lambda: deliveries(client) == {b"1": 0})
        two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 1


async def test_what_an_older_version_had_enqueued_in_part_is_not_appended_again(redis_server, router):
    with redis_server.client() as client:
        client.sadd(beside("consumers"), "in:a", "in:gone")
        client.lpush(beside("handed", "in:a"), b"x", b"y")
        client.lpush(beside("returned-handed"), b"y")
        client.lpush(beside("processing", "in:gone"), b"z")
        one = await router(redis_server.url, memory=1)
        await until(lambda: len(one.open) == 4 and client.xlen(QUEUE) == 1)
        assert Counter(one.received) == {b"x": 1, b"y": 2, b"z": 1}
        one.settle()
        await until(lambda: not one.source.in_flight and not left(client) and not marks(client))
        assert client.xlen(QUEUE) == 1
        await one.end()
        assert client.keys("{jobs}*") == [items().encode()]
