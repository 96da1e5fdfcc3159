"""One connection for commands: what it does when the other side ends it."""

import asyncio

import pytest
from redis import exceptions as failures

from router.broker import client
from router.broker.link import Link
from tests.broker.conftest import until


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
