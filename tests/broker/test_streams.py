"""The stream source on real servers: what it reads, what it acknowledges and when, who gets what was left behind."""

import asyncio
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.pending import PendingEntries
from router.broker.server import client
from router.broker.server.link import Link
from router.errors import ConfigError, Reason, UnavailableError
from tests.broker.conftest import Neighbour
from tests.support.proxy import Proxy
from tests.support.redis import free_port
from tests.support.streams import (
    QUICK,
    Desk,
    Renewals,
    add,
    consumers,
    pending,
    running,
    set_count,
    source_of,
)
from tests.support.waiting import PATIENCE, stays, until


@pytest.fixture
def desk():
    return Desk()


async def test_an_entry_becomes_an_event_and_is_acknowledged(redis_server, desk, clock):
    [first] = add(redis_server, "billing", b'{"n": 1}')
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: desk.payloads == [b'{"n": 1}'])
        assert (source.up, source.reason, source.gaps) == (True, None, 0)
        [second] = add(redis_server, "billing", b'{"n": 2}')
        await until(lambda: len(desk.payloads) == 2)
        assert desk.ids == [f"billing/{first}", f"billing/{second}"]
        assert desk.headers == [{"redis-id": first}, {"redis-id": second}]
        await until(lambda: not pending(redis_server, "billing"))
    assert (source.up, source.reason) == (False, "stopped")


async def test_a_new_group_begins_where_it_is_told(redis_server, desk, clock):
    add(redis_server, "billing", b"old")
    async with running(redis_server.url, ["billing"], desk, clock, start="new"):
        add(redis_server, "billing", b"new")
        await until(lambda: desk.payloads)
        assert desk.payloads == [b"new"]


async def test_a_group_that_is_there_goes_on_where_it_was(redis_server, desk, clock):
    add(redis_server, "billing", b"1")
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: len(desk.payloads) == 1)
    add(redis_server, "billing", b"2")
    async with running(redis_server.url, ["billing"], desk, clock, start="new"):
        await until(lambda: len(desk.payloads) == 2)
    assert desk.payloads == [b"1", b"2"]


async def test_other_fields_are_headers_whatever_their_bytes(redis_server, desk, clock):
    redis_server.do("XADD", "billing", "1-1", "traceparent", "00-x", "payload", b"\xff", b"\xfe", b"caf\xc3\xa9\x80")
    redis_server.do("XADD", "billing", "1-2", "payload", "p", "redis-id", "not this")
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: len(desk.payloads) == 2)
    assert desk.payloads == [b"\xff", b"p"]
    assert desk.headers == [
        {"traceparent": "00-x", "\\xfe": "café\\x80", "redis-id": "1-1"},
        {"redis-id": "1-2"},
    ]


@pytest.mark.parametrize("stream", ["bücher", "a b\n", "k" * 200])
async def test_an_event_id_is_portable_whatever_the_key(start_server, desk, clock, stream):
    server = start_server()
    add(server, stream, b"1", b"2")
    async with running(server.url, [stream], desk, clock):
        await until(lambda: len(desk.payloads) == 2)
    assert all(len(one) <= 200 and one.isascii() and one.isprintable() for one in desk.ids)
    assert len(set(desk.ids)) == 2


async def test_entries_without_the_field_are_refused_and_acknowledged_after_the_letter(redis_server, desk, clock):
    desk.hold = True
    redis_server.do("XADD", "billing", "1-1", "data", "x", b"\xff", "y")
    redis_server.do("XADD", "billing", "1-2", "body", "good", "more", "h")
    async with running(redis_server.url, ["billing"], desk, clock, payload_field="body"):
        await until(lambda: desk.refused and desk.payloads)
        batch, reason, detail = desk.refused[0]
        assert (batch.channel, batch.payloads, batch.ids) == (b"billing", [b""], ["billing/1-1"])
        assert batch.headers == [{"data": "x", "\\xff": "y", "redis-id": "1-1"}]
        assert reason is Reason.FIELD
        assert detail == "the entry has no field 'body'; its fields: 'data', '\\\\xff'"
        assert desk.payloads == [b"good"]
        assert set(pending(redis_server, "billing")) == {"1-1", "1-2"}
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))


