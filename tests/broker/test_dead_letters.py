from __future__ import annotations

import asyncio
import itertools
import json

import pytest
import structlog.testing

from router.broker.dead_letters.dead_letter_writer import BATCH, OVERHEAD, Bounds, DeadLetterWriter, Tally
from router.broker.server import keys
from router.config import redis_url
from router.errors import ConfigError, UnavailableError
from router.events import DeadLetter
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, moment, until

STREAM = "{event-router}:dead"
_numbers = itertools.count()


def letter(payload: bytes = b"{}", **changes: object) -> DeadLetter:
    at = "2026-01-02T03:04:05.000006Z"
    fields = {"id": f"l-{next(_numbers)}", "event_id": "e-1", "reason": "schema", "detail": "[]", "source": "web"}
    return DeadLetter(**{**fields, "channel": "a", "received_at": at, "failed_at": at, "payload": payload, **changes})


@pytest.fixture
async def writer(clock):
    """Make a writer that has started: `await writer(url, **changes)`; each is ended after the test."""
    made: list[DeadLetterWriter] = []

    async def make(url: str, **changes: object) -> DeadLetterWriter:
        options = {"clock": clock, "connect_timeout": 2.0, "first_delay": 0.02, "longest_delay": 0.2, **changes}
        made.append(DeadLetterWriter(url, **options))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.drain(0)


def entries(server) -> list[dict[bytes, bytes]]:
    with server.client() as redis:
        return [fields for _, fields in redis.xrange(STREAM)]


def payloads(server) -> list[int]:
    return [int(fields[b"payload"].lstrip(b"0") or 0) for fields in entries(server)]


def test_the_names_of_keys_share_one_slot():
    assert keys.dead("shop") == "{shop}:dead"
    assert keys.dead_batch("shop", "x").startswith("{shop}:")


async def test_every_field_is_kept_and_none_is_left_out(redis_server, writer):
    dead = await writer(redis_server.url)
    full = letter(
        b"\xff\x00\r\n",
        pattern="a*",
        headers={"traceparent": "00-1"},
        route="notify",
        sink="mail",
        address="a@b",
        key="e-1:notify:mail:a@b",
        attempts=3,
        detail="was \ud800",
    )
    dead.add([full, letter(b"")])
    await until(lambda: dead.written == 2)
    first, second = entries(redis_server)
    assert first == {
        b"id": full.id.encode(),
        b"event_id": b"e-1",
        b"reason": b"schema",
        b"detail": b"was \\ud800",
        b"source": b"web",
        b"channel": b"a",
        b"pattern": b"a*",
        b"headers": b'{"traceparent":"00-1"}',
        b"route": b"notify",
        b"sink": b"mail",
        b"address": b"a@b",
        b"key": b"e-1:notify:mail:a@b",
        b"attempts": b"3",
        b"received_at": b"2026-01-02T03:04:05.000006Z",
        b"failed_at": b"2026-01-02T03:04:05.000006Z",
        b"payload": b"\xff\x00\r\n",
        b"version": b"1",
    }
    assert json.loads(first[b"headers"]) == {"traceparent": "00-1"}
    assert second[b"payload"] == b""
    assert second[b"attempts"] == b"0"
    assert not second.keys() & {b"pattern", b"headers", b"route", b"sink", b"address", b"key"}


async def test_the_prefix_names_the_stream(redis_server, writer):
    dead = await writer(redis_server.url, prefix="shop")
    dead.add([letter()])
    await until(lambda: dead.written == 1)
    assert redis_server.do("XLEN", "{shop}:dead") == 1


async def test_the_bound_is_exact_and_evictions_are_counted_and_logged(redis_server, writer):
    dead = await writer(redis_server.url, bounds=Bounds(max_events=1000))
    with structlog.testing.capture_logs() as logs:
        for begin in range(0, 2700, 450):
            dead.add([letter(b"%d" % number) for number in range(begin, begin + 450)])
            await until(lambda end=begin + 450: dead.written == end)
        assert payloads(redis_server) == list(range(1700, 2700))
        assert dead.evicted == 1700
        assert await dead.drain(PATIENCE) == 0
    told = [line["letters"] for line in logs if "evicted" in line["event"]]
    assert sum(told) == 1700
    assert len(told) == 2  # the first at once, the rest at the end of the minute or of the router


async def test_a_lower_bound_takes_effect_at_the_next_letter(redis_server, writer):
    with redis_server.client() as redis:
        for number in range(10):
            redis.xadd(STREAM, {"payload": number})
    dead = await writer(redis_server.url, bounds=Bounds(max_events=3))
    dead.add([letter(b"10")])
    await until(lambda: dead.written == 1)
    assert payloads(redis_server) == [8, 9, 10]
    assert dead.evicted == 8


