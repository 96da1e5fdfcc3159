from __future__ import annotations

import pytest

from router.broker.dead_letters.dead_letter_store import PAGE, LetterStore, letter_of, newer
from router.broker.dead_letters.dead_letter_writer import Bounds, DeadLetterWriter
from router.errors import ConfigError, UnavailableError
from router.events import DeadLetter
from tests.support.waiting import until

DEAD, REPLAY = "{event-router}:dead", "{event-router}:replay"
AT = "2026-01-02T03:04:05.000006Z"
LETTER = DeadLetter("l-1", "e-1", "schema", "[]", "web", "a", AT, AT, b"{}")


def put(server, number: int, first: int = 0) -> list[str]:
    with server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for one in range(first, first + number):
            pipeline.xadd(
                DEAD, {"id": f"l-{one}", "event_id": f"e-{one % 10}", "payload": b"\xff%d" % one, "version": 1}
            )
        return [entry.decode() for entry in pipeline.execute()]


async def ids(store, **how) -> list[str]:
    return [kept.letter.id async for page in store.pages(**how) for kept in page]


async def test_what_is_written_is_read_again(redis_server, clock):
    full = DeadLetter(
        *("l", "e", "permanent", "no such user", "web", "a\\xff", AT, AT, b"\xff\r\n\x00"),
        pattern="a*",
        headers={"h": "ü"},
        route="r",
        sink="s",
        address="a@b",
        key="k",
        attempts=7,
    )
    writer = DeadLetterWriter(redis_server.url, clock=clock)
    await writer.start()
    told = []
    writer.add([full, DeadLetter(*("l2", "e", "x", "", "web", "a", AT, AT, b""), written=lambda: told.append(1))])
    assert await writer.drain(5) == 0
    assert told == [1]
    async with LetterStore(redis_server.url) as store:
        found = [kept async for page in store.pages() for kept in page]
    assert found[0].letter == full
    assert not found[0].newer
    assert found[1].letter.sink is None
    with redis_server.client() as client:
        assert b"written" not in client.xrange(DEAD)[1][1]


@pytest.mark.parametrize("number", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 3])
async def test_every_letter_is_read_once_in_both_orders(start_server, number):
    server = start_server("valkey")
    put(server, number)
    async with LetterStore(server.url) as store:
        assert await ids(store) == [f"l-{one}" for one in range(number)]
        assert await ids(store, newest=True) == [f"l-{one}" for one in reversed(range(number))]


async def test_find_takes_any_id_and_of_several_the_newest(redis_server):
    entries = put(redis_server, 25)
    async with LetterStore(redis_server.url) as store:
        assert (await store.find("l-3")).entry == entries[3]
        assert (await store.find(entries[4])).letter.id == "l-4"
        assert (await store.find("e-5")).letter.id == "l-15"
        assert await store.find("l") is None


async def test_removing_says_what_was_there(redis_server):
    entries = put(redis_server, 5)
    async with LetterStore(redis_server.url) as store:
        assert await store.remove(entries[1:3]) == [True, True]
        assert await store.remove(entries[:3]) == [True, False, False]
        assert await ids(store) == ["l-3", "l-4"]


async def test_replaying_moves_a_letter_once_with_every_field(redis_server):
    entries = put(redis_server, 5)
    async with LetterStore(redis_server.url) as store:
        assert await store.waiting() == await store.untaken() == 0
        assert await store.replay(entries[:2]) == [True, True]
        assert await store.replay(entries[:3]) == [False, False, True]
        assert (await store.waiting(), await store.untaken()) == (3, 3)
        assert await ids(store) == ["l-3", "l-4"]
    with redis_server.client() as client:
        moved = [fields for _, fields in client.xrange(REPLAY)]
        assert [fields[b"payload"] for fields in moved] == [b"\xff0", b"\xff1", b"\xff2"]
        assert moved[0].keys() == {b"id", b"event_id", b"payload", b"version"}
        client.xgroup_create(REPLAY, "event-router", 0)
        client.xreadgroup("event-router", "me", {REPLAY: ">"}, count=2)
    async with LetterStore(redis_server.url) as store:
        assert (await store.waiting(), await store.untaken()) == (3, 1)


@pytest.mark.parametrize(
    ("rules", "where"),
    [("~{event-router}:dead", "the other stream"), ("~* -xdel", "removing"), ("~* -xadd", "adding")],
)
async def test_a_missing_permission_moves_nothing(redis_server, rules, where):
    entries = put(redis_server, 3)
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", *rules.split())
    async with LetterStore(f"redis://bob:pw@127.0.0.1:{redis_server.port}") as store:
        with pytest.raises(ConfigError, match=r"permission|can.t access|script"):
            await store.replay(entries)
    async with LetterStore(redis_server.url) as store:
        assert await ids(store) == ["l-0", "l-1", "l-2"], where
        assert await store.waiting() == 0


async def test_a_full_redis_still_lets_letters_move(redis_server):
    entries = put(redis_server, 3)
    redis_server.do("CONFIG", "SET", "maxmemory", "1")
    async with LetterStore(redis_server.url) as store:
        assert await store.replay(entries) == [True] * 3, "what moves takes no more room"


async def test_errors_are_told_in_plain_words(redis_server):
    redis_server.do("SET", DEAD, "x")
    async with LetterStore(redis_server.url) as store:
        with pytest.raises(ConfigError, match="WRONGTYPE"):
            await ids(store)
    async with LetterStore("redis://127.0.0.1:1") as store:
        with pytest.raises(UnavailableError, match="connection refused"):
            await store.waiting()


def test_an_entry_of_somebody_else_is_a_letter_with_little_in_it():
    found = letter_of({b"mine": b"1", b"attempts": b"x", b"headers": b"{", b"detail": b"\xff"})
    assert (found.id, found.payload, found.attempts, found.headers, found.detail) == ("", b"", 0, None, "\\xff")
    assert not newer({})
    assert newer({b"version": b"2"})
    assert newer({b"version": b"next"})


async def test_letters_that_are_too_old_go_without_a_new_one_coming(redis_server, clock):
    with redis_server.client() as client:
        for age in (10.0, 5.0, 0.0):
            client.xadd(DEAD, {"payload": "x"}, id=f"{int((clock.now() - age) * 1000)}-0")
    writer = DeadLetterWriter(redis_server.url, clock=clock, bounds=Bounds(max_age=2.0))
    await writer.start()
    await until(lambda: writer.expired == 2)
    assert redis_server.do("XLEN", DEAD) == 1
    writer.add([LETTER])
    await until(lambda: writer.written == 1)
    assert redis_server.do("XLEN", DEAD) == 2
    await until(lambda: writer.expired == 4)
    assert (redis_server.do("XLEN", DEAD), writer.evicted) == (0, 0)
    await writer.drain(1)


async def test_a_router_without_letters_writes_nothing(redis_server, clock):
    writer = DeadLetterWriter(redis_server.url, clock=clock, bounds=Bounds(max_age=1.0))
    await writer.start()
    assert await writer.drain(5) == 0
    assert redis_server.do("DBSIZE") == 0
