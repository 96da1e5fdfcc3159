"""The list source on real servers: nothing is lost, equal items are two, a dead router's items come back."""

import asyncio
import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.lists.item_mover import BLOCK
from router.broker.lists.list_source import COMMANDS
from router.broker.lists.list_stream import GROUP
from router.broker.server import keys
from router.errors import ConfigError, Reason, UnavailableError
from tests.broker.conftest import Neighbour
from tests.support.lists import NOWHERE, PREFIX, Taker, beside, deliveries, in_flight, items, landing, left, places
from tests.support.proxy import DOWN, Proxy
from tests.support.streams import Desk
from tests.support.waiting import PATIENCE, moment, stays, until


class Hand(Desk):
    """A receiver that keeps what it gets, and settles an entry when it is told to (or at once)."""

    def __init__(self, *, at_once=True):
        super().__init__()
        self.hold = not at_once
        self.most_open = 0

    def receive(self, source, batches):
        super().receive(source, batches)
        self.most_open = max(self.most_open, len(self.held))

    def settle_first(self, number):
        for receipt, position, _ in self.held[:number]:
            receipt.settle(position)
        del self.held[:number]

    @property
    def given_up(self):
        return [(payload, reason) for batch, reason, _ in self.refused for payload in batch.payloads]


@pytest.fixture
async def make(clock):
    """Make a source and start it: `await make(url, *keys, hand=…, consumer=…, **changes)`; each is ended after the test."""
    made = []

    async def one(url, *lists, hand, **changes):
        made.append(Taker(url, lists, hand, clock, **changes))
        return await made[-1].start()

    yield one
    for each in made:
        await each.end()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("jobs", "{jobs}:event-router:items"),
        ("{shop}:jobs", "{shop}:event-router:{shop}:jobs:items"),
        ("a{b}c{d}", "{b}:event-router:a{b}c{d}:items"),
    ],
)
def test_what_goes_with_a_list_lies_in_its_slot(key, expected):
    assert keys.beside(PREFIX, key, "items") == expected


async def test_oldest_first_and_nothing_is_left(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        for number in range(250):
            client.lpush("jobs", b"%d" % number)
        one = await make(redis_server.url, "jobs", hand=hand)
        assert one.source.up
        await until(lambda: len(hand.payloads) == 250)
        client.lpush("jobs", b"250")
        await until(lambda: len(hand.payloads) == 251)
        assert hand.payloads == [b"%d" % number for number in range(251)]
        assert {batch.channel for batch in hand.batches} == {b"jobs"}
        await one.end()
        assert client.keys("*") == [items().encode()]
        assert left(client) == 0


async def test_an_event_has_its_id_and_its_time_from_the_entry(redis_server, make):
    hand = Hand(at_once=False)
    before = datetime.now(UTC)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.payloads) == 2)
        ids = [entry.decode() for entry, _ in client.xrange(items())]
        assert hand.ids == [f"jobs/{entry}" for entry in ids]
        assert hand.headers == []
        times = [batch.received_at for batch in hand.batches]
        assert [round(at.timestamp() * 1000) for at in times] == sorted({int(entry.partition("-")[0]) for entry in ids})
        assert abs((times[0] - before).total_seconds()) < PATIENCE
        await one.die()
        again = Hand()
        await make(redis_server.url, "jobs", hand=again)
        await until(lambda: len(again.payloads) == 2)
        assert (again.ids, [batch.received_at for batch in again.batches]) == (hand.ids, times)


async def test_an_item_is_removed_when_it_is_settled_and_not_before(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 3)
        assert places(client) == ([], [], [b"1", b"2", b"3"])
        hand.settle_first(1)
        await until(lambda: in_flight(client) == [b"2", b"3"])
        assert client.xlen(items()) == 2
        await one.end()
        assert places(client) == ([b"2", b"3"], [], [])


