"""Streams that are trimmed under the router, and entries that peers have taken over: nothing is lost unseen."""

from __future__ import annotations

import random

import pytest
from structlog.testing import capture_logs

from router.broker.groups.group import Group
from router.broker.groups.group_stream import Membership, Stream
from router.broker.groups.in_flight import Names
from router.broker.server import client
from router.broker.server.link import Link
from router.core.accounts.books import SourceBook
from tests.broker.conftest import until
from tests.support.proxy import Proxy
from tests.support.streams import Desk, add, pending, running, server_ms


@pytest.fixture
def desk():
    return Desk()


class Hand:
    """A clock that stands still but for what it is turned."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


async def renewed(source, hand, times=3):
    """Turn the clock until so many renewals were answered, of a source whose `claim_idle` is 30 s."""
    for _ in range(times):
        hand.time += 15.0
        source.reader.acknowledger.wake()
        await until(lambda: all(batch.since == hand.time for batch in source.streams[0].in_flight.batches))


async def asked(server, times):
    """Wait until somebody has asked so many times what is pending, to renew it or to take it over."""

    def calls():
        return server.do("INFO", "commandstats").get("cmdstat_xpending", {"calls": 0})["calls"]

    for _ in range(times):
        before = calls()
        await until(lambda before=before: calls() > before)


def owners(server, stream="billing"):
    return [owner for owner, _ in pending(server, stream).values()]


# What was read is delivered.


@pytest.mark.parametrize("how", [("XTRIM", "MAXLEN", "=", 2), ("XTRIM", "MAXLEN", "=", 0), ("XDEL",)])
async def test_what_is_trimmed_while_it_is_in_hand_is_delivered_and_is_no_loss(redis_server, desk, how):
    desk.hold, hand = True, Hand()
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    with capture_logs() as logs:
        async with running(redis_server.url, ["billing"], desk, hand, claim_idle=30.0) as source:
            await until(lambda: len(desk.held) == 10)
            redis_server.do(how[0], "billing", *(ids[3:5] if how[0] == "XDEL" else how[1:]))
            await renewed(source, hand)
            desk.settle()
            await until(lambda: not pending(redis_server, "billing"))
            assert (source.trimmed, source.possibly_repeated) == (0, 0)
    assert (desk.payloads, desk.refused) == ([b"%d" % n for n in range(10)], [])
    assert not [line for line in logs if "trimmed" in line["event"]]


async def test_a_renewal_takes_nothing_back_from_a_peer(redis_server, desk):
    desk.hold, hand = True, Hand()
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(4)])
    async with running(redis_server.url, ["billing"], desk, hand, claim_idle=30.0) as source:
        await until(lambda: len(desk.held) == 4)
        with redis_server.client() as other:
            other.xclaim("billing", "g", "peer", 0, ids[1:3], justid=True)
        await renewed(source, hand)
        assert owners(redis_server) == ["me", "peer", "peer", "me"]
        await source.stop()
        await source.close()  # what is given back is ours alone, too
        assert owners(redis_server) == ["me", "peer", "peer", "me"]


async def test_what_a_peer_has_too_is_delivered_and_called_possibly_repeated(redis_server, desk):
    desk.hold, hand = True, Hand()
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(4)])
    async with running(redis_server.url, ["billing"], desk, hand, claim_idle=30.0) as source:
        await until(lambda: len(desk.held) == 4)
        with redis_server.client() as other:
            other.xclaim("billing", "g", "peer", 0, ids[1:3], justid=True)
        await renewed(source, hand)
        desk.settle()
        await until(lambda: source.possibly_repeated == 2)


async def test_an_entry_is_undisputed_as_long_as_its_last_renewal_says(redis_server, desk):
    """Entry 0 is gone right after a renewal, entry 1 long after the last one, which the network swallowed."""
    desk.hold = True
    hand = Hand()
    add(redis_server, "billing", b"0", b"1", b"2")
    async with (
        Proxy(redis_server.port) as proxy,
        running(proxy.url, ["billing"], desk, hand, claim_idle=30.0, marks="{r}:handed") as source,
    ):
        await until(lambda: len(desk.held) == 3)
        await renewed(source, hand, 4)  # two times `claim.idle` after it was read
        (receipt, first, _), (_, second, _), (_, third, _) = desk.held
        receipt.gone(first)
        receipt.settle(first)
        assert source.possibly_repeated == 0
        hand.time += 28.0
        receipt.gone(second)
        receipt.settle(second)
        receipt.settle(third)
        assert source.possibly_repeated == 1
        desk.held.clear()


async def test_an_entry_that_was_left_to_a_peer_is_not_acknowledged_from_here(redis_server, desk, clock):
    """Its deliveries to Redis queues are the peer's; those to memory end here, and are no reason to acknowledge it."""
    desk.hold = True
    ids = add(redis_server, "billing", b"0", b"1")
    async with running(redis_server.url, ["billing"], desk, clock, marks="{r}:handed") as source:
        await until(lambda: len(desk.held) == 2)
        with redis_server.client() as other:
            other.xclaim("billing", "g", "peer", 0, ids[:1], justid=True)
        receipt, position, _ = desk.held[0]
        receipt.taken_over(position)
        assert receipt.removal(position, whole=True) is None
        desk.settle()
        await until(lambda: len(pending(redis_server, "billing")) == 1)
        assert (owners(redis_server), source.in_flight) == (["peer"], 0)


