"""The memory of sent messages on a real server: what it finds again, for how long, and how large it grows."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
import structlog

from router.broker.plugins import message_memory
from router.broker.plugins.message_memory import KEPT, RedisMessageMemory
from router.broker.plugins.redis_pool import RedisPool
from router.broker.server import client
from router.errors import SinkError, TransientError
from tests.support.redis import free_port

KEY = "{event-router}:thread:chat"
HOSTILE = ("\ud800\0 \r\n", "ü")


class Time:
    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def now():
    return Time()


@pytest.fixture
async def memory_at(now):
    """Return a memory at a URL; the connections are closed after the test."""
    pools = []

    def made(url):
        pools.append(RedisPool(client.server(url)))
        return RedisMessageMemory(pools[-1], KEY, now)

    yield made
    for pool in pools:
        await pool.close()


async def test_a_message_is_found_by_key_and_address(redis_server, memory_at):
    memory = memory_at(redis_server.url)
    await memory.keep({("a", "1"): "x", ("a", "2"): "y z", HOSTILE: "\ud800 ü"})
    await memory.keep({("a", "2"): "new"})
    other = memory_at(redis_server.url)
    assert await other.find([("a", "1"), ("a", "2"), ("b", "1"), HOSTILE]) == ["x", "new", None, "\ud800 ü"]
    many = {("k", str(number)): str(number) for number in range(2_500)}
    await memory.keep(many)
    assert await memory.find(list(many)) == list(many.values())


async def test_the_first_messages_may_be_kept_at_the_same_time(redis_server, memory_at):
    """All of them learn that Redis 7.0 has no expiry of fields. That is no failure of any of them."""
    memory = memory_at(redis_server.url)
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(memory.keep({("k", str(number)): "x"}))
    assert await memory.find([("k", str(number)) for number in range(4)]) == ["x"] * 4


async def test_a_message_is_forgotten_after_30_days(redis_server, memory_at, now):
    """Valkey forgets each field by itself. Redis 7.0 has no such command: the next calls remove what is old."""
    memory = memory_at(redis_server.url)
    old = {("old", str(number)): "x" for number in range(300)}
    await memory.keep(old)
    assert KEPT - 60 < redis_server.do("TTL", KEY) <= KEPT
    if redis_server.kind == "valkey":
        field = redis_server.do("HRANDFIELD", KEY)
        assert KEPT - 60 < redis_server.do("HTTL", KEY, "FIELDS", 1, field)[0] <= KEPT
        return
    now.ahead = KEPT + 10
    assert set(await memory.find(list(old))) == {None}
    for number in range(100):
        await memory.keep({("new", str(number)): "y"})
    assert redis_server.do("HLEN", KEY) <= 100 + 20
    assert await memory.find([("new", "0"), ("new", "99")]) == ["y", "y"]


async def test_the_number_of_messages_is_bounded(redis_server, memory_at, now, monkeypatch):
    monkeypatch.setattr(message_memory, "MOST_MESSAGES", 50)
    memory = memory_at(redis_server.url)
    for number in range(300):
        now.ahead = number * 10.0
        await memory.keep({("k", str(number)): "x"})
    assert redis_server.do("HLEN", KEY) == 50
    assert (await memory.find([("k", "299")])) == ["x"]
    left = await memory.find([("k", str(number)) for number in range(300)])
    assert left[:150].count("x") < left[150:].count("x")  # mostly the oldest went
    await memory.keep({("k", f"more-{number}"): "x" for number in range(200)})
    assert redis_server.do("HLEN", KEY) == 50


async def test_the_rights_in_the_documentation_suffice(redis_server, memory_at, monkeypatch):
    monkeypatch.setattr(message_memory, "MOST_MESSAGES", 1)
    page = (Path(__file__).parents[2] / "docs" / "sinks" / "chat.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER router on >… (~\{event-router\}:thread:[^`]*)```", page, re.MULTILINE)
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", *rights.split())
    if redis_server.kind == "valkey":
        redis_server.do("ACL", "SETUSER", "app", "+hpexpire")
    memory = memory_at(f"redis://app:pw@127.0.0.1:{redis_server.port}")
    for number in range(4):
        await memory.keep({("k", str(number)): "x"})
    assert (await memory.find([("k", str(number)) for number in range(4)])).count("x") == 1
    assert redis_server.do("ACL", "LOG") == []
    redis_server.do("ACL", "SETUSER", "app", "-hset")
    with pytest.raises(SinkError, match=r"(?i)hset"):
        await memory.keep({("k", "5"): "x"})


async def test_a_message_that_is_stored_fails_for_no_other_refusal(redis_server, memory_at, now, monkeypatch):
    """The message was sent. A right that is missed weeks later, for the first removal, is the operator's to add."""
    monkeypatch.setattr(message_memory, "MOST_MESSAGES", 2)
    rights = f"~{KEY} +hset +hmget +client|setname +ping +echo"
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", *rights.split())
    memory = memory_at(f"redis://app:pw@127.0.0.1:{redis_server.port}")
    with structlog.testing.capture_logs() as logs:
        for number in range(4):
            await memory.keep({("a", str(number)): str(number)})
        assert await memory.find([("a", "3")]) == ["3"]
        [line] = logs
        assert (line["log_level"], line["key"]) == ("warning", KEY)
        now.ahead += 3601
        redis_server.do("ACL", "SETUSER", "app", "+expire", "+hlen", "+hscan")
        await memory.keep({("a", "4"): "4"})
        assert "hrandfield" in logs[-1]["error"].lower()
    assert len(logs) == 2


async def test_a_server_that_is_away_is_a_passing_failure(memory_at):
    memory = memory_at(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError):
        await memory.find([("a", "1")])
    with pytest.raises(TransientError):
        await memory.keep({("a", "1"): "x"})
