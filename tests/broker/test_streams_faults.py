"""The stream source when the server, the network or somebody at the keyboard takes something away from under it."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from tests.support.proxy import UP, Proxy
from tests.support.streams import QUICK, WATCHFUL, Desk, add, consumers, pending, running
from tests.support.waiting import PATIENCE, stays, until


@pytest.fixture
def desk():
    return Desk()


def lines(log, part):
    return [one for one in log if part in one["event"]]


@pytest.fixture
def log():
    from structlog.testing import capture_logs

    with capture_logs() as found:
        yield found


@pytest.mark.parametrize("how", ["FLUSHALL", "DEL"])
async def test_a_lost_stream_is_read_from_its_beginning(redis_server, desk, clock, log, how):
    add(redis_server, "billing", b"1", b"2")
    async with running(redis_server.url, ["billing"], desk, clock, start="new", claim_idle=0.6) as source:
        add(redis_server, "billing", b"3")
        await until(lambda: desk.payloads == [b"3"])
        await until(lambda: not pending(redis_server, "billing"))
        with redis_server.client() as client:  # in one go: the new entry is there before anybody can notice
            pipeline = client.pipeline()
            pipeline.execute_command(*(["FLUSHALL"] if how == "FLUSHALL" else ["DEL", "billing"]))
            pipeline.xadd("billing", {"payload": b"4"})
            pipeline.execute()
        await until(lambda: desk.payloads == [b"3", b"4"])
        await until(lambda: source.up)
        assert source.resets == 1
        assert len(lines(log, "the router creates the group again")) == 1
        add(redis_server, "billing", b"5")
        await until(lambda: len(desk.payloads) == 3)


async def test_a_lost_stream_that_begins_with_small_ids_again_is_read_whole(redis_server, desk, clock):
    async with running(redis_server.url, ["billing"], desk, clock):
        redis_server.do("XADD", "billing", "100-1", "payload", "old")
        await until(lambda: desk.payloads == [b"old"])
        with redis_server.client() as client:
            pipeline = client.pipeline()
            pipeline.delete("billing")
            pipeline.xadd("billing", {"payload": b"new"}, id="1-1")
            pipeline.execute()
        await until(lambda: len(desk.payloads) == 2)
        await until(lambda: not pending(redis_server, "billing"))
        assert desk.payloads == [b"old", b"new"]


async def test_what_is_in_hand_of_a_lost_stream_acknowledges_nothing_of_the_new_one(redis_server, desk, clock):
    desk.hold = True
    redis_server.do("XADD", "billing", "0-1", "payload", "older")
    async with running(redis_server.url, ["billing"], desk, clock, start="new", claim_idle=0.6) as source:
        redis_server.do("XADD", "billing", "1-1", "payload", "old")
        await until(lambda: desk.payloads == [b"old"] and source.streams[0].progress.added == 2)
        redis_server.do("DEL", "billing")
        redis_server.do("XADD", "billing", "1-1", "payload", "new")
        await until(lambda: desk.payloads == [b"old", b"new"])
        desk.settle(b"old")
        add(redis_server, "billing", b"more")
        await until(lambda: len(desk.payloads) == 3)
        desk.settle(b"more")
        await until(lambda: list(pending(redis_server, "billing")) == ["1-1"])
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))
        assert desk.payloads == [b"old", b"new", b"more"]


async def test_a_lost_group_goes_on_where_it_was(redis_server, desk, clock, log):
    add(redis_server, "billing", *[b"%d" % n for n in range(500)])
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: len(desk.payloads) == 500)
        await until(lambda: not pending(redis_server, "billing"))
        redis_server.do("XGROUP", "DESTROY", "billing", "g")
        add(redis_server, "billing", *[b"%d" % n for n in range(500, 600)])
        await until(lambda: len(desk.payloads) >= 600)
        await until(lambda: not pending(redis_server, "billing"))
        assert desk.payloads == [b"%d" % n for n in range(600)]
        assert source.resets == 1
        assert len(lines(log, "the consumer group was deleted")) == 1


async def test_a_lost_group_brings_back_what_is_unsettled_and_what_is_in_hand_is_not_sent_again(
    redis_server, desk, clock
):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with running(redis_server.url, ["billing"], desk, clock, crash=True):
        await until(lambda: len(desk.held) == 10)
        desk.settle(*[b"%d" % n for n in range(5)])
        await until(lambda: len(pending(redis_server, "billing")) == 5)
        redis_server.do("XGROUP", "DESTROY", "billing", "g")
        with redis_server.client() as client:
            await until(lambda: client.xinfo_groups("billing"))
        await until(lambda: len(pending(redis_server, "billing")) == 5)
        desk.settle(b"5")
        await until(lambda: list(pending(redis_server, "billing")) == ids[6:])
        assert len(desk.payloads) == 10
    again = Desk()
    async with running(redis_server.url, ["billing"], again, clock):
        await until(lambda: again.payloads == [b"6", b"7", b"8", b"9"])


async def test_what_is_over_does_not_come_again_though_something_older_is_not(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(100)])
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: len(desk.held) == 100)
        desk.settle(*[b"%d" % n for n in range(1, 50)])
        await until(lambda: len(pending(redis_server, "billing")) == 51)
        redis_server.do("XGROUP", "DESTROY", "billing", "g")
        desk.settle(*[b"%d" % n for n in range(50, 99)])
        ids += add(redis_server, "billing", b"100")
        await until(lambda: len(desk.payloads) == 101)
        assert list(pending(redis_server, "billing")) == [ids[0], ids[99], ids[100]]
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))
        assert len(desk.payloads) == 101


async def test_what_was_handed_over_while_there_was_no_group_does_not_stay_pending(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", b"0", b"1")
    async with running(redis_server.url, ["billing"], desk, clock, marks="{r}:handed"):
        await until(lambda: len(desk.held) == 2)
        redis_server.do("XGROUP", "DESTROY", "billing", "g")
        with redis_server.client() as client:
            await until(lambda: client.xinfo_groups("billing"))
        await until(lambda: list(pending(redis_server, "billing")) == ids)
        receipt, position, _ = desk.held.pop(0)
        receipt.gone(position)  # a script that ran before the group was made anew has queued it
        receipt.marked(position)
        receipt.settle(position)
        await until(lambda: list(pending(redis_server, "billing")) == ids[1:])
        assert len(desk.payloads) == 2


async def test_a_group_that_somebody_else_made_anew_further_on_costs_nothing_that_is_in_hand(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", b"0", b"1")
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: len(desk.held) == 2)
        with redis_server.client() as client:
            pipeline = client.pipeline()
            pipeline.xgroup_destroy("billing", "g")
            pipeline.xgroup_create("billing", "g", "$")
            pipeline.execute()
        (stream,) = source.streams
        stream.progress.lost = True  # as an answer of the server may have told, or not, in so short a time
        assert await source.reader.group.heal(stream) is None
        assert list(pending(redis_server, "billing")) == ids
        add(redis_server, "billing", b"2")
        await until(lambda: len(desk.payloads) == 3)
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))


async def test_what_is_over_while_the_group_is_made_anew_is_not_taken_for_unfinished(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(3)])
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: len(desk.held) == 3)
        (stream,) = source.streams
        stream.in_flight.resumed(ids[2].encode(), ids[2].encode())
        desk.settle(b"0")
        await until(lambda: len(pending(redis_server, "billing")) == 2)  # acknowledged before it is made pending again
        await source.reader.group.heal(stream)
        await until(lambda: list(pending(redis_server, "billing")) == ids[1:])
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))
    assert len(desk.payloads) == 3


async def test_where_others_read_too_it_is_known_all_the_time_how_far_the_group_has_come(
    redis_server, desk, clock, monkeypatch
):
    monkeypatch.setattr("router.broker.groups.group_reader.CHECK_EVERY", 0.05)
    monkeypatch.setattr("router.core.delivery.claims.LOOK_AT_LEAST_EVERY", 1000.0)
    url, other = redis_server.url, Desk()
    async with (
        running(url, ["billing"], other, clock, consumer="peer"),
        running(url, ["billing"], desk, clock, claim_idle=3000.0) as source,
    ):
        (progress,) = [stream.progress for stream in source.streams]
        await until(lambda: consumers(redis_server, "billing") == ["me", "peer"])
        await until(lambda: progress.peers)
        (entry,) = add(redis_server, "billing", b"1")
        await until(lambda: progress.group_last == entry.encode())
        assert other.payloads + desk.payloads == [b"1"]


def looks(server):
    """How often somebody has looked how far the group has come and who reads in it."""
    return server.do("INFO", "commandstats")["cmdstat_xinfo|consumers"]["calls"]


async def test_what_a_peer_had_in_hand_comes_back_with_the_group(redis_server, desk, clock):
    peer = Desk()
    peer.hold = True
    add(redis_server, "billing", b"of the peer")
    async with running(redis_server.url, ["billing"], peer, clock, consumer="peer", crash=True):
        await until(lambda: peer.held)
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=3.0):
        add(redis_server, "billing", b"mine")
        await until(lambda: desk.payloads == [b"mine"])
        before = looks(redis_server)
        await until(lambda: looks(redis_server) > before + 1)
        redis_server.do("XGROUP", "DESTROY", "billing", "g")
        # The group goes on at the oldest entry that was pending, the peer's: what came after it may come again.
        await until(lambda: b"of the peer" in desk.payloads)
        assert desk.payloads[0] == b"mine"


async def test_a_group_destroyed_again_and_again_costs_no_hot_loop(redis_server, desk, clock):
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: source.up)

        def made():
            return redis_server.do("INFO", "commandstats").get("cmdstat_xgroup|create", {"calls": 1})["calls"]

        def destroyed_often():
            redis_server.do("XGROUP", "DESTROY", "billing", "g")
            return made() >= before + 30

        before, began = made(), time.monotonic()
        await until(destroyed_often)
        assert time.monotonic() - began > 0.5, "it is made anew less than sixty times a second"
        add(redis_server, "billing", b"1")
        await until(lambda: desk.payloads == [b"1"])


async def test_a_restart_of_an_empty_server(redis_server, desk, clock, log):
    streams = ["a", "b"]
    async with running(redis_server.url, streams, desk, clock) as source:
        add(redis_server, "a", b"1")
        await until(lambda: desk.payloads == [b"1"])
        redis_server.kill()
        await until(lambda: not source.up)
        assert "connection refused" in (source.reason or "") or source.reason
        redis_server.start()
        add(redis_server, "a", b"2")
        add(redis_server, "b", b"3")
        await until(lambda: len(desk.payloads) == 3)
        assert (source.up, source.resets) == (True, 2)
    said = len(lines(log, "does not read"))
    assert said <= 1  # none where the server is back before the next try
    assert len(lines(log, "the source reads again")) == said


async def test_a_key_that_became_something_else_is_a_state_and_not_the_end(redis_server, desk, clock, log):
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        redis_server.do("DEL", "billing")
        redis_server.do("SET", "billing", "x")
        await until(lambda: "is not a stream" in (source.reason or ""))
        redis_server.do("DEL", "billing")
        add(redis_server, "billing", b"1")
        await until(lambda: desk.payloads == [b"1"])
        await until(lambda: source.up)
    assert len(lines(log, "does not read")) <= 2


async def test_a_killed_connection_loses_and_repeats_nothing(redis_server, desk, clock):
    async with running(redis_server.url, ["billing"], desk, clock):
        for n in range(20):
            add(redis_server, "billing", *[b"%d" % m for m in range(n * 100, n * 100 + 100)])
            redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda n=n: len(desk.payloads) > n * 100)
        await until(lambda: len(desk.payloads) >= 2000)
        await until(lambda: not pending(redis_server, "billing"))
    assert sorted(desk.payloads) == sorted(b"%d" % n for n in range(2000))


async def test_a_lost_reply_is_read_again(redis_server, desk, clock):
    timing = replace(QUICK, block=1.5, dead_after=2.0)
    async with (
        Proxy(redis_server.port) as proxy,
        running(proxy.url, ["billing"], desk, clock, timing=timing) as source,
    ):
        await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"])
        proxy.blackhole("down")
        add(redis_server, "billing", *[b"%d" % n for n in range(50)])
        await until(lambda: pending(redis_server, "billing"))
        assert desk.payloads == []
        await until(lambda: not source.up)
        proxy.heal()
        await until(lambda: len(desk.payloads) == 50)
        await until(lambda: not pending(redis_server, "billing"))
        assert desk.payloads == [b"%d" % n for n in range(50)]


async def test_lost_acknowledgements_are_sent_again(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(50)])
    async with Proxy(redis_server.port) as proxy, running(proxy.url, ["billing"], desk, clock):
        await until(lambda: len(desk.held) == 50)
        proxy.blackhole(UP)
        desk.settle()
        await stays(lambda: len(pending(redis_server, "billing")) == 50, 0.2)
        proxy.heal()
        proxy.reset()
        await until(lambda: not pending(redis_server, "billing"))
        await stays(lambda: len(desk.payloads) == 50, 0.2)


async def test_a_server_that_stands_still_is_noticed_and_nothing_is_lost(redis_server, desk, clock, log):
    async with running(redis_server.url, ["billing"], desk, clock, timing=WATCHFUL) as source:
        add(redis_server, "billing", b"1")
        await until(lambda: desk.payloads)
        redis_server.pause()
        try:
            await until(lambda: not source.up)
            assert "no answer in time" in (source.reason or "")
        finally:
            redis_server.resume()
        add(redis_server, "billing", b"2")
        await until(lambda: desk.payloads == [b"1", b"2"])
        await until(lambda: source.up)
    assert len(lines(log, "does not read")) == 1


async def test_a_dead_path_does_not_hold_the_end_up(redis_server, desk, clock):
    async with Proxy(redis_server.port) as proxy:
        async with running(proxy.url, ["billing"], desk, clock, timing=WATCHFUL) as source:
            await until(lambda: source.up)
            proxy.blackhole()
            await asyncio.wait_for(source.stop(), PATIENCE)
        assert not source.up


async def test_resets_without_end_follow_the_backoff(redis_server, desk, clock, monkeypatch):
    monkeypatch.setattr("router.broker.server.client.random.random", lambda: 1.0)
    add(redis_server, "billing", b"1")
    async with Proxy(redis_server.port) as proxy, running(proxy.url, ["billing"], desk, clock):
        await until(lambda: desk.payloads)
        before, began = proxy.accepted, time.monotonic()

        def reset_often():
            proxy.reset()
            return proxy.accepted - before >= 20

        await until(reset_often)
        assert time.monotonic() - began > 1  # two connections, delays that grow up to 0.2 s
        add(redis_server, "billing", b"2")
        await until(lambda: desk.payloads == [b"1", b"2"])


async def test_a_receiver_that_fails_is_logged_and_the_source_goes_on(redis_server, desk, clock, log):
    class Broken(Desk):
        def receive(self, source, batches):
            if b"bad" in batches[0].payloads:
                raise RuntimeError("a fault of ours")
            super().receive(source, batches)

    broken = Broken()
    add(redis_server, "billing", b"bad")
    async with running(redis_server.url, ["billing"], broken, clock, crash=True) as source:
        await until(lambda: lines(log, "the source reads again"))
        add(redis_server, "billing", b"good")
        await until(lambda: broken.payloads == [b"good"])
        await until(lambda: len(pending(redis_server, "billing")) == 1)
        assert source.up
    (line,) = lines(log, "does not read")
    assert isinstance(line["exc_info"], RuntimeError)
    async with running(redis_server.url, ["billing"], desk, clock):  # what could not be handed on is still pending
        await until(lambda: desk.payloads == [b"bad"])
