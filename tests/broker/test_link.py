"""One connection for commands: the order they go in, and what it does when the other side ends it."""

import asyncio

import pytest
from redis import exceptions as failures

from router.broker.server import client
from router.broker.server.link import Link, Script
from tests.support.proxy import Proxy
from tests.support.waiting import until

PUSH = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture
async def link(redis_server):
    made = Link(client.server(redis_server.url))
    yield made
    await made.close()


async def test_a_connection_that_was_ended_while_nobody_used_it_is_replaced_without_an_error(redis_server, link):
    assert await link.call("PING") == b"PONG"
    before = await link.call("CLIENT", "ID")
    redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: client.hung_up(link._connection))
    assert await link.call("CLIENT", "ID") > before


async def test_one_that_ends_under_a_command_is_an_error_for_nobody_knows_whether_it_was_done(redis_server, link):
    asking = asyncio.create_task(link.call("BLPOP", "nothing", 0))
    await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"])
    redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(failures.ConnectionError):
        await asking
    assert await link.call("PING") == b"PONG"


async def test_a_connection_that_ends_while_it_is_written_to_is_broken_and_nothing_worse(redis_server, link):
    await link.call("PING")

    async def closed(_command):
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    link._connection.send_packed_command = closed  # as uvloop has it
    with pytest.raises(failures.ConnectionError, match="was closed"):
        await link.call("PING")
    assert await link.call("PING") == b"PONG"


async def test_a_mistake_of_ours_stays_what_it_is(redis_server, link):
    await link.call("PING")

    async def mistaken(_command):
        raise RuntimeError("await wasn't used with future")

    link._connection.send_packed_command = mistaken
    with pytest.raises(RuntimeError, match="await"):
        await link.call("PING")


async def test_nothing_overtakes_a_script_that_the_server_does_not_know_yet(redis_server, link):
    for _ in range(2):
        calls = [link.script(PUSH, ["order"], ["first"]), link.call("RPUSH", "order", "second")]
        await asyncio.gather(*calls, link.script(PUSH, ["order"], ["third"]))
        assert redis_server.do("LRANGE", "order", 0, -1) == [b"first", b"second", b"third"]
        redis_server.do("DEL", "order")
        redis_server.do("SCRIPT", "FLUSH")


async def test_an_answer_to_no_command_before_the_first_one_gives_the_connection_up(redis_server):
    """It would be taken for the answer to the ECHO, the ECHO's for that of the first command, and so on."""
    async with Proxy(redis_server.port) as proxy:
        link = Link(client.server(proxy.url))
        proxy.hold = b"ECHO"
        asking = asyncio.create_task(link.call("PING"))
        await until(lambda: proxy.held)
        assert proxy.inject(b":1\r\n") == 1
        proxy.hold = b""
        proxy.release()
        with pytest.raises(failures.ConnectionError, match="an answer to no command"):
            await asking
        assert await link.call("PING") == b"PONG"
        await link.close()