async def test_many_letters_at_once_keep_their_order(redis_server, writer):
    dead = await writer(redis_server.url)
    count = 5 * BATCH + 7
    dead.add([letter(b"%d" % number) for number in range(count)])
    assert dead.waiting == count
    await until(lambda: dead.waiting == 0)
    assert payloads(redis_server) == list(range(count))


async def test_a_letter_larger_than_a_batch_travels_alone(redis_server, writer):
    dead = await writer(redis_server.url)
    dead.add([letter(b"1"), letter(b"0" * 3 * 1024**2 + b"2"), letter(b"3")])
    await until(lambda: dead.written == 3)
    assert payloads(redis_server) == [1, 2, 3]


async def test_letters_wait_through_an_outage_and_are_then_written_once(start_server, kind, writer):
    redis_server = start_server(kind, options={"appendonly": "yes"})
    dead = await writer(redis_server.url)
    dead.add([letter(b"0")])
    await until(lambda: dead.written == 1)
    redis_server.stop()
    with structlog.testing.capture_logs() as logs:
        for number in range(1, 101):
            dead.add([letter(b"%d" % number)])
            await moment(0.002)
        await until(lambda: dead.reason is not None)
        assert "connection refused" in dead.reason or "closed" in dead.reason
        assert dead.waiting == 100
        redis_server.start()
        await until(lambda: dead.waiting == 0)
    assert payloads(redis_server) == list(range(101))
    assert dead.reason is None
    assert logs[-1]["event"] == "dead letters are written again"
    assert len(logs) <= 4


async def test_what_the_outage_buffer_cannot_hold_is_dropped_and_counted(redis_server, writer):
    dead = await writer(
        redis_server.url, bounds=Bounds(buffer_bytes=100 * (OVERHEAD + 10 + 2 + 1))
    )  # payload, detail, channel
    redis_server.pause()
    with structlog.testing.capture_logs() as logs:
        for number in range(250):
            dead.add([letter(b"%010d" % number)])
        assert (dead.waiting, dead.dropped) == (100, 150)
        redis_server.resume()
        await until(lambda: dead.waiting == 0)
        dead.add([letter(b"%010d" % number) for number in range(250, 350)])  # the buffer is empty again
        assert dead.dropped == 150
        await dead.drain(1)
    kept = [*range(100), *range(250, 350)]
    assert payloads(redis_server) == kept, "the oldest are kept: they tell how it began"
    assert sum(line["letters"] for line in logs if "dropped:" in line["event"]) == 150


async def test_a_batch_whose_answer_was_lost_is_not_appended_twice(redis_server, writer):
    async with Proxy(redis_server.port) as proxy:
        dead = await writer(proxy.url, bounds=Bounds(max_events=15))
        dead.add([letter(b"%d" % number) for number in range(10)])
        await until(lambda: dead.written == 10)
        proxy.swallow_answers_after(b"\r\n19\r\n")
        dead.add([letter(b"%d" % number) for number in range(10, 20)])
        await until(lambda: redis_server.do("EXISTS", STREAM) and payloads(redis_server)[-1] == 19)
        assert dead.written == 10, "the answer is lost"
        proxy.heal()
        proxy.cut()
        await until(lambda: dead.written == 20)
        assert payloads(redis_server) == list(range(5, 20))
        assert dead.evicted == 5
        dead.add([letter(b"20")])
        await until(lambda: dead.written == 21)
    assert payloads(redis_server) == list(range(6, 21))


async def test_two_writers_do_not_take_each_others_batches_for_their_own(redis_server, writer):
    one, two = await writer(redis_server.url), await writer(redis_server.url)
    for number in range(5):
        one.add([letter(b"%d" % number)])
        two.add([letter(b"%d" % number)])
        await until(lambda end=number + 1: one.written == two.written == end)
    assert sorted(payloads(redis_server)) == sorted([*range(5), *range(5)])


async def test_the_guard_does_not_stay_for_ever(redis_server, writer):
    dead = await writer(redis_server.url)
    dead.add([letter()])
    await until(lambda: dead.written == 1)
    with redis_server.client() as redis:
        (guard,) = [key for key in redis.keys("*") if key != STREAM.encode()]
        assert 0 < redis.ttl(guard) <= 86400