# Pending entries of a router that ended.


async def test_what_was_trimmed_in_the_hand_of_a_router_that_died_is_counted_by_its_next_life(
    redis_server, desk, clock
):
    desk.hold, hand = True, Hand()
    add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with running(redis_server.url, ["billing"], desk, hand, crash=True, claim_idle=30.0) as source:
        await until(lambda: len(desk.held) == 10)
        redis_server.do("XTRIM", "billing", "MAXLEN", "=", 2)
        await renewed(source, hand)
    again = Desk()
    with capture_logs() as logs:
        async with running(redis_server.url, ["billing"], again, clock) as source:
            await until(lambda: len(again.payloads) == 2)
            await until(lambda: not pending(redis_server, "billing"))
            assert (source.trimmed, source.trimmed_exact) == (8, True)
    (line,) = [line for line in logs if "trimmed" in line["event"]]
    assert (line["number"], line["counted"]) == (8, "exactly")
    assert "before they were read" not in line["event"]


@pytest.mark.parametrize("alive", [True, False])
async def test_trimmed_entries_of_a_peer_are_its_own_as_long_as_it_lives(redis_server, desk, clock, alive):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(5)])
    mine = Desk()
    idle = 2 if alive else 0.6  # on a busy machine, a peer may not renew its entries within 0.6 s
    async with running(
        redis_server.url, ["billing"], desk, clock, consumer="peer", claim_idle=idle, crash=not alive, max_in_flight=5
    ) as peer:
        await until(lambda: len(desk.held) == 5)
        read_at = server_ms(redis_server)
        redis_server.do("XTRIM", "billing", "MAXLEN", "=", 0)
        if alive:
            async with running(redis_server.url, ["billing"], mine, clock, claim_idle=idle) as source:
                # Trimmed entries can't be renewed. They are the peer's even after their idle time, because the peer lives.
                await until(lambda: server_ms(redis_server) > read_at + 1.5 * idle * 1000)
                await asked(redis_server, 12)
                assert owners(redis_server) == ["peer"] * 5
                assert source.trimmed == peer.trimmed == 0
                desk.settle()
                await until(lambda: not pending(redis_server, "billing"))
    if not alive:
        async with running(redis_server.url, ["billing"], mine, clock, claim_idle=idle) as source:
            await until(lambda: source.trimmed == 5)
            assert not pending(redis_server, "billing")
            assert source.trimmed_exact
    assert mine.payloads == []


# Entries that were trimmed before anybody had read them.


async def test_what_was_trimmed_unread_is_counted_once_however_often_the_router_starts(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    with capture_logs() as logs:
        async with running(redis_server.url, ["billing"], desk, clock, max_in_flight=2) as source:
            await until(lambda: len(desk.held) == 2)
            redis_server.do("XTRIM", "billing", "MAXLEN", "=", 3)
            await until(lambda: source.trimmed)
            desk.hold = False
            desk.settle()
            await until(lambda: desk.payloads == [b"0", b"1", b"7", b"8", b"9"])
            await until(lambda: not pending(redis_server, "billing"))
            assert (source.trimmed, source.trimmed_exact) == (5, True)
    (line,) = [line for line in logs if "trimmed" in line["event"]]
    assert (line["number"], line["in_all"], line["counted"]) == (5, 5, "exactly")
    add(redis_server, "billing", *[b"%d" % n for n in range(10, 16)])
    redis_server.do("XTRIM", "billing", "MAXLEN", "=", 2)
    for number in (4, 0):
        again = Desk()
        async with running(redis_server.url, ["billing"], again, clock) as source:
            await until(lambda number=number: source.trimmed == number and source.up)
            add(redis_server, "billing", b"last")
            await until(lambda again=again: b"last" in again.payloads)
            assert (source.trimmed, source.trimmed_exact) == (number, True)


async def test_the_count_goes_on_when_another_source_takes_over(redis_server, desk, clock):
    book = SourceBook()
    for number in (5, 9):
        desk.hold = True
        add(redis_server, "billing", *[b"%d" % n for n in range(10)])
        async with running(redis_server.url, ["billing"], desk, clock, max_in_flight=2, book=book) as source:
            await until(lambda: len(desk.held) == 2)
            redis_server.do("XTRIM", "billing", "MAXLEN", "=", 3)
            await until(lambda number=number: source.trimmed >= number)
            desk.hold = False
            desk.settle()
            await until(lambda: not pending(redis_server, "billing"))
    assert (book.trimmed, book.trimmed_exact) == (10, True)


async def test_a_stream_that_was_trimmed_before_its_group_was_made_has_lost_us_nothing(redis_server, desk, clock):
    add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    redis_server.do("XTRIM", "billing", "MAXLEN", "=", 3)
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: len(desk.payloads) == 3)
        assert (source.trimmed, source.trimmed_exact) == (0, True)
    add(redis_server, "billing", *[b"%d" % n for n in range(5)])
    redis_server.do("XTRIM", "billing", "MAXLEN", "=", 0)
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: source.trimmed == 5)
        assert source.trimmed_exact