async def test_never_more_in_hand_than_allowed(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        for key in ("one", "two"):
            client.lpush(key, *range(20))
        one = await make(redis_server.url, "one", "two", hand=hand, max_in_flight=7)
        seen = 0
        while seen < 40:
            expected = min(7, 40 - seen)
            await until(lambda expected=expected: len(hand.held) == expected)
            assert one.source.in_flight <= 7
            # What is settled may still stand there, for its acknowledgement is on its way.
            assert sum(client.xlen(items(key)) for key in ("one", "two")) <= 2 * 7
            seen += 1
            hand.settle_first(1)
        assert hand.most_open == 7
        await until(lambda: not left(client, "one") and not left(client, "two"))
        assert Counter(hand.payloads) == {b"%d" % number: 2 for number in range(20)}


async def test_no_more_bytes_are_moved_at_once_than_allowed(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        for _ in range(12):
            client.lpush("jobs", b"x" * 1024**2)
        await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.payloads) == 12)
        first = [batch for batch in hand.batches if batch.receipt is hand.batches[0].receipt]
        assert sum(len(batch.payloads) for batch in first) == 8


async def test_equal_payloads_are_different_items(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"x", b"x", b"x")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 3)
        hand.settle_first(1)
        await until(lambda: in_flight(client) == [b"x", b"x"])
        await one.die()
        again = Hand()
        await make(redis_server.url, "jobs", hand=again)
        await until(lambda: len(again.payloads) == 2 and not left(client))
        assert again.payloads == [b"x", b"x"]


async def test_several_lists_and_each_goes_on_at_once(redis_server, make):
    hand = Hand()
    one = await make(redis_server.url, "one", "two", "three", hand=hand)
    took = []
    with redis_server.client() as client:
        for number in range(10):
            for key in (b"two", b"three", b"one"):
                began = time.monotonic()
                client.lpush(key, b"%s%d" % (key, number))
                await until(lambda key=key, number=number: b"%s%d" % (key, number) in hand.payloads)
                took.append(time.monotonic() - began)
    await until(lambda: one.source.in_flight == 0)
    assert min(took) < BLOCK / 2, "each waited for a list with nothing in it"


async def test_every_list_gets_its_turn_with_hardly_any_room(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        for key in ("a", "b", "c"):
            client.lpush(key, *range(5))
        await make(redis_server.url, "a", "b", "c", hand=hand, max_in_flight=1)
        await until(lambda: len(hand.payloads) == 15)
        assert {batch.channel for batch in hand.batches[:3]} == {b"a", b"b", b"c"}
        for key in ("c", "a", "b"):
            client.lpush(key, "more")
        await until(lambda: hand.payloads[15:] == [b"more"] * 3)


@pytest.mark.parametrize("keys", [["one"], ["one", "two"]])
async def test_stop_is_prompt(redis_server, make, keys):
    took = []
    for _ in range(5):
        one = await make(redis_server.url, *keys, hand=Hand())
        await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == len(keys))
        began = time.monotonic()
        await one.end()
        took.append(time.monotonic() - began)
    assert min(took) < BLOCK / 2, "each waited for lists with nothing in them"


async def test_what_a_router_left_in_landing_comes_first(redis_server, make):
    """It died between the wait and the move, or never heard the answer."""
    hand = Hand()
    with redis_server.client() as client:
        client.lpush("jobs", b"2", b"3")
        client.lpush(landing(), b"1")
        await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.payloads) == 3)
        assert hand.payloads == [b"1", b"2", b"3"]
        client.lpush(landing(), b"4")  # by a peer that died just now
        await until(lambda: hand.payloads[3:] == [b"4"])
        await until(lambda: not left(client))


async def test_what_the_last_run_left_in_hand_is_taken_again(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 3)
        await one.die()
        client.lpush("jobs", b"4")
        again = Hand()
        await make(redis_server.url, "jobs", hand=again)
        await until(lambda: len(again.payloads) == 4 and not left(client))
        assert again.payloads == [b"1", b"2", b"3", b"4"]
        assert again.refused == []


async def test_two_routers_share_a_list_and_one_finishes_the_others_work(redis_server, make):
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", *range(10))
        dying = await make(redis_server.url, "jobs", hand=first, max_in_flight=5, lease=3.0)
        await until(lambda: len(first.held) == 5)
        await make(redis_server.url, "jobs", hand=second, consumer="b", lease=3.0)
        await until(lambda: len(second.payloads) == 5)
        await stays(lambda: len(second.payloads) == 5, 4.0)  # longer than the lease: who renews it keeps what is his
        await dying.die()
        await until(lambda: len(second.payloads) == 10)
        assert sorted(second.payloads) == sorted(b"%d" % number for number in range(10))
        await until(lambda: not left(client))