async def test_a_full_redis_makes_letters_wait(start_server, kind, writer):
    server = start_server(kind, options={"maxmemory": "100mb", "maxmemory-policy": "noeviction"})
    dead = await writer(server.url)
    dead.add([letter(b"1")])
    await until(lambda: dead.written == 1)
    server.do("CONFIG", "SET", "maxmemory", "1")
    dead.add([letter(b"2")])
    await until(lambda: dead.reason is not None)
    assert "maxmemory" in dead.reason
    server.do("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: dead.waiting == 0)
    assert payloads(server) == [1, 2]


async def test_a_key_of_another_type_makes_letters_wait(redis_server, writer):
    redis_server.do("SET", STREAM, "mine")
    dead = await writer(redis_server.url)
    dead.add([letter(b"1")])
    await until(lambda: "WRONGTYPE" in (dead.reason or ""))
    redis_server.do("DEL", STREAM)
    await until(lambda: dead.written == 1)
    assert payloads(redis_server) == [1]


@pytest.mark.parametrize("allowed", ["~{event-router}:dead", "%R~* ~{event-router}:dead", "~{event-router}:dead:*"])
async def test_a_missing_permission_appends_nothing(redis_server, writer, allowed):
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", *allowed.split(" "))
    dead = await writer(f"redis://bob:pw@127.0.0.1:{redis_server.port}")
    dead.add([letter(b"1")])
    await until(lambda: "permission" in (dead.reason or "").lower())
    assert redis_server.do("EXISTS", STREAM) == 0
    redis_server.do("ACL", "SETUSER", "bob", "~*")
    await until(lambda: dead.written == 1)
    assert payloads(redis_server) == [1]


async def test_drain_writes_what_waits(redis_server, writer):
    dead = await writer(redis_server.url)
    dead.add([letter(b"%d" % number) for number in range(1234)])
    assert await dead.drain(PATIENCE) == 0
    assert payloads(redis_server) == list(range(1234))


async def test_drain_waits_for_no_redis_when_there_is_nothing_to_write(redis_server, writer):
    redis_server.do("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", "+ping")
    dead = await writer(f"redis://reader:pw@127.0.0.1:{redis_server.port}")
    await until(lambda: dead.reason is not None)  # it may not look for letters that are too old
    async with asyncio.timeout(PATIENCE):
        assert await dead.drain(1000) == 0


async def test_drain_says_what_is_left(redis_server, writer):
    dead = await writer(redis_server.url, longest_delay=1000.0, first_delay=1000.0)
    redis_server.kill()
    dead.add([letter(), letter()])
    async with asyncio.timeout(PATIENCE):
        assert await dead.drain(0.3) == 2


async def test_drain_does_not_wait_for_the_next_planned_try(redis_server, writer):
    dead = await writer(redis_server.url, longest_delay=1000.0, first_delay=1000.0)
    redis_server.kill()
    dead.add([letter(b"1")])
    await until(lambda: dead.reason is not None)
    redis_server.start()
    assert await dead.drain(PATIENCE) == 0
    assert payloads(redis_server) == [1]


async def test_start_names_what_is_wrong(redis_server, writer):
    async with Proxy(1) as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match=rf"{url}: connection refused \(dead letters, tried for 1 s\)"):
        await writer(url, connect_timeout=1.0)
    with pytest.raises(ConfigError, match=r"has no password|refused the login"):
        await writer(f"redis://:wrong@127.0.0.1:{redis_server.port}")


async def test_start_waits_for_a_server_that_comes_later(start_server, kind, clock):
    server = start_server(kind)
    server.kill()
    heard: list[str] = []
    dead = DeadLetterWriter(server.url, clock=clock, connect_timeout=None, waiting=heard.append, longest_delay=0.1)
    with structlog.testing.capture_logs() as logs:
        starting = asyncio.create_task(dead.start())
        await until(lambda: len(heard) > 2)
        server.start()
        await starting
    reason = f"{redis_url.shown(server.url)}: connection refused"
    assert set(heard) == {reason}
    assert logs == [
        {"event": "Redis has not been reached yet; the router keeps trying", "log_level": "warning", "reason": reason}
    ]
    assert await dead.drain(PATIENCE) == 0


def test_a_tally_logs_the_first_at_once_and_then_sums():
    class Clock:
        at = 0.0

        def monotonic(self):
            return self.at

        now = monotonic

    time_ = Clock()
    tally = Tally(time_, "gone")
    with structlog.testing.capture_logs() as logs:
        for second in range(0, 121, 10):
            time_.at = float(second)
            tally.add(1)
    assert [(line["letters"], line["in_all"]) for line in logs] == [(1, 1), (6, 7), (6, 13)]
