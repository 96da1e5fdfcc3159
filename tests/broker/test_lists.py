"""The list source on real servers: nothing is lost, equal items are two, a dead router's items come back."""

import asyncio
import hashlib
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.lists import list_source as lists_module
from router.broker.lists.list_source import ListSource
from router.broker.lists.list_store import BLOCK, ListStore, names
from router.broker.server import keys
from router.broker.server.client import server
from router.broker.server.link import cancelled
from router.errors import ConfigError, Reason, UnavailableError
from tests.broker.conftest import Neighbour
from tests.support.proxy import DOWN, Proxy
from tests.support.waiting import PATIENCE, moment, stays, until

PREFIX = "event-router"


class Hand:
    """A receiver that keeps what it gets, and settles an entry when it is told to (or at once)."""

    def __init__(self, *, at_once=True):
        self.at_once = at_once
        self.events = []
        self.open = []
        self.most_open = 0
        self.refused = []

    def receive(self, _source, batches):
        for batch in batches:
            for position, payload in enumerate(batch.payloads):
                self.events.append((batch.channel, payload))
                batch.receipt.expect(position, 1)
                self.open.append((payload, batch.receipt, position))
        self.most_open = max(self.most_open, len(self.open))
        if self.at_once:
            self.settle()

    def refuse(self, _source, batch, reason, detail):
        for position, payload in enumerate(batch.payloads):
            self.refused.append((payload, reason, detail))
            batch.receipt.expect(position, 0)

    def settle(self, number=None):
        done, self.open = self.open[:number], self.open[number:] if number is not None else []
        for _, receipt, position in done:
            receipt.settle(position)

    @property
    def payloads(self):
        return [payload for _, payload in self.events]


@pytest.fixture
async def make(clock):
    """Make a source: `make(url, *keys, hand=…, consumer=…, **changes)`; each is ended after the test."""
    made = []

    def one(url, *lists, hand, consumer="a", **changes):
        options = {"lease": 1.5, "connect_timeout": PATIENCE, "first_delay": 0.02, "longest_delay": 0.2, **changes}
        source = ListSource("in", url, lists, consumer=consumer, receiver=hand, clock=clock, **options)
        made.append(source)
        return source

    yield one
    for source in made:
        await source.stop()
        await source.close()


async def die(source):
    """End a source as kill -9 would: nothing is put back, no lease is given up."""
    await cancelled([source._reader, *source._helpers])
    source._reader, source._helpers = None, []
    for each in source._lists:
        each.recovered = False
    await source._store.close()
    lists_module._ours.clear()


def lists(client, key="jobs", consumer="in:a"):
    """The source's list, the consumer's processing list and what was put back, the oldest first."""
    at = names(PREFIX, key, consumer)
    return [client.lrange(name, 0, -1)[::-1] for name in (at.source, at.processing, at.returned)]


def left(client, pattern="*"):
    """The keys that are there, but for leases and what a live consumer has."""
    return [
        key for key in client.keys(pattern) if not any(word in key for word in (b":lease", b":consumers", b":settled"))
    ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("jobs", "{jobs}:event-router:processing:in:a"),
        ("{shop}:jobs", "{shop}:event-router:{shop}:jobs:processing:in:a"),
        ("a{b}c{d}", "{b}:event-router:a{b}c{d}:processing:in:a"),
    ],
)
def test_what_goes_with_a_list_lies_in_its_slot(key, expected):
    assert keys.beside_list(PREFIX, key, "processing", "in:a") == expected