async def test_nothing_is_acknowledged_before_it_is_over_in_whatever_order(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(5)])
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: len(desk.payloads) == 5)
        assert list(pending(redis_server, "billing")) == ids
        desk.settle(b"3", b"1")
        await until(lambda: list(pending(redis_server, "billing")) == [ids[0], ids[2], ids[4]])
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))


async def test_an_entry_of_several_deliveries_waits_for_all_of_them(redis_server, clock):
    class Two(Desk):
        def receive(self, source, batches):
            super().receive(source, batches)
            for batch in batches:
                batch.receipt.add(0, 1)

    desk = Two()
    desk.hold = True
    add(redis_server, "billing", b"1")
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: desk.held)
        receipt, position, _ = desk.held[0]
        receipt.settle(position)
        redis_server.do("PING")
        assert len(pending(redis_server, "billing")) == 1
        receipt.settle(position)
        await until(lambda: not pending(redis_server, "billing"))


async def test_no_more_is_in_hand_than_allowed_over_all_streams(redis_server, desk, clock):
    desk.hold = True
    streams = ["a", "b", "c"]
    for stream in streams:
        add(redis_server, stream, *[b"%s%d" % (stream.encode(), n) for n in range(20)])
    async with running(redis_server.url, streams, desk, clock, max_in_flight=7):
        await until(lambda: len(desk.held) >= 6)
        for _ in range(5):
            # What is settled may still stand there, for its acknowledgement is on its way.
            assert sum(len(pending(redis_server, stream)) for stream in streams) <= 2 * 7
            desk.settle(desk.held[0][2])
            await until(lambda: 6 <= len(desk.held) <= 7)
        desk.hold = False
        desk.settle()
        await until(lambda: len(desk.payloads) == 60)
    assert len(set(desk.payloads)) == 60


@pytest.mark.parametrize("room", [1, 2])
async def test_every_stream_gets_its_turn_with_hardly_any_room(start_server, desk, clock, room):
    server = start_server()
    for stream in ("a", "b", "c"):
        add(server, stream, *[b"%d" % n for n in range(5)])
    async with running(server.url, ["a", "b", "c"], desk, clock, max_in_flight=room):
        await until(lambda: len(desk.payloads) == 15)
    assert {batch.channel for batch in desk.batches[:8]} == {b"a", b"b", b"c"}


# What was left behind.


async def test_own_history_comes_first_and_whole(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(1200)])
    async with running(redis_server.url, ["billing"], desk, clock, crash=True, max_in_flight=1000):
        await until(lambda: len(desk.payloads) == 1000)
    again = Desk()
    async with running(redis_server.url, ["billing"], again, clock):
        await until(lambda: len(again.payloads) == 1200)
        await until(lambda: not pending(redis_server, "billing"))
    assert again.payloads == [b"%d" % n for n in range(1200)]
    assert again.sizes[:10] == [100] * 10


async def test_an_orderly_end_gives_back_what_is_left_and_does_not_count_as_an_attempt(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", b"1", b"2")
    for _ in range(7):
        async with running(redis_server.url, ["billing"], desk, clock):
            await until(lambda: len(desk.held) == 2)
        desk.held.clear()
    assert pending(redis_server, "billing") == dict.fromkeys(ids, ("me", 0))
    assert desk.refused == []


async def test_what_is_complete_at_the_end_is_acknowledged(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(2000)])
    async with running(redis_server.url, ["billing"], desk, clock, max_in_flight=2000) as source:
        await until(lambda: len(desk.payloads) == 2000)
        await source.stop()
        desk.settle()
    assert pending(redis_server, "billing") == {}


async def test_a_dead_peers_entries_are_taken_over_and_its_name_is_cleared_away(redis_server, desk, clock):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(300)])
    async with running(redis_server.url, ["billing"], desk, clock, consumer="peer", crash=True, claim_idle=0.5):
        await until(lambda: len(desk.payloads) == 300)
    assert {owner for owner, _ in pending(redis_server, "billing").values()} == {"peer"}
    mine = Desk()
    async with running(redis_server.url, ["billing"], mine, clock, claim_idle=0.5):
        await until(lambda: len(mine.payloads) == 300)
        await until(lambda: not pending(redis_server, "billing"))
        await until(lambda: consumers(redis_server, "billing") == ["me"])
    assert sorted(mine.ids) == sorted(f"billing/{one}" for one in ids)


