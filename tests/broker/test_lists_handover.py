"""Items of a list on their way into Redis queues: each is appended once, whatever dies and whenever."""

import asyncio
import hashlib
from collections import Counter

import pytest
import structlog

from router.broker.lists import list_source as lists_module
from router.broker.lists.list_source import ListSource
from router.broker.lists.list_store import names
from router.broker.server.link import cancelled
from tests.support.engine import make_event
from tests.support.proxy import DOWN, Proxy
from tests.support.queues import PREFIX, Line
from tests.support.waiting import PATIENCE, moment, stays, until

QUEUE = "{event-router}:queue:s"


class Router:
    """A list source, the way into the Redis queue of sink `s`, and `memory` sinks whose deliveries stay open."""

    def __init__(self, url, clock, *, queue_url=None, memory=0, consumer="a", queue=None, **changes):
        self.line = Line(queue_url or url, consumer=consumer, config=queue)
        self.memory = memory
        self.received = []
        self.open = []
        options = {
            "lease": 1.5,
            "connect_timeout": PATIENCE,
            "first_delay": 0.02,
            "longest_delay": 0.2,
            "removable": True,
        }
        self.source = ListSource(
            "in", url, ["jobs"], consumer=consumer, receiver=self, clock=clock, **(options | changes)
        )
        self.alive = False
        self.reconciled = 0

    def receive(self, _source, batches):
        for batch in batches:
            for position, payload in enumerate(batch.payloads):
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
        await self.source.start()
        self.alive = True
        reconcile = self.source._store.reconcile

        async def counting(*sorts):
            self.reconciled += 1
            return await reconcile(*sorts)

        self.source._store.reconcile = counting
        return self

    async def die(self):
        """End as kill -9 would."""
        self.alive = False
        await cancelled([self.source._reader, *self.source._helpers])
        self.source._reader, self.source._helpers = None, []
        for each in self.source._lists:
            each.recovered = False
        await self.source._store.close()
        lists_module._ours.clear()
        await self.line.die()

    async def end(self):
        """End in order."""
        self.alive = False
        await self.source.stop()
        await self.line.enqueuer.close(1.0)
        await self.source.close()


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


def lists(client, consumer="in:a"):
    """The source's list, then the consumer's and what was put back: not handed over, and handed over in part."""
    at = names(PREFIX, "jobs", consumer)
    where = (at.source, at.processing, at.handed, at.returned, at.returned_handed)
    return [client.lrange(name, 0, -1)[::-1] for name in where]


async def test_items_leave_the_list_as_they_enter_the_queue(redis_server, router):
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.lpush("jobs", *range(250), *[b"same"] * 250)
        one = await router(redis_server.url)
        await until(lambda: client.xlen(QUEUE) == 500)
        for number in range(300):  # one by one and in small bursts, so that looks and hand-overs cross
            client.lpush("jobs", *[b"%d" % number] * (1 + number % 3))
            await asyncio.sleep(0)
        await until(lambda: client.xlen(QUEUE) == 1100 and not one.source.in_flight)
        assert Counter(one.received) == Counter(
            [b"same"] * 250
            + [b"%d" % number for number in range(250)]
            + [b"%d" % number for number in range(300) for _ in range(1 + number % 3)]
        )
        assert client.hget(names(PREFIX, "jobs", "in:a").settled, "gone") == b"1100"
        assert one.reconciled == 0
        await one.end()
        assert client.keys("{jobs}*") == []
        assert client.keys("jobs") == []
    assert [entry["event"] for entry in logs] == []