async def test_oldest_first_and_nothing_is_left(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        for number in range(250):
            client.lpush("jobs", b"%d" % number)
        source = make(redis_server.url, "jobs", hand=hand)
        await source.start()
        assert source.up
        await until(lambda: len(hand.events) == 250)
        client.lpush("jobs", b"250")
        await until(lambda: len(hand.events) == 251)
        assert hand.payloads == [b"%d" % number for number in range(251)]
        assert {channel for channel, _ in hand.events} == {b"jobs"}
        await source.stop()
        await source.close()
        assert client.keys("*") == []


async def test_an_item_is_removed_when_it_is_settled_and_not_before(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        source = make(redis_server.url, "jobs", hand=hand)
        await source.start()
        await until(lambda: len(hand.open) == 3)
        assert lists(client) == [[], [b"1", b"2", b"3"], []]
        hand.settle(1)
        await until(lambda: lists(client)[1] == [b"2", b"3"])
        await source.stop()
        await source.close()
        assert lists(client) == [[b"2", b"3"], [], []]


async def test_never_more_in_hand_than_allowed(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        for key in ("one", "two"):
            client.lpush(key, *range(20))
        source = make(redis_server.url, "one", "two", hand=hand, max_in_flight=7)
        await source.start()
        seen = 0
        while seen < 40:
            expected = min(7, 40 - seen)
            await until(lambda expected=expected: len(hand.open) == expected)
            assert source.in_flight <= 7
            assert sum(client.llen(names(PREFIX, key, "in:a").processing) for key in ("one", "two")) <= 7
            seen += 1
            hand.settle(1)
        assert hand.most_open == 7
        await until(lambda: not left(client))
        assert Counter(hand.payloads) == {b"%d" % number: 2 for number in range(20)}


async def test_equal_payloads_are_different_items(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"x", b"x", b"x")
        source = make(redis_server.url, "jobs", hand=hand)
        await source.start()
        await until(lambda: len(hand.open) == 3)
        hand.settle(1)
        await until(lambda: lists(client)[1] == [b"x", b"x"])
        await die(source)
        again = Hand()
        await make(redis_server.url, "jobs", hand=again).start()
        await until(lambda: len(again.events) == 2 and not left(client))
        assert again.payloads == [b"x", b"x"]


async def test_a_removal_whose_answer_was_lost_removes_one_item_only(redis_server):
    with redis_server.client() as client:
        at = names(PREFIX, "jobs", "in:a")
        client.lpush(at.processing, b"x", b"x", b"y")
        for process in ("p1", "p2"):
            store = ListStore(
                server(redis_server.url), consumer="in:a", process=process, prefix=PREFIX, max_deliveries=5
            )
            assert [await store.remove(at, 1, [b"x"]) for _ in range(3)] == [1, 1, 1]
            await store.close()
        assert client.lrange(at.processing, 0, -1) == [b"y"]


async def test_several_lists_and_each_goes_on_at_once(redis_server, make):
    hand = Hand()
    source = make(redis_server.url, "one", "two", "three", hand=hand)
    await source.start()
    took = []
    with redis_server.client() as client:
        for number in range(10):
            for key in (b"two", b"three", b"one"):
                began = time.monotonic()
                client.lpush(key, number)
                await until(lambda key=key, number=number: (key, b"%d" % number) in hand.events)
                took.append(time.monotonic() - began)
    await until(lambda: source.in_flight == 0)
    assert min(took) < BLOCK / 2, "each waited for a list with nothing in it"


async def test_stop_is_prompt(redis_server, make):
    took = []
    for _ in range(5):
        source = make(redis_server.url, "one", "two", hand=Hand())
        await source.start()
        running = asyncio.create_task(source.run())
        await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == 2)
        began = time.monotonic()
        await source.stop()
        await source.close()
        took.append(time.monotonic() - began)
        await running
    assert min(took) < BLOCK / 2, "each waited for lists with nothing in them"


async def test_what_the_last_run_left_in_hand_is_taken_again(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        source = make(redis_server.url, "jobs", hand=hand)
        await source.start()
        await until(lambda: len(hand.open) == 3)
        await die(source)
        client.lpush("jobs", b"4")
        again = Hand()
        await make(redis_server.url, "jobs", hand=again).start()
        await until(lambda: len(again.events) == 4 and not left(client))
        assert again.payloads == [b"1", b"2", b"3", b"4"]
        assert again.refused == []


async def test_two_routers_share_a_list_and_one_finishes_the_others_work(redis_server, make):
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        dying = make(redis_server.url, "jobs", hand=first, max_in_flight=5, lease=3.0)
        await dying.start()
        await until(lambda: len(first.open) == 5)
        await make(redis_server.url, "jobs", hand=second, consumer="b", lease=3.0).start()
        await until(lambda: len(second.events) == 5)
        await stays(lambda: len(second.events) == 5, 4.0)  # longer than the lease: who renews it keeps what is his
        await die(dying)
        await until(lambda: len(second.events) == 10)
        assert sorted(second.payloads) == sorted(b"%d" % number for number in range(10))
        await until(lambda: not left(client))
        assert client.smembers(names(PREFIX, "jobs", "").consumers) == {b"in:b"}


@pytest.fixture
async def suspect(redis_server, make):
    """An item that was alone in hand at so many deaths of its router that one more finds it guilty."""
    with redis_server.client() as client:
        client.lpush("jobs", b"suspect")
    for _ in range(2):
        source = make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), max_deliveries=2)
        await source.start()
        await until(lambda hand=hand: hand.open)
        await die(source)


def deaths_of(client, payload):
    return int(client.hget(names(PREFIX, "jobs", "in:a").counts, hashlib.sha1(payload).hexdigest()) or 0)


@pytest.mark.usefixtures("suspect")
async def test_where_it_may_be_found_guilty_an_item_is_alone_in_the_whole_router(redis_server, make):
    isolation, other, hand = CrashIsolation(), Neighbour(at_work=True), Hand(at_once=False)
    isolation.join(other)
    source = make(redis_server.url, "jobs", hand=hand, max_deliveries=2, isolation=isolation)
    await source.start()
    await until(lambda: isolation.shuts_out(other))
    with redis_server.client() as client:
        assert lists(client) == [[], [], [b"suspect"]]
        other.at_work = False
        isolation.finished()
        await until(lambda: hand.open)
        assert isolation.shuts_out(other)
        assert deaths_of(client, b"suspect") == 2
    await die(source)
    again = make(redis_server.url, "jobs", hand=(judge := Hand()), max_deliveries=2)
    await again.start()
    await until(lambda: judge.refused)
    assert [(payload, reason) for payload, reason, _ in judge.refused] == [(b"suspect", Reason.POISON)]


@pytest.mark.usefixtures("suspect")
async def test_where_others_do_not_finish_no_item_is_found_guilty(redis_server, make, monkeypatch):
    monkeypatch.setattr(lists_module, "SURVIVED", 0.2)
    isolation, hand = CrashIsolation(), Hand(at_once=False)
    isolation.join(Neighbour(at_work=True))
    source = make(redis_server.url, "jobs", hand=hand, max_deliveries=2, isolation=isolation)
    await source.start()
    await until(lambda: hand.open)
    with redis_server.client() as client:
        assert deaths_of(client, b"suspect") == 1
        await die(source)
        again = make(redis_server.url, "jobs", hand=(judge := Hand()), max_deliveries=2)
        await again.start()
        await until(lambda: judge.events)
        assert not judge.refused
        await until(lambda: lists(client) == [[], [], []])
        assert deaths_of(client, b"suspect") == 0


@pytest.mark.usefixtures("suspect")
async def test_a_suspect_that_ends_nothing_makes_room_for_all_others(redis_server, make):
    isolation, other, hand = CrashIsolation(), Neighbour(at_work=False), Hand(at_once=False)
    isolation.join(other)
    with redis_server.client() as client:
        client.lpush("jobs", b"good")
        source = make(redis_server.url, "jobs", hand=hand, max_deliveries=2, isolation=isolation)
        await source.start()
        await until(lambda: hand.open)
        assert hand.payloads == [b"suspect"]
        hand.settle()
        await until(lambda: hand.payloads == [b"suspect", b"good"] and not isolation.shuts_out(other))


async def test_others_wait_for_an_item_that_may_end_the_process_and_it_for_them(redis_server, make):
    isolation, other = CrashIsolation(), Neighbour(at_work=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await one.start()
        await until(lambda: hand.open)
        await die(one)
        two = make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), isolation=isolation)
        await two.start()
        await until(lambda: hand.open)
        await isolation.enter()
        alone = asyncio.create_task(isolation.shut(other, 30.0))
        done, _ = await asyncio.wait([alone], timeout=0.2)
        assert not done
        hand.settle()
        assert await alone
        await until(lambda: client.info("clients")["blocked_clients"] == 0)  # it asks for nothing any more
        client.lpush("jobs", b"2")
        await stays(lambda: client.llen("jobs") == 1, 0.2)
        isolation.leave()
        await until(lambda: hand.payloads == [b"1", b"2"])