async def test_a_takeover_without_room_leaves_the_rest_for_later_and_goes_on_looking(redis_server, desk, clock):
    def looks():
        return redis_server.do("INFO", "commandstats").get("cmdstat_xinfo|groups", {}).get("calls", 0)

    peer = Desk()
    peer.hold = desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(8)])
    async with running(redis_server.url, ["billing"], peer, clock, consumer="peer", crash=True, claim_idle=0.5):
        await until(lambda: len(peer.held) == 8)
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=0.5, max_in_flight=5):
        await until(lambda: len(desk.held) == 5)
        before = looks()
        await until(lambda: looks() >= before + 2)
        assert len(desk.held) == 5
        desk.hold = False
        desk.settle()
        await until(lambda: len(desk.payloads) == 8)
    assert sorted(desk.payloads) == [b"%d" % n for n in range(8)]


async def test_a_consumer_with_pending_entries_is_never_deleted(redis_server, desk, clock):
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0", "MKSTREAM")
    add(redis_server, "billing", b"1")
    redis_server.do("XREADGROUP", "GROUP", "g", "peer", "STREAMS", "billing", ">")
    redis_server.do("XREADGROUP", "GROUP", "g", "idle", "STREAMS", "billing", ">")
    if "idle" not in consumers(redis_server, "billing"):  # Valkey and Redis 7 do not make one that gets nothing
        redis_server.do("XGROUP", "CREATECONSUMER", "billing", "g", "idle")
    desk.hold = True
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=0.3, max_in_flight=1):
        await until(lambda: "idle" not in consumers(redis_server, "billing"))
        await until(lambda: desk.held)
        assert len(pending(redis_server, "billing")) == 1


async def test_what_takes_long_is_renewed_and_stays_ours(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(50)])
    other = Desk()
    renewals = Renewals(redis_server, "billing")
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=2.0):
        await until(lambda: len(desk.held) == 50)
        async with running(redis_server.url, ["billing"], other, clock, consumer="peer", claim_idle=2.0):
            await until(lambda: renewals.seen() >= 6)  # twice the time after which it would be taken away
            assert other.payloads == []
            desk.settle()
            await until(lambda: not pending(redis_server, "billing"))
    assert len(desk.payloads) == 50


async def test_two_share_the_work_and_nothing_comes_twice(redis_server, clock):
    one, two = Desk(), Desk()
    async with (
        running(redis_server.url, ["billing"], one, clock, consumer="one"),
        running(redis_server.url, ["billing"], two, clock, consumer="two"),
    ):
        for n in range(40):
            add(redis_server, "billing", *[b"%d" % m for m in range(n * 50, n * 50 + 50)])
            await asyncio.sleep(0)
        await until(lambda: len(one.payloads) + len(two.payloads) >= 2000)
        await until(lambda: not pending(redis_server, "billing"))
    assert sorted(one.payloads + two.payloads) == sorted(b"%d" % n for n in range(2000))


@pytest.mark.parametrize("how", ["XTRIM", "XDEL"])
async def test_trimmed_entries_are_acknowledged_and_counted(redis_server, desk, clock, how):
    desk.hold = True
    ids = add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with running(redis_server.url, ["billing"], desk, clock, crash=True):
        await until(lambda: len(desk.payloads) == 10)
    redis_server.do(*(("XTRIM", "billing", "MAXLEN", 4) if how == "XTRIM" else ("XDEL", "billing", *ids[:6])))
    again = Desk()
    async with running(redis_server.url, ["billing"], again, clock) as source:
        await until(lambda: len(again.payloads) == 4)
        await until(lambda: not pending(redis_server, "billing"))
        assert source.trimmed == 6
    assert (again.payloads, again.refused) == ([b"6", b"7", b"8", b"9"], [])