async def test_a_source_under_another_name_strands_nothing(redis_server, make, clock):
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), consumer="old")
        await until(lambda: len(hand.held) == 2)
        await one.die()
        await make(redis_server.url, "jobs", hand=(again := Hand()), consumer="new")
        await until(lambda: again.payloads == [b"1", b"2"] and not left(client))


@pytest.fixture
async def suspect(redis_server, make):
    """An item that was alone in hand at so many deaths of its router that one more finds it guilty."""
    with redis_server.client() as client:
        client.lpush("jobs", b"suspect")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: hand.held)
        await one.die()
        ((entry, _),) = client.xrange(items())
        client.xclaim(items(), GROUP, "in:a", 0, [entry], retrycount=4, justid=True)


@pytest.mark.usefixtures("suspect")
async def test_where_it_may_be_found_guilty_an_item_is_alone_in_the_whole_router(redis_server, make):
    isolation, other, hand = CrashIsolation(), Neighbour(at_work=True), Hand(at_once=False)
    isolation.join(other)
    one = await make(redis_server.url, "jobs", hand=hand, isolation=isolation, lease=PATIENCE)
    await until(lambda: isolation.shuts_out(other))
    with redis_server.client() as client:
        await stays(lambda: not hand.payloads, 0.1)
        other.at_work = False
        isolation.finished()
        await until(lambda: hand.held)
        assert isolation.shuts_out(other)
        assert deliveries(client) == {b"suspect": 5}
    await one.die()
    await make(redis_server.url, "jobs", hand=(judge := Hand()))
    await until(lambda: judge.refused)
    assert judge.given_up == [(b"suspect", Reason.POISON)]


@pytest.mark.usefixtures("suspect")
async def test_where_others_do_not_finish_no_item_is_found_guilty(redis_server, make):
    isolation, hand = CrashIsolation(), Hand(at_once=False)
    isolation.join(Neighbour(at_work=True))
    one = await make(redis_server.url, "jobs", hand=hand, isolation=isolation, lease=1.0)
    await until(lambda: hand.held)
    with redis_server.client() as client:
        assert deliveries(client)[b"suspect"] <= 4
        await one.die()
        await make(redis_server.url, "jobs", hand=(judge := Hand()))
        await until(lambda: judge.payloads)
        assert not judge.refused
        await until(lambda: places(client) == NOWHERE)


@pytest.mark.usefixtures("suspect")
async def test_a_suspect_that_ends_nothing_makes_room_for_all_others(redis_server, make):
    isolation, other, hand = CrashIsolation(), Neighbour(at_work=False), Hand(at_once=False)
    isolation.join(other)
    with redis_server.client() as client:
        client.lpush("jobs", b"good")
        await make(redis_server.url, "jobs", hand=hand, isolation=isolation, lease=PATIENCE)
        await until(lambda: hand.held)
        assert hand.payloads == [b"suspect"]
        hand.settle()
        await until(lambda: hand.payloads == [b"suspect", b"good"] and not isolation.shuts_out(other))


async def test_others_wait_for_an_item_that_may_end_the_process_and_it_for_them(redis_server, make):
    isolation, other = CrashIsolation(), Neighbour(at_work=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: hand.held)
        await one.die()
        two = {"isolation": isolation, "lease": PATIENCE}
        await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), **two)
        await until(lambda: hand.held)
        await isolation.enter()
        alone = asyncio.create_task(isolation.shut(other, 30.0))
        done, _ = await asyncio.wait([alone], timeout=0.2)
        assert not done
        hand.settle()
        assert await alone
        isolation.leave()


@pytest.mark.usefixtures("suspect")
async def test_a_list_that_waits_for_solitude_can_be_stopped(redis_server, make):
    isolation = CrashIsolation()
    await isolation.enter()
    one = await make(redis_server.url, "jobs", hand=(hand := Hand()), isolation=isolation)
    await stays(lambda: not hand.payloads, 0.2)
    await one.stop()
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
            one = await make(redis_server.url, "jobs", hand=hand, max_deliveries=5)

            def over(hand=hand):
                if any(payload == b"poison" for _, _, payload in hand.held):
                    return True
                delivered.extend(payload for _, _, payload in hand.held if payload)
                hand.settle()
                return hand.refused and not left(client)

            await until(over)
            if hand.refused:
                break
            deaths += 1
            # What is settled and not yet acknowledged would come again: that is another test's.
            await until(lambda: not set(delivered) & set(in_flight(client)))
            await one.die()
            assert deaths < 20
        assert hand.given_up == [(b"poison", Reason.POISON)]
        assert deaths == 5
        assert set(delivered) == good
        assert len(delivered) == 30