@pytest.mark.usefixtures("suspect")
async def test_a_list_that_waits_for_solitude_can_be_stopped(redis_server, make):
    isolation = CrashIsolation()
    await isolation.enter()
    source = make(redis_server.url, "jobs", hand=(hand := Hand()), max_deliveries=2, isolation=isolation)
    await source.start()
    await stays(lambda: not hand.events, 0.2)
    await source.stop()
    isolation.leave()
    async with asyncio.timeout(PATIENCE):
        await isolation.enter()


async def test_what_ends_the_process_again_and_again_is_poison_and_its_neighbours_are_not(redis_server, make):
    good = {b"%d" % number for number in range(30)}
    delivered = []
    deaths = 0
    with redis_server.client() as client:
        client.lpush("jobs", *sorted(good)[:15], b"poison", *sorted(good)[15:])
        while True:
            hand = Hand(at_once=False)
            source = make(redis_server.url, "jobs", hand=hand, max_deliveries=4)
            await source.start()

            def over(hand=hand):
                if any(payload == b"poison" for payload, _, _ in hand.open):
                    return True
                delivered.extend(payload for payload, _, _ in hand.open)
                hand.settle()
                return hand.refused and not left(client)

            await until(over)
            if hand.refused:
                break
            deaths += 1
            await die(source)
            assert deaths < 20
        assert [(payload, reason) for payload, reason, _ in hand.refused] == [(b"poison", Reason.POISON)]
        assert deaths == 5
        assert set(delivered) == good
        assert len(delivered) == 30