async def test_trimmed_entries_of_a_dead_peer_are_counted_too(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", *[b"%d" % n for n in range(10)])
    async with running(redis_server.url, ["billing"], desk, clock, consumer="peer", crash=True):
        await until(lambda: len(desk.payloads) == 10)
    redis_server.do("XTRIM", "billing", "MAXLEN", 4)
    again = Desk()
    async with running(redis_server.url, ["billing"], again, clock, claim_idle=0.3) as source:
        await until(lambda: len(again.payloads) == 4 and source.trimmed == 6)
        await until(lambda: not pending(redis_server, "billing"))
        assert again.payloads == [b"6", b"7", b"8", b"9"]


# Poison.


async def test_what_kills_is_found_and_nobody_else_is(redis_server, clock):
    """Each life of the process ends when entry 30 is in flight."""
    add(redis_server, "billing", *[b"%d" % n for n in range(60)])
    seen: list[bytes] = []
    for _ in range(20):
        desk = Desk()
        desk.hold = True
        async with running(redis_server.url, ["billing"], desk, clock, crash=True):

            def over(desk=desk):
                if any(payload == b"30" for _, _, payload in desk.held):
                    return True
                desk.settle()
                return desk.refused and not pending(redis_server, "billing")

            await until(over)
        seen += desk.payloads
        if desk.refused:
            break
    [(batch, reason, detail)] = desk.refused
    assert (batch.payloads, reason) == ([b"30"], Reason.POISON)
    assert "Redis delivered this entry 5 times" in detail
    assert set(seen) == {b"%d" % n for n in range(60)}


async def test_an_attempt_that_comes_back_sets_the_count_back(redis_server, desk, clock):
    desk.hold = True
    [entry] = add(redis_server, "billing", b"1")
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0")
    redis_server.do("XREADGROUP", "GROUP", "g", "me", "STREAMS", "billing", ">")
    set_count(redis_server, entry, 4)
    async with running(redis_server.url, ["billing"], desk, clock):
        await until(lambda: desk.held)
        assert pending(redis_server, "billing") == {entry: ("me", 5)}
        desk.come_back()
        await until(lambda: pending(redis_server, "billing") == {entry: ("me", 0)})
        add(redis_server, "billing", b"2")
        await until(lambda: len(desk.held) == 2)


async def test_a_suspicious_entry_is_alone_in_hand(redis_server, desk, clock):
    desk.hold = True
    [entry] = add(redis_server, "billing", b"suspicious")
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0")
    redis_server.do("XREADGROUP", "GROUP", "g", "me", "STREAMS", "billing", ">")
    set_count(redis_server, entry, 3)
    add(redis_server, "billing", b"good")
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=30.0):
        await until(lambda: desk.held)
        await stays(lambda: desk.payloads == [b"suspicious"], 0.3)
        desk.settle()
        await until(lambda: desk.payloads == [b"suspicious", b"good"])


@pytest.fixture
def pending_one(redis_server):
    """Make an entry that was delivered so often and is pending."""

    def make(deliveries):
        [entry] = add(redis_server, "billing", b"1")
        redis_server.do("XGROUP", "CREATE", "billing", "g", "0")
        redis_server.do("XREADGROUP", "GROUP", "g", "me", "STREAMS", "billing", ">")
        set_count(redis_server, entry, deliveries)
        return entry

    return make


async def test_only_one_suspicious_thing_of_a_whole_router_is_in_hand(redis_server, desk, clock, pending_one):
    entry, isolation = pending_one(3), CrashIsolation()
    desk.hold = True
    await isolation.enter()
    async with running(redis_server.url, ["billing"], desk, clock, isolation=isolation):
        await stays(lambda: pending(redis_server, "billing") == {entry: ("me", 3)}, 0.2)
        isolation.leave()
        await until(lambda: desk.held)
        other = asyncio.create_task(isolation.enter())
        done, _ = await asyncio.wait([other], timeout=0.2)
        assert not done
        desk.settle()
        await other


async def test_where_it_may_be_found_guilty_an_entry_is_alone_in_the_whole_router(
    redis_server, desk, clock, pending_one
):
    entry, isolation, busy = pending_one(4), CrashIsolation(), Neighbour(at_work=True)
    desk.hold = True
    isolation.join(busy)
    async with running(redis_server.url, ["billing"], desk, clock, isolation=isolation, claim_idle=60.0):
        await until(lambda: isolation.shuts_out(busy))
        assert pending(redis_server, "billing") == {entry: ("me", 4)}
        busy.at_work = False
        isolation.finished()
        await until(lambda: desk.held)
        assert pending(redis_server, "billing") == {entry: ("me", 5)}
        assert isolation.shuts_out(busy)
        desk.settle()
        await until(lambda: not isolation.shuts_out(busy))