async def test_a_restart_in_good_order_counts_nothing(redis_server, make):
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        for _ in range(8):
            hand = Hand(at_once=False)
            one = await make(redis_server.url, "jobs", hand=hand, max_deliveries=2)
            await until(lambda hand=hand: hand.held)
            await one.end()
            assert hand.refused == []
        assert places(client) == ([b"1"], [], [])


async def test_an_end_in_order_leaves_the_list_as_it_was(redis_server, make):
    """In its order, whatever is in flight and wherever the rest stands; what was in hand at a death stays in flight."""
    with redis_server.client() as client:
        client.lpush("jobs", b"old")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: hand.held)
        await one.die()
        two = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), max_in_flight=252)
        await until(lambda: hand.payloads == [b"old"])
        hand.come_back()
        hand.held.clear()
        client.lpush("jobs", *range(251))
        await until(lambda: len(hand.held) == 251)
        client.lpush("jobs", "new")
        client.lpush(landing(), "landed")
        await two.end()
        expected = [b"old", *[b"%d" % number for number in range(251)], b"landed", b"new"]
        assert places(client) == (expected, [], [])


async def test_a_suspect_stays_in_flight_at_an_end_in_order_and_does_not_count(redis_server, make):
    with redis_server.client() as client:
        client.lpush("jobs", b"old")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: hand.held)
        await one.die()
        two = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), lease=PATIENCE)
        await until(lambda: hand.held)
        assert deliveries(client) == {b"old": 2}
        await two.end()
        assert places(client) == ([], [], [b"old"])
        assert deliveries(client) == {b"old": 0}


async def test_what_can_not_go_back_stays_in_flight(redis_server, make):
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: len(hand.held) == 2)
        client.set("jobs", "no list")
        await one.end()
        assert in_flight(client) == [b"1", b"2"]
        client.delete("jobs")
        await make(redis_server.url, "jobs", hand=(again := Hand()))
        await until(lambda: again.payloads == [b"1", b"2"])