async def test_what_was_trimmed_unread_is_counted_by_one_of_two_routers(redis_server, clock):
    hands = Desk(), Desk()
    for hand in hands:
        hand.hold = True
    options = {"max_in_flight": 1, "claim_idle": 2.0}
    add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with (
        running(redis_server.url, ["billing"], hands[0], clock, **options) as one,
        running(redis_server.url, ["billing"], hands[1], clock, consumer="peer", **options) as two,
    ):
        await until(lambda: hands[0].held and hands[1].held)
        redis_server.do("XTRIM", "billing", "MAXLEN", "=", 1)
        await until(lambda: one.trimmed + two.trimmed == 7)
        for hand in hands:
            hand.hold = False
            hand.settle()
        await until(lambda: not pending(redis_server, "billing"))
        assert one.trimmed + two.trimmed == 7
    assert len(hands[0].payloads + hands[1].payloads) == 3


async def test_where_entries_were_deleted_ahead_it_is_at_least_so_many(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with running(redis_server.url, ["billing"], desk, clock, max_in_flight=2) as source:
        await until(lambda: len(desk.held) == 2)
        redis_server.do("XDEL", "billing", ids[5], ids[7])
        await until(lambda: not source.trimmed_exact)
        desk.hold = False
        desk.settle()
        await until(lambda: len(desk.payloads) == 8)
        assert source.trimmed <= 2


@pytest.mark.parametrize("seed", range(6))
async def test_the_servers_own_counts_give_what_is_lost_whatever_happens_in_between(redis_server, seed):
    """Entries are added, read, trimmed and looked at in any order. What is neither read nor there is counted, exactly."""
    chance = random.Random(seed)
    link = Link(client.server(redis_server.url))
    stream = Stream(Names(b"s", "g", "me"))
    group = Group(link, Membership(group="g", consumer="me", start="oldest" if seed % 2 else "new"))
    with redis_server.client() as other:
        before = chance.randrange(20)
        for _ in range(before):
            other.xadd("s", {"payload": b"old"})
        other.xtrim("s", maxlen=chance.randrange(20), approximate=False)
        left = other.xlen("s") if seed % 2 else 0
        await group.make(stream)
        added, read, counted = left, 0, await group.check_progress(stream)
        for _ in range(150):
            act = chance.choice(["add", "add", "read", "read", "trim", "look"])
            number = chance.randrange(1, 12)
            if act == "add":
                for _ in range(number):
                    other.xadd("s", {"payload": b"x"})
                added += number
            elif act == "trim":
                other.xtrim("s", maxlen=number, approximate=False)
            elif act == "look":
                counted += await group.check_progress(stream)
            else:
                answer = await link.call("XREADGROUP", "GROUP", "g", "me", "COUNT", number, "STREAMS", "s", ">")
                got = len(answer[0][1]) if answer else 0
                read += got
                stream.progress.delivered += got
        answer = await link.call("XREADGROUP", "GROUP", "g", "me", "STREAMS", "s", ">")
        read += len(answer[0][1]) if answer else 0
        stream.progress.delivered += len(answer[0][1]) if answer else 0
        counted += await group.check_progress(stream)
        assert (read + counted, stream.progress.exact) == (added, True)
        assert other.xinfo_groups("s")[0]["lag"] == 0, "what is gone is not called unread for ever"
    await link.close()