async def test_a_restart_in_good_order_counts_nothing(redis_server, make):
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        for _ in range(8):
            hand = Hand(at_once=False)
            source = make(redis_server.url, "jobs", hand=hand, max_deliveries=2)
            await source.start()
            await until(lambda hand=hand: hand.open)
            await source.stop()
            await source.close()
            assert hand.refused == []
        assert left(client) == [b"jobs"]


async def test_a_list_that_is_none_is_a_state(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        client.set("jobs", "a string")
        client.lpush("other", b"1")
        source = make(redis_server.url, "jobs", "other", hand=hand)
        await source.start()
        await until(lambda: hand.payloads == [b"1"])
        assert not source.up
        assert "WRONGTYPE" in source.reason
        assert "jobs" in source.reason
        client.delete("jobs")
        client.lpush("jobs", b"2")
        await until(lambda: hand.payloads == [b"1", b"2"])
        await until(lambda: source.up)
        await until(lambda: source.in_flight == 0)
        client.set("jobs", "a string")
        await until(lambda: not source.up)
        client.delete("jobs")
        await until(lambda: source.up)


@pytest.mark.parametrize(
    "rules",
    [
        ["+@all", "-blmove", "~*"],
        ["+@all", "-lmove", "~*"],
        ["+@all", "-eval", "-evalsha", "~*"],
        ["+@all", "~other"],
    ],
    ids=["blmove", "lmove", "eval", "keys"],
)
async def test_what_is_not_allowed_shows_at_the_start(redis_server, make, rules):
    redis_server.do("ACL", "SETUSER", "app", "on", ">secret", *rules)
    source = make(f"redis://app:secret@127.0.0.1:{redis_server.port}", "jobs", hand=Hand())
    with pytest.raises(ConfigError) as caught:
        await source.start()
    assert "secret" not in str(caught.value)
    assert "permission" in str(caught.value) or "can't" in str(caught.value)


async def test_the_rights_that_the_documentation_names_are_enough(redis_server, make):
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER router on >… (~jobs [^`]*)```", text, re.MULTILINE)
    redis_server.do("ACL", "SETUSER", "app", "on", ">secret", *rights.split())
    hand, other = Hand(at_once=False), Hand()
    url = f"redis://app:secret@127.0.0.1:{redis_server.port}"
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        source = make(url, "jobs", hand=hand)
        await source.start()
        await until(lambda: len(hand.open) == 2)
        hand.settle(1)
        await until(lambda: source.in_flight == 1)
        await die(source)
        await make(url, "jobs", hand=other, consumer="b").start()
        await until(lambda: other.payloads == [b"2"])
        await until(lambda: not left(client))
        assert client.acl_log() == []


async def test_no_server_at_the_start(make):
    source = make("redis://127.0.0.1:1", "jobs", hand=Hand(), connect_timeout=1.0)
    with pytest.raises(UnavailableError, match="refused"):
        await source.start()


async def test_a_server_that_is_gone_for_a_while(redis_server, make):
    """Restarted empty: what was in hand is delivered, what comes then is taken, and nothing stays behind."""
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        source = make(redis_server.url, "jobs", hand=hand)
        await source.start()
        await until(lambda: len(hand.open) == 2)
    redis_server.kill()
    await until(lambda: not source.up)
    hand.settle(1)
    redis_server.start()
    await until(lambda: source.up)
    with redis_server.client() as client:
        client.lpush("jobs", b"3")
        await until(lambda: hand.payloads == [b"1", b"2", b"3"])
        hand.settle()
        await until(lambda: source.in_flight == 0 and not left(client))
        await until(lambda: client.keys("*lease*"))
        assert hand.refused == []


async def test_cuts_at_any_moment_lose_nothing(redis_server, make):
    """Answers of every command are lost again and again; each item is settled at least once, none stays behind."""
    hand = Hand()
    total = 3000
    async with Proxy(redis_server.port) as proxy:
        source = make(proxy.url, "jobs", hand=hand)
        await source.start()
        with redis_server.client() as client:
            for begin in range(0, total, 100):
                client.lpush("jobs", *range(begin, begin + 100))
                proxy.blackhole(DOWN)
                await moment(0.003)
                proxy.reset()
                proxy.heal()
                await moment(0.005)
            await until(lambda: len(set(hand.payloads)) == total)
            await until(lambda: not left(client) and not source.in_flight)
            assert len(hand.payloads) == total
        await source.stop()
        await source.close()


async def test_observing_takes_nothing(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        source = make(redis_server.url, "jobs", hand=hand, observe=True)
        await source.start()
        running = asyncio.create_task(source.run())
        assert source.up
        await source.stop()
        await source.close()
        await running
        assert client.keys("*") == [b"jobs"]
        assert hand.events == []
        assert client.info("clients")["connected_clients"] == 1


async def test_a_full_memory_is_an_outage(redis_server, make):
    hand = Hand(at_once=False)
    source = make(redis_server.url, "jobs", hand=hand)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        await source.start()
        await until(lambda: len(hand.open) == 2)
        client.config_set("maxmemory", 1)
        hand.settle()
        await until(lambda: lists(client)[1] == [])
        await until(lambda: not source.up)
        assert "maxmemory" in source.reason
        client.config_set("maxmemory", 0)
        client.lpush("jobs", b"3")
        await until(lambda: source.up and hand.payloads[2:] == [b"3"])


async def test_a_source_that_takes_anothers_place_leaves_its_items_alone(redis_server, make):
    """As a reload does: the old one is stopped, what it has in hand goes on, the new one reads."""
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        old = make(redis_server.url, "jobs", hand=first)
        await old.start()
        await until(lambda: len(first.open) == 2)
        await old.stop()
        client.lpush("jobs", b"3")
        new = make(redis_server.url, "jobs", hand=second)
        await new.start()
        await until(lambda: second.payloads == [b"3"])
        first.settle(1)
        await until(lambda: old.in_flight == 1)
        await die(new)
        await old.close()
        await until(lambda: lists(client)[0] == [b"2"])
        third = Hand()
        await make(redis_server.url, "jobs", hand=third).start()
        await until(lambda: third.payloads and not left(client))
        assert third.payloads == [b"2"]


async def test_an_outage_longer_than_the_lease_does_not_make_peers_rob_each_other(redis_server, make):
    """Leases run out while the server stands still; who is alive renews his before anybody may take his items."""
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", *range(5))
        one = make(redis_server.url, "jobs", hand=first, lease=3.0)
        await one.start()
        await until(lambda: len(first.open) == 5)
        two = make(redis_server.url, "jobs", hand=second, consumer="b", lease=3.0)
        await two.start()
        redis_server.pause()
        await moment(3.5)
        redis_server.resume()
        client.lpush("jobs", b"new")
        await until(lambda: len(first.open) + len(second.events) == 6)
        await stays(lambda: len(first.open) + len(second.events) == 6, 3.0)
        first.settle()
        await until(lambda: not left(client))
