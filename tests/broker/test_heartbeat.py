"""The heartbeat: two routers under one name are noticed, a restart is not taken for one."""

import asyncio

import pytest
import structlog

from router.broker.groups.heartbeat import CONFUSED, Heartbeat
from router.broker.server import keys
from router.broker.server.client import server
from tests.support.waiting import PATIENCE, stays, until

KEY = keys.router("event-router", "host-default")


@pytest.fixture
async def beat():
    """Make a heartbeat and start it: `beat(url, process, lasts=…)`; it is ended after the test."""
    made = []

    def make(url, process, lasts=0.15):
        made.append(Heartbeat(server(url), KEY, "host-default", lasts=lasts, process=process))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.close()


def said(logs):
    return [line for line in logs if line["event"] == CONFUSED]


async def test_two_processes_under_one_name_are_noticed_once_by_each(redis_server, beat):
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        beat(redis_server.url, "one")
        await until(lambda: client.get(KEY) == b"one")
        beat(redis_server.url, "two")
        await until(lambda: len(said(logs)) == 2)
        assert {line["router"] for line in said(logs)} == {"host-default"}
        await stays(lambda: len(said(logs)) == 2, 0.3)


async def test_a_restart_is_no_second_router(redis_server, beat):
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.set(KEY, "the process that was killed")
        one = beat(redis_server.url, "one")
        await until(lambda: client.get(KEY) == b"one")
        beat(redis_server.url, "one")  # another source of the same process
        await stays(lambda: not said(logs), 0.3)
        await one.close()
        await until(lambda: client.get(KEY) == b"one")


async def test_an_end_in_order_leaves_nothing(redis_server, beat):
    with redis_server.client() as client:
        one = beat(redis_server.url, "one", lasts=60.0)
        await until(lambda: client.get(KEY) == b"one")
        assert 0 < client.pttl(KEY) <= 60_000
        await one.close()
        assert client.exists(KEY) == 0


async def test_an_end_before_the_first_answer_was_read_leaves_nothing(redis_server, beat):
    with redis_server.client() as client:
        one = beat(redis_server.url, "one", lasts=60.0)
        async with asyncio.timeout(PATIENCE):
            while client.get(KEY) != b"one":  # asked at each turn of the loop, so the answer still waits in the socket
                await asyncio.sleep(0)
        await one.close()
        assert client.exists(KEY) == 0


async def test_a_server_that_refuses_is_not_asked_again_and_again(redis_server, beat):
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-set")
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        one = beat(f"redis://app:pw@127.0.0.1:{redis_server.port}", "one")
        await until(client.acl_log)
        await stays(lambda: client.acl_log()[0]["count"] == 1, 0.3)
        await one.close()
        assert logs == []