async def test_a_list_that_is_none_is_a_state(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        client.set("jobs", "a string")
        client.lpush("other", b"1")
        one = await make(redis_server.url, "jobs", "other", hand=hand)
        await until(lambda: hand.payloads == [b"1"])
        await until(lambda: not one.source.up)
        assert "WRONGTYPE" in one.source.reason
        assert "jobs" in one.source.reason
        client.delete("jobs")
        client.lpush("jobs", b"2")
        await until(lambda: hand.payloads == [b"1", b"2"])
        await until(lambda: one.source.up)
        await until(lambda: one.source.in_flight == 0)
        client.set("jobs", "a string")
        await until(lambda: not one.source.up)
        client.delete("jobs")
        await until(lambda: one.source.up)


@pytest.mark.parametrize(
    "command", sorted({*COMMANDS.split()} - {"+ping", "+echo", "+client", "+set", "+smembers", "+del", "+exists"})
)
async def test_what_is_not_allowed_shows_at_the_start(redis_server, clock, command):
    redis_server.do("ACL", "SETUSER", "app", "on", ">secret", "+@all", f"-{command[1:]}", "~*")
    if command == "+evalsha":
        redis_server.do("ACL", "SETUSER", "app", "-eval")
    one = Taker(f"redis://app:secret@127.0.0.1:{redis_server.port}", ["jobs"], Hand(), clock)
    with pytest.raises(ConfigError) as caught:
        await one.start()
    told = str(caught.value)
    assert "secret" not in told
    assert command[1:].upper() in told or command.startswith("+eval")
    assert f"a restricted user needs: ACL SETUSER … ~jobs ~{{jobs}}:event-router:* {COMMANDS}" in told
    await one.end()


async def test_a_list_that_the_user_may_not_read_shows_at_the_start(redis_server, clock):
    redis_server.do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~other", "~{jobs}:*")
    one = Taker(f"redis://app:secret@127.0.0.1:{redis_server.port}", ["jobs"], Hand(), clock)
    with pytest.raises(ConfigError, match="on the list 'jobs'"):
        await one.start()
    await one.end()


async def test_the_rights_that_the_documentation_names_are_enough(redis_server, make):
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER router on >… (~jobs [^`]*)```", text, re.MULTILINE)
    assert {*rights.split()} == {"~jobs", "~{jobs}:event-router:*", *COMMANDS.split()}
    redis_server.do("ACL", "SETUSER", "app", "on", ">secret", *rights.split())
    hand, other = Hand(at_once=False), Hand()
    url = f"redis://app:secret@127.0.0.1:{redis_server.port}"
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2", b"3")
        one = await make(url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 3)
        hand.settle_first(1)
        await until(lambda: one.source.in_flight == 2)
        await one.end()
        one = await make(url, "jobs", hand=(hand := Hand(at_once=False)))
        await until(lambda: len(hand.held) == 2)
        await one.die()
        await make(url, "jobs", hand=other, consumer="b")
        await until(lambda: other.payloads == [b"2", b"3"])
        await until(lambda: not left(client))
        assert client.acl_log() == []


async def test_no_server_at_the_start(clock):
    one = Taker("redis://127.0.0.1:1", ["jobs"], Hand(), clock, connect_timeout=1.0)
    with pytest.raises(UnavailableError, match="refused"):
        await one.start()
    await one.end()


async def test_a_server_that_is_gone_for_a_while(redis_server, make):
    """Restarted empty: what was in hand is delivered, what comes then is taken, and nothing stays behind."""
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 2)
    redis_server.kill()
    await until(lambda: not one.source.up)
    hand.settle_first(1)
    with structlog.testing.capture_logs() as logs:
        redis_server.start()
        await until(lambda: one.source.up)
        with redis_server.client() as client:
            client.lpush("jobs", b"3")
            await until(lambda: hand.payloads == [b"1", b"2", b"3"])
            hand.settle()
            await until(lambda: one.source.in_flight == 0 and not left(client))
            assert hand.refused == []
    told = "the items in flight were deleted from Redis: the 1 item of this router will be delivered, but items of other routers may be lost"
    assert [line["event"] for line in logs if "deleted from Redis" in line["event"]] == [told]


async def test_a_group_that_is_lost_is_made_anew_at_the_beginning(redis_server, make):
    """What this router has in hand is not taken again; what one had that died is."""
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.lpush("jobs", b"dead")
        dead = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), consumer="b")
        await until(lambda: hand.held)
        await dead.die()
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=(hand := Hand(at_once=False)), lease=PATIENCE)
        await until(lambda: len(hand.held) == 2)
        client.xgroup_destroy(items(), GROUP)
        await until(lambda: hand.payloads == [b"1", b"2", b"dead"])
        assert {*in_flight(client)} == {b"1", b"2", b"dead"}
        client.lpush("jobs", b"3")
        await until(lambda: hand.payloads[3:] == [b"3"])
        hand.settle()
        await until(lambda: not left(client))
        assert one.source.resets == 1
    assert len([line for line in logs if "was deleted" in line["event"]]) == 1


async def test_cuts_at_any_moment_lose_nothing(redis_server, make):
    """Answers of every command are lost again and again; each item is settled at least once, none stays behind."""
    hand = Hand()
    total = 3000
    async with Proxy(redis_server.port) as proxy:
        one = await make(proxy.url, "jobs", hand=hand, lease=30.0)
        with redis_server.client() as client:
            for begin in range(0, total, 100):
                client.lpush("jobs", *range(begin, begin + 100))
                proxy.blackhole(DOWN)
                await moment(0.003)
                proxy.reset()
                proxy.heal()
                await moment(0.005)
            await until(lambda: len(set(hand.payloads)) == total)
            await until(lambda: not left(client) and not one.source.in_flight)
            assert len(hand.payloads) == total
        await one.end()


async def test_observing_takes_nothing(redis_server, make):
    hand = Hand()
    with redis_server.client() as client:
        client.lpush("jobs", b"1")
        one = await make(redis_server.url, "jobs", hand=hand, observe=True)
        await until(lambda: one.source.up)
        await one.end()
        assert client.keys("*") == [b"jobs"]
        assert hand.payloads == []
        assert client.info("clients")["connected_clients"] == 1