async def test_never_more_in_hand_than_allowed_and_a_full_queue_holds_the_list_back(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", *range(200))
        one = await router(redis_server.url, max_in_flight=20, queue={"max_events": 50})
        await until(lambda: client.xlen(QUEUE) == 50 and one.source.in_flight == 20 and client.llen("jobs") == 130)
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
        assert lists(client) == [[]] * 5


async def test_what_was_handed_over_at_a_death_is_not_taken_again(redis_server, router):
    """The script ran, but its answer never came."""
    with redis_server.client() as client:
        async with Proxy(redis_server.port) as proxy:
            one = await router(redis_server.url, queue_url=proxy.url)
            client.lpush("jobs", b"known")
            await until(lambda: client.xlen(QUEUE) == 1)
            proxy.blackhole(DOWN)
            client.lpush("jobs", *[b"same"] * 10)
            await until(lambda: client.xlen(QUEUE) > 1 and proxy.swallowed and one.source.in_flight)
            await one.die()
        before = client.xlen(QUEUE)
        two = await router(redis_server.url)
        await until(lambda: client.xlen(QUEUE) == 11 and not two.source.in_flight)
        assert len(two.received) == 11 - before
        assert lists(client) == [[]] * 5


async def test_an_item_that_other_sinks_have_in_hand_is_not_appended_again(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", *[b"same"] * 5, b"other")
        one = await router(redis_server.url, memory=1)
        await until(lambda: client.xlen(QUEUE) == 6 and len(one.open) == 6)
        await until(lambda: len(lists(client)[2]) == 6)
        one.settle(2)
        await until(lambda: lists(client)[2] == [b"same"] * 3 + [b"other"])
        await one.die()
        client.lpush("jobs", b"same")  # a new one, equal to those
        two = await router(redis_server.url, memory=1)
        await until(lambda: len(two.open) == 5)
        assert two.received == [b"same"] * 3 + [b"other", b"same"]
        await until(lambda: client.xlen(QUEUE) == 7 and lists(client)[1] == [])
        two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 7
        assert lists(client) == [[]] * 5
        assert client.exists(names(PREFIX, "jobs", "in:a").counts) == 0
        assert two.reconciled <= 1
        await two.end()
        assert client.keys("*jobs*") == []


async def test_the_other_sinks_may_be_done_before_it_is_handed_over(redis_server, router):
    """Taken again after a death, with its deliveries to other sinks over first: there is nothing to append then either."""
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = await router(redis_server.url, memory=1)
        await until(lambda: lists(client)[2] == [b"1"])
        await one.die()
        two = await router(redis_server.url, memory=1, queue={"max_events": 1})
        async with asyncio.timeout(PATIENCE):
            while not two.open:
                await asyncio.sleep(0)
            two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 1
        assert lists(client) == [[]] * 5


async def test_an_end_in_order_appends_nothing_twice(redis_server, router):
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        one = await router(redis_server.url, memory=1)
        await until(lambda: len(lists(client)[2]) == 3)
        one.settle(1)
        await one.end()
        assert lists(client) == [[], [], [], [], [b"2", b"3"]]
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
        await until(lambda: len(lists(client)[2]) == 3)
        await one.die()
        two = await router(redis_server.url, memory=1, consumer="b")
        await until(lambda: len(two.open) == 3)
        two.settle()
        await until(lambda: not two.source.in_flight)
        assert client.xlen(QUEUE) == 3
        assert lists(client) == lists(client, "in:b") == [[]] * 5


async def test_what_a_peer_has_taken_over_is_not_appended_by_both(redis_server, router):
    """Our lease ran out while the queue was full: the items are the peer's, and what we still try to append is not."""
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        one = await router(redis_server.url, queue={"max_events": 4})
        await until(lambda: client.xlen(QUEUE) == 4 and one.source.in_flight == 6)
        with structlog.testing.capture_logs() as logs:
            at = names(PREFIX, "jobs", "in:a")
            client.delete(at.lease)
            assert await one.source._store.recover(at, "in:a") == 6
            two = await router(redis_server.url, consumer="b")
            await until(lambda: client.xlen(QUEUE) == 10 and not two.source.in_flight)
            client.xtrim(QUEUE, maxlen=0)
            await until(lambda: not one.source.in_flight)
        assert client.xlen(QUEUE) == 0
        assert one.received[4:] == two.received
        assert [entry["number"] for entry in logs if "not queued here" in entry["event"]] == [6]


@pytest.mark.parametrize("memory", [0, 1])
@pytest.mark.parametrize("how", [("FLUSHALL",), ("DEL", "{jobs}:event-router:processing:in:a")])
async def test_what_was_read_is_queued_though_redis_has_lost_it(redis_server, router, how, memory):
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        one = await router(redis_server.url, queue={"max_events": 4}, memory=memory)
        await until(lambda: client.xlen(QUEUE) == 4 and one.source.in_flight == (10 if memory else 6))
        await until(lambda: len(one.received) == 10)
        client.execute_command(*how)
        client.xtrim(QUEUE, maxlen=0)  # room again
        await until(lambda: client.xlen(QUEUE) == 4)
        client.xtrim(QUEUE, maxlen=0)
        await until(lambda: client.xlen(QUEUE) == 2)
        one.settle()
        await until(lambda: not one.source.in_flight)
        assert (one.line.book.accepted, one.line.book.left) == (10, 0)


async def test_the_deaths_of_an_item_are_forgotten_when_it_is_handed_over(redis_server, router):
    at = names(PREFIX, "jobs", "in:a")
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        for _ in range(3):
            one = await router(redis_server.url, queue={"max_events": 1}, max_deliveries=9)
            await until(lambda one=one: one.source.in_flight == 1 and client.xlen(QUEUE) == 1)
            await one.die()
        assert client.hkeys(at.counts) == [hashlib.sha1(b"2").hexdigest().encode()]
        two = await router(redis_server.url, max_deliveries=9)
        await until(lambda: client.xlen(QUEUE) == 2 and not two.source.in_flight)
        assert client.exists(at.counts) == 0


async def test_a_list_on_another_server_is_removed_from_by_its_source(start_server, kind, router):
    own, other = start_server(kind), start_server(kind)
    with own.client() as client, other.client() as there:
        there.lpush("jobs", *range(50))
        one = await router(other.url, queue_url=own.url, removable=False)
        await until(lambda: client.xlen(QUEUE) == 50 and not one.source.in_flight)
        assert client.keys("*jobs*") == []
        assert lists(there) == [[]] * 5


async def test_cuts_at_any_moment_append_each_item_once(redis_server, router):
    """Answers of every command are lost, of the source and of the hand-over, and many payloads are equal."""
    total = 2000
    sent = [b"%d" % (number // 4) for number in range(total)]
    async with Proxy(redis_server.port) as of_source, Proxy(redis_server.port) as of_queue:
        one = await router(of_source.url, queue_url=of_queue.url, lease=30.0)
        with redis_server.client() as client:
            for begin in range(0, total, 50):
                client.lpush("jobs", *sent[begin : begin + 50])
                proxy = (of_source, of_queue)[begin // 50 % 2]
                proxy.blackhole(DOWN)
                await moment(0.003)
                proxy.reset()
                proxy.heal()
                await moment(0.005)
            await until(lambda: client.xlen(QUEUE) >= total and not one.source.in_flight)
            await until(lambda: lists(client) == [[]] * 5)
            one.line.start()
            taken = await one.line.deliver_all(total)
            assert Counter(event.raw for event in taken) == Counter(sent)
            await until(lambda: client.xlen(QUEUE) == 0)


async def test_cuts_while_other_sinks_have_items_in_hand(redis_server, router):
    total = 600
    sent = [b"%d" % (number // 4) for number in range(total)]
    async with Proxy(redis_server.port) as of_source, Proxy(redis_server.port) as of_queue:
        one = await router(of_source.url, queue_url=of_queue.url, memory=1, lease=30.0)
        with redis_server.client() as client:
            for begin in range(0, total, 20):
                client.lpush("jobs", *sent[begin : begin + 20])
                proxy = (of_source, of_queue)[begin // 20 % 2]
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
            await until(lambda: lists(client) == [[]] * 5)
            one.line.start()
            taken = await one.line.deliver_all(total)
            assert Counter(event.raw for event in taken) == Counter(sent)
            await until(lambda: client.xlen(QUEUE) == 0)


async def test_an_attempt_that_came_back_shows_an_item_innocent(redis_server, router):
    at = names(PREFIX, "jobs", "in:a")
    with redis_server.client() as client:
        client.lpush("jobs", *range(30))
        for _ in range(2):
            one = await router(redis_server.url, memory=2)
            await until(lambda one=one: one.open)
            await one.die()
        two = await router(redis_server.url, memory=2)
        await until(lambda: two.received == [b"0"])
        deaths = client.hlen(at.counts)
        (_, receipt, position), _ = two.open
        receipt.returned(position)
        await stays(lambda: client.hlen(at.counts) == deaths, 0.1)  # the attempt at the other sink is still out
        receipt.returned(position)
        await until(lambda: client.hlen(at.counts) == deaths - 1)
        await until(lambda: two.received == [b"0", b"1"])  # though the first one is still in hand
        receipt.returned(position)

        def over():
            two.settle()
            return len(two.received) == 30 and not two.open

        await until(over)
        await until(lambda: not two.source.in_flight)
        assert client.exists(at.counts) == 0
        assert client.xlen(QUEUE) == 30


async def test_an_item_that_comes_while_others_are_removed_is_reckoned_with(redis_server, router):
    with redis_server.client() as client:
        one = await router(redis_server.url, memory=1)
        remove = one.source._store.remove

        async def slow(*words):
            removed = await remove(*words)
            client.lpush("jobs", b"second")
            await until(lambda: b"second" in one.received)
            return removed

        one.source._store.remove = slow
        client.lpush("jobs", b"first")
        await until(lambda: client.xlen(QUEUE) == 1 and one.open)
        one.settle()
        await until(lambda: client.xlen(QUEUE) == 2)
        one.source._store.remove = remove
        client.lpush("jobs", b"third")
        await until(lambda: client.xlen(QUEUE) == 3 and len(one.open) == 2)
        one.settle()
        await until(lambda: not one.source.in_flight)
        assert one.reconciled == 0, "nothing of it was strange"


async def test_an_item_that_is_handed_over_while_the_lists_are_looked_through_stays_in_hand(redis_server, router):
    with redis_server.client() as client:
        one = await router(redis_server.url, memory=1)
        at = names(PREFIX, "jobs", "in:a")
        client.lpush("jobs", b"first")
        await until(lambda: client.xlen(QUEUE) == 1 and client.lrange(at.handed, 0, -1) == [b"first"])
        await one.source._store.reconcile(at, [], [], [b"first"])  # as it was when this was about to be sent
        assert client.lrange(at.handed, 0, -1) == [b"first"]
        one.settle()
        await until(lambda: not one.source.in_flight)
        assert one.received == [b"first"]