async def test_where_others_do_not_finish_nobody_is_found_guilty(redis_server, desk, clock, pending_one):
    entry, isolation = pending_one(4), CrashIsolation()
    desk.hold = True
    isolation.join(Neighbour(at_work=True))
    async with running(redis_server.url, ["billing"], desk, clock, isolation=isolation, claim_idle=1.0):
        await until(lambda: desk.held)
        assert pending(redis_server, "billing") == {entry: ("me", 4)}


async def test_while_another_is_strictly_alone_nothing_is_recovered(redis_server, desk, clock, pending_one):
    pending_one(1)
    desk.hold, isolation, other = True, CrashIsolation(), Neighbour(at_work=False)
    await isolation.enter()
    assert await isolation.shut(other, 1.0)
    async with running(redis_server.url, ["billing"], desk, clock, isolation=isolation):
        await stays(lambda: not desk.held, 0.2)
        isolation.leave()
        await until(lambda: desk.held)
        await isolation.enter()
        alone = asyncio.create_task(isolation.shut(other, 30.0))
        done, _ = await asyncio.wait([alone], timeout=0.2)
        assert not done, "its attempt may yet end the process"
        desk.settle()
        assert await alone


async def test_who_waits_for_solitude_can_be_stopped(redis_server, desk, clock, pending_one):
    pending_one(4)
    isolation = CrashIsolation()
    await isolation.enter()
    async with running(redis_server.url, ["billing"], desk, clock, isolation=isolation):
        await stays(lambda: not desk.held, 0.2)
    isolation.leave()
    async with asyncio.timeout(PATIENCE):
        await isolation.enter()


async def test_a_suspicious_entry_whose_attempt_hangs_does_not_hold_the_others_up_for_ever(redis_server, desk, clock):
    desk.hold = True
    [entry] = add(redis_server, "billing", b"suspicious")
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0")
    redis_server.do("XREADGROUP", "GROUP", "g", "me", "STREAMS", "billing", ">")
    set_count(redis_server, entry, 4)
    add(redis_server, "billing", b"good")
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=0.4):
        await until(lambda: len(desk.payloads) == 2)
        await until(lambda: pending(redis_server, "billing")[entry] == ("me", 0))
        assert desk.payloads == [b"suspicious", b"good"]


# Looking on.


async def test_looking_on_reads_without_a_group_and_acknowledges_nothing(redis_server, desk, clock):
    add(redis_server, "billing", b"old")
    async with running(redis_server.url, ["billing", "other"], desk, clock, observe=True):
        add(redis_server, "billing", b"1", b"2")
        redis_server.do("XADD", "other", "*", "data", "x")
        await until(lambda: len(desk.payloads) == 2 and desk.refused)
    assert desk.payloads == [b"1", b"2"]
    assert all(batch.receipt is None for batch in desk.batches)
    with redis_server.client() as client:
        assert client.xinfo_groups("billing") == []


# Refusals.


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["+@all", "-xgroup"], "refuses XGROUP on the stream 'billing'"),
        (["+@all", "-xreadgroup"], "refuses XREADGROUP on the stream 'billing'"),
        (["+@all", "-eval"], "refuses EVAL on the stream 'billing'"),
        (["+@all", "-xpending"], "refuses XPENDING on the stream 'billing'"),
        (["+@all", "-xack"], "refuses XACK on the stream 'billing'"),
    ],
)
async def test_a_refusal_names_the_command_and_the_key(redis_server, desk, clock, rules, expected):
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", "~*", *rules)
    with pytest.raises(ConfigError, match=expected):
        async with running(f"redis://app:pw@127.0.0.1:{redis_server.port}", ["billing"], desk, clock):
            pass


async def test_a_refused_key_is_named(redis_server, desk, clock):
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", "~allowed", "+@all")
    with pytest.raises(ConfigError, match="refuses XGROUP on the stream 'secret'"):
        async with running(f"redis://app:pw@127.0.0.1:{redis_server.port}", ["allowed", "secret"], desk, clock):
            pass


