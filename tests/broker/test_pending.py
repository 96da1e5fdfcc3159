"""The pending entries of a consumer group on real servers: which are taken, and what a claim says of each."""

import pytest

from router.broker.groups.in_flight import Names
from router.broker.groups.pending import PAGE, PendingEntries
from router.broker.server import client
from router.broker.server.link import Link
from router.core.delivery.claims import Pending
from tests.support.streams import Desk, add, pending, running
from tests.support.waiting import until


@pytest.fixture
async def group(redis_server):
    """The group `g` of the stream `billing`, as the consumer `me`."""
    link = Link(client.server(redis_server.url))
    yield PendingEntries(link, Names(b"billing", "g", "me"))
    await link.close()


@pytest.fixture
def delivered(redis_server):
    """Add entries and deliver them to a consumer; returns their ids."""

    def make(number, consumer="me"):
        ids = add(redis_server, "billing", *[b"%d" % n for n in range(number)])
        with redis_server.client() as other:
            if not other.xinfo_groups("billing"):
                other.xgroup_create("billing", "g", "0")
            other.xreadgroup("g", consumer, {"billing": ">"}, count=number)
        return ids

    return make


def xclaim(server, ids, consumer="me", **options):
    with server.client() as other:
        other.xclaim("billing", "g", consumer, 0, ids, justid=True, **options)


async def test_pages_list_what_is_not_in_hand_with_its_owner_and_count(redis_server, group, delivered):
    ids = [one.encode() for one in delivered(PAGE + 20)]
    theirs = [one.encode() for one in delivered(3, "peer")]
    hand = {*ids[: PAGE + 5]}
    assert [page async for page in group.pages(lambda: hand)] == [[Pending(one, 1, b"me") for one in ids[PAGE + 5 :]]]
    xclaim(redis_server, theirs, "peer", idle=60_000, retrycount=4)
    assert [page async for page in group.pages(set, 50.0)] == [[Pending(one, 4, b"peer") for one in theirs]]
    assert await group.first(lambda: {*ids, *theirs}) == []


async def test_pages_end_at_the_last_id_asked_for(redis_server, group, delivered):
    ids = [one.encode() for one in delivered(20)]
    assert await group.last() == ids[19]
    assert [page async for page in group.pages(set, last=ids[4])] == [[Pending(one, 1, b"me") for one in ids[:5]]]
    redis_server.do("XACK", "billing", "g", *ids)
    assert await group.last() is None


@pytest.mark.parametrize(
    "change",
    [
        {"consumer": "peer", "idle": 60_000, "retrycount": 2},
        {"consumer": "gone", "idle": 60_000, "retrycount": 3},
        {"consumer": "gone", "idle": 0, "retrycount": 2},
    ],
    ids=["another took it over", "delivered once more", "renewed"],
)
async def test_what_has_changed_since_it_was_listed_is_not_taken(redis_server, group, delivered, change):
    first, second = delivered(2, "gone")
    xclaim(redis_server, [first, second], "gone", idle=60_000, retrycount=2)
    listed = await group.first(set, 50.0)
    xclaim(redis_server, [first], **change)
    found, gone = await group.take(listed, 50.0)
    assert ([entry[0].decode() for entry in found], gone) == ([second], [])
    assert pending(redis_server, "billing") == {
        first: (change["consumer"], change["retrycount"]),
        second: ("me", 3),
    }


async def test_what_is_taken_without_counting_keeps_its_count(redis_server, group, delivered):
    (entry,) = delivered(1)
    await group.take(await group.first(set), count=False)
    assert pending(redis_server, "billing") == {entry: ("me", 1)}


async def test_a_claim_says_whose_each_entry_is_and_takes_nothing_from_a_peer(redis_server, group, delivered):
    mine, theirs, over = delivered(3)
    xclaim(redis_server, [theirs], "peer", idle=70_000)
    redis_server.do("XACK", "billing", "g", over)
    ids = [one.encode() for one in (mine, theirs, over)]
    assert await group.claim(ids, count=0, idle=80.0) == b"120"
    assert pending(redis_server, "billing") == {mine: ("me", 0), theirs: ("peer", 1)}
    assert [entry.id.decode() for entry in await group.first(set, 75.0)] == [mine]


async def test_more_ids_than_one_command_carries_are_claimed(redis_server, group, delivered):
    ids = [one.encode() for one in delivered(2500)]
    redis_server.do("XACK", "billing", "g", *ids[:1200])
    assert await group.claim(ids) == b"0" * 1200 + b"1" * 1300


async def test_trimmed_entries_of_a_router_that_is_alive_are_left_to_it(redis_server, group, delivered):
    ids = delivered(2, "peer")
    xclaim(redis_server, ids, "peer", idle=60_000, retrycount=1)
    redis_server.do("XTRIM", "billing", "MAXLEN", "=", 0)
    listed = await group.first(set, 50.0)
    assert await group.take(listed, 50.0) == ([], [one.encode() for one in ids])
    assert await group.abandoned(listed, 50.0) == 0
    assert len(pending(redis_server, "billing")) == 2
    with redis_server.client() as other:
        await until(lambda: min(row["idle"] for row in other.xinfo_consumers("billing", "g")) >= 20)
    assert await group.abandoned(listed, 0.02) == 2
    assert await group.abandoned(listed, 0.02) == 0, "counted by one router alone"


async def test_an_entry_of_ours_that_is_not_in_hand_is_found_while_the_source_runs(redis_server, clock):
    """An answer that was lost, or an elder source that gave entries back, leaves such entries."""
    desk = Desk()
    async with running(redis_server.url, ["billing"], desk, clock, claim_idle=0.5):
        await until(lambda: redis_server.do("XINFO", "GROUPS", "billing"))
        with redis_server.client() as other:
            pipeline = other.pipeline()
            pipeline.xadd("billing", {"payload": b"1"}, id="1-1")
            pipeline.xreadgroup("g", "me", {"billing": ">"})
            pipeline.execute()
        await until(lambda: desk.payloads == [b"1"])
        await until(lambda: not pending(redis_server, "billing"))