async def test_a_full_memory_is_an_outage(redis_server, make):
    hand = Hand(at_once=False)
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        one = await make(redis_server.url, "jobs", hand=hand)
        await until(lambda: len(hand.held) == 2)
        client.config_set("maxmemory", 1)
        hand.settle()
        await until(lambda: in_flight(client) == [])
        await until(lambda: not one.source.up)
        assert "maxmemory" in one.source.reason
        client.config_set("maxmemory", 0)
        client.lpush("jobs", b"3")
        await until(lambda: one.source.up and hand.payloads[2:] == [b"3"])


async def test_a_source_that_takes_anothers_place_leaves_its_items_alone(redis_server, make, clock):
    """As a reload does: the old one is stopped, what it has in hand goes on, the new one reads."""
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", b"1", b"2")
        old = await make(redis_server.url, "jobs", hand=first)
        await until(lambda: len(first.held) == 2)
        new = Taker(redis_server.url, ["jobs"], second, clock)
        new.source.replace(old.source)
        await old.stop()
        client.lpush("jobs", b"3")
        await new.start()
        await until(lambda: second.payloads == [b"3"])
        first.settle_first(1)
        await until(lambda: old.source.in_flight == 1 and in_flight(client) == [b"2"])
        await new.die()
        await old.end()
        await until(lambda: places(client)[0] == [b"2"])
        third = Hand()
        await make(redis_server.url, "jobs", hand=third)
        await until(lambda: third.payloads and not left(client))
        assert third.payloads == [b"2"]


async def test_an_outage_longer_than_the_lease_does_not_make_peers_rob_each_other(redis_server, make):
    """Leases run out while the server stands still; who is alive renews his before anybody may take his items."""
    first, second = Hand(at_once=False), Hand()
    with redis_server.client() as client:
        client.lpush("jobs", *range(5))
        await make(redis_server.url, "jobs", hand=first, lease=3.0)
        await until(lambda: len(first.held) == 5)
        await make(redis_server.url, "jobs", hand=second, consumer="b", lease=3.0)
        redis_server.pause()
        await moment(3.5)
        redis_server.resume()
        client.lpush("jobs", b"new")
        await until(lambda: len(first.held) + len(second.payloads) == 6)
        await stays(lambda: len(first.held) + len(second.payloads) == 6, 3.0)
        first.settle()
        await until(lambda: not left(client))


# What the version before 0.1.0 left.


async def test_what_an_older_version_left_is_taken_first(redis_server, make):
    """Of routers that are gone and of one with our name; one that lives keeps what it has."""

    with redis_server.client() as client:
        client.lpush("jobs", b"8", b"9")
        client.sadd(beside("consumers"), "in:a", "in:a~1", "in:gone", "in:alive")
        for owner in ("in:a", "in:alive"):
            client.set(beside("lease", owner), "process", ex=60)
        client.lpush(beside("processing", "in:a"), b"6", b"7")
        client.lpush(beside("handed", "in:a~1"), b"5")
        client.lpush(beside("processing", "in:gone"), b"3", b"4")
        client.hset(beside("settled", "in:gone"), "gone", 17)
        client.lpush(beside("processing", "in:alive"), b"alive")
        client.lpush(beside("returned"), b"1")
        client.lpush(beside("returned-handed"), b"2")
        client.hset(beside("counts"), "x", 2)
        hand = Hand()
        with structlog.testing.capture_logs() as logs:
            one = await make(redis_server.url, "jobs", hand=hand)
            await until(lambda: len(hand.payloads) == 9)
        assert {*hand.payloads} == {b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"}
        assert hand.payloads[0] == b"1"
        assert hand.payloads[-2:] == [b"8", b"9"]
        assert [line["number"] for line in logs if "older version" in line["event"]] == [7]
        await one.end()
        assert client.lrange(beside("processing", "in:alive"), 0, -1) == [b"alive"]
        client.delete(beside("lease", "in:alive"))
        await make(redis_server.url, "jobs", hand=(again := Hand()))
        await until(lambda: again.payloads == [b"alive"])
        assert client.keys("{jobs}*") == [items().encode()]