async def test_a_user_may_read_with_the_commands_the_documentation_names(redis_server, desk, clock):
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER router on >… (~billing [^`]*)```", page, re.MULTILINE)
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", *rights.split())
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0", "MKSTREAM")
    add(redis_server, "billing", b"0")
    redis_server.do("XREADGROUP", "GROUP", "g", "peer", "STREAMS", "billing", ">")
    add(redis_server, "billing", b"1")
    url = f"redis://app:pw@127.0.0.1:{redis_server.port}"
    async with running(url, ["billing"], desk, clock, claim_idle=0.3) as source:
        await until(lambda: len(desk.payloads) == 2)  # what the peer left is taken over
        await until(lambda: not pending(redis_server, "billing"))
        await until(lambda: consumers(redis_server, "billing") == ["me"])
        assert (source.up, source.reason) == (True, None)
        assert redis_server.do("ACL", "LOG") == []


async def test_what_completes_while_an_acknowledgement_is_on_its_way_is_acknowledged_at_the_end(
    redis_server, desk, clock
):
    desk.hold = True
    add(redis_server, "billing", b"1", b"2")
    async with Proxy(redis_server.port) as proxy, running(proxy.url, ["billing"], desk, clock) as source:
        await until(lambda: len(desk.held) == 2)
        proxy.hold = b"XACK"
        desk.settle(b"1")
        await until(lambda: proxy.held)
        desk.settle(b"2")
        await source.stop()
        closing = asyncio.create_task(source.close())
        await stays(lambda: not closing.done(), 0.05)
        proxy.release()
        await closing
    assert pending(redis_server, "billing") == {}


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_suspicious_entry_waits_until_redis_knows_what_became_of_the_one_before(
    redis_server, desk, clock, comes_back, monkeypatch
):
    entries = add(redis_server, "billing", b"1", b"2")
    redis_server.do("XGROUP", "CREATE", "billing", "g", "0")
    redis_server.do("XREADGROUP", "GROUP", "g", "me", "STREAMS", "billing", ">")
    for entry in entries:
        set_count(redis_server, entry, 3)
    desk.hold = True
    async with Proxy(redis_server.port) as proxy, running(proxy.url, ["billing"], desk, clock) as source:
        taken: list[bool] = []
        take, (stream,) = PendingEntries.take, source.streams

        async def taking(*what, **more):
            taken.append(bool(stream.in_flight.unacknowledged or stream.in_flight.returned))
            return await take(*what, **more)

        monkeypatch.setattr(PendingEntries, "take", taking)
        await until(lambda: desk.held)
        proxy.hold = b"XACK"
        if comes_back:
            desk.come_back()
        desk.settle()
        await until(lambda: proxy.held)
        proxy.release()
        await until(lambda: desk.payloads == [b"1", b"2"])
        assert taken[-1] is False
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))


async def test_others_may_end_the_process_again_when_redis_knows_what_became_of_it(
    redis_server, desk, clock, pending_one
):
    pending_one(4)
    isolation = CrashIsolation()
    desk.hold = True
    async with (
        Proxy(redis_server.port) as proxy,
        running(proxy.url, ["billing"], desk, clock, isolation=isolation),
    ):
        await until(lambda: desk.held)
        proxy.hold = b"XACK"
        desk.settle()
        await until(lambda: proxy.held)
        other = asyncio.create_task(isolation.enter())
        done, _ = await asyncio.wait([other], timeout=0.2)
        assert not done
        proxy.release()
        await other
        assert not pending(redis_server, "billing")


async def test_an_entry_acknowledged_while_its_answer_is_on_the_way_is_not_pending(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", b"1")
    async with running(redis_server.url, ["billing"], desk, clock) as source:
        await until(lambda: desk.held)
        (stream,) = source.streams

        class Slow(Link):
            async def call(self, *words):
                answer = await super().call(*words)
                desk.settle()
                await until(lambda: not stream.in_flight.all())
                return answer

        link = Slow(client.server(redis_server.url))
        found = [page async for page in PendingEntries(link, stream.names).pages(stream.in_flight.all)]
        await link.close()
    assert found == []


async def test_no_server_within_the_time(desk, clock):
    source = source_of(f"redis://127.0.0.1:{free_port()}", ["billing"], desk, clock, connect_timeout=1.0)
    with pytest.raises(UnavailableError, match=r"connection refused \(source billing, tried for 1 s\)"):
        await source.start()
    await source.stop()
    await source.close()


async def test_a_key_that_is_no_stream_is_refused_at_the_start(redis_server, desk, clock):
    redis_server.do("SET", "billing", "x")
    with pytest.raises(ConfigError, match="the key holds a value that is not a stream"):
        async with running(redis_server.url, ["billing"], desk, clock):
            pass


# What a queue in the same Redis takes over.


async def test_what_a_queue_has_taken_together_with_its_entry_is_not_acknowledged_again(redis_server, desk, clock):
    desk.hold = True
    [entry] = add(redis_server, "billing", b"1")
    async with running(redis_server.url, ["billing"], desk, clock, marks="{r}:handed", max_in_flight=1):
        await until(lambda: desk.held)
        receipt, position, _ = desk.held.pop()
        assert receipt.open(position) == 1
        assert receipt.removal(position, whole=False) == ("mark", b"billing", "g", entry.encode(), "me")
        assert receipt.removal(position, whole=True) == ("xack", b"billing", "g", entry.encode(), "me")
        redis_server.do("XACK", "billing", "g", entry)
        receipt.handed_over(position)
        add(redis_server, "billing", b"2")
        await until(lambda: desk.held)
        assert redis_server.do("INFO", "commandstats")["cmdstat_xack"]["calls"] == 2  # the probe's and ours


async def test_a_mark_goes_with_the_acknowledgement(redis_server, desk, clock):
    desk.hold = True
    entries = add(redis_server, "billing", b"1", b"2")
    redis_server.do("HSET", "{r}:handed", f"billing g {entries[0]}", "x", "another", "x")
    async with running(redis_server.url, ["billing"], desk, clock, marks="{r}:handed"):
        await until(lambda: len(desk.held) == 2)
        receipt, position, _ = desk.held[0]
        receipt.marked(position)
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))
        assert redis_server.do("HGETALL", "{r}:handed") == {b"another": b"x"}


async def test_the_mark_of_an_entry_that_is_given_up_is_removed(redis_server, desk, clock):
    entries = add(redis_server, "billing", b"poison", b"trimmed", b"fine")
    desk.hold = True
    async with running(redis_server.url, ["billing"], desk, clock, crash=True):
        await until(lambda: len(desk.held) == 3)
    set_count(redis_server, entries[0], 5)
    redis_server.do("XDEL", "billing", entries[1])
    redis_server.do(
        "HSET", "{r}:handed", "another", "x", *[word for one in entries for word in (f"billing g {one}", "x")]
    )
    again = Desk()
    async with running(redis_server.url, ["billing"], again, clock, marks="{r}:handed"):
        await until(lambda: not pending(redis_server, "billing"))
        await until(lambda: redis_server.do("HGETALL", "{r}:handed") == {b"another": b"x"})
    assert ([reason for _, reason, _ in again.refused], again.payloads) == ([Reason.POISON], [b"fine"])


async def test_a_stream_on_another_server_is_not_taken_from_by_a_queue(start_server, desk, clock):
    desk.hold = True
    server = start_server()
    add(server, "billing", b"1")
    async with running(server.url, ["billing"], desk, clock):
        await until(lambda: desk.held)
        receipt, position, _ = desk.held[0]
        assert receipt.removal(position, whole=True) is None


async def test_a_source_that_replaces_another_leaves_what_that_has_in_hand(redis_server, desk, clock):
    desk.hold = True
    add(redis_server, "billing", b"1", b"2")
    fresh = Desk()
    async with running(redis_server.url, ["billing"], desk, clock) as old:
        await until(lambda: len(desk.held) == 2)
        await old.stop()
        new = source_of(redis_server.url, ["billing", "more"], fresh, clock, start="new")
        new.replace(old)
        await new.start()
        reading = asyncio.create_task(new.run())
        add(redis_server, "billing", b"3")
        await until(lambda: fresh.payloads == [b"3"])
        desk.settle()
        await until(lambda: not pending(redis_server, "billing"))
        await new.stop()
        await new.close()
        await reading
    assert fresh.payloads == [b"3"]


async def test_a_read_that_waits_for_long_is_hung_up_on_and_the_next_start_reads_on(redis_server, desk, clock):
    timing = replace(QUICK, block=PATIENCE, dead_after=2 * PATIENCE, hang_up=True)
    async with running(redis_server.url, ["billing"], desk, clock, timing=timing) as source:
        add(redis_server, "billing", b"1")
        await until(lambda: len(desk.payloads) == 1)
        await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == 1)
        async with asyncio.timeout(PATIENCE / 2):
            await source.stop()
    add(redis_server, "billing", b"2")
    async with running(redis_server.url, ["billing"], desk, clock, timing=timing):
        await until(lambda: len(desk.payloads) == 2)
    assert desk.payloads == [b"1", b"2"]
