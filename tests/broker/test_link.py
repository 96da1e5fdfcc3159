"""One connection for commands: the order they go in, and what it does when the other side ends it."""

import asyncio
from unittest.mock import ANY, DEFAULT, Mock

import pytest
from redis import exceptions as failures

from router.broker.server import client
from router.broker.server.link import Link, Script, Turn
from tests.support.proxy import Proxy
from tests.support.waiting import moment, until

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
    await until(lambda: link.ended)
    assert await link.call("CLIENT", "ID") > before


async def test_one_that_ends_under_a_command_is_an_error_for_nobody_knows_whether_it_was_done(redis_server, link):
    asking = asyncio.create_task(link.call("BLPOP", "nothing", 0))
    await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"])
    redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(failures.ConnectionError):
        await asking
    assert await link.call("PING") == b"PONG"


def failing(monkeypatch, text):
    """Let the transport of the next connection raise this error when it is written to, after the first command."""
    take_over = client.take_over

    def taken_over(connection, protocol):
        transport = take_over(connection, protocol)
        wrapped = Mock(wraps=transport)
        wrapped.write.side_effect = [DEFAULT, DEFAULT, RuntimeError(text)]
        monkeypatch.setattr(client, "take_over", take_over)
        return wrapped

    monkeypatch.setattr(client, "take_over", taken_over)


async def test_a_connection_that_ends_while_it_is_written_to_is_broken_and_nothing_worse(link, monkeypatch):
    failing(
        monkeypatch, "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
    )  # as uvloop
    assert await link.call("PING") == b"PONG"
    with pytest.raises(failures.ConnectionError, match="was closed"):
        await link.call("PING")
    assert await link.call("PING") == b"PONG"


async def test_a_mistake_of_ours_stays_what_it_is(link, monkeypatch):
    failing(monkeypatch, "await wasn't used with future")
    assert await link.call("PING") == b"PONG"
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
        with pytest.raises(failures.ConnectionError, match="an answer that belongs to no command"):
            await asking
        assert await link.call("PING") == b"PONG"
        await link.close()


async def test_an_answer_that_does_not_come_in_time_is_an_error_and_the_next_command_has_a_new_connection(redis_server):
    link = Link(client.server(redis_server.url), 0.3)
    before = await link.call("CLIENT", "ID")
    with pytest.raises(TimeoutError):
        await link.call("BLPOP", "nothing", 0)
    assert await link.call("CLIENT", "ID") > before
    await link.close()


async def test_the_time_of_a_command_runs_from_its_own_start(redis_server):
    """The timer that was set for the first command must not end the second one."""
    link = Link(client.server(redis_server.url), 2.0)
    await link.call("PING")
    await moment(1.5)
    assert await link.call("BLPOP", "nothing", "1") is None
    await link.close()


async def test_a_command_that_waits_can_be_hurried(redis_server, link):
    asking = asyncio.create_task(link.call("BLPOP", "nothing", 0))
    await until(lambda: redis_server.do("INFO", "clients")["blocked_clients"])
    link.hurry(0.01, failures.ConnectionError("too long"))
    with pytest.raises(failures.ConnectionError, match="too long"):
        await asking
    assert await link.call("PING") == b"PONG"


async def test_an_answer_to_no_command_between_two_commands_gives_the_connection_up(redis_server):
    async with Proxy(redis_server.port) as proxy:
        link = Link(client.server(proxy.url))
        before = await link.call("CLIENT", "ID")
        assert proxy.inject(b":1\r\n") == 1
        await until(lambda: link.ended)
        assert await link.call("CLIENT", "ID") > before
        await link.close()


async def test_texts_are_for_the_pipeline_that_asks_for_them(redis_server, link):
    redis_server.do("SET", "key", b"\xff")
    assert await link.pipeline([("GET", "key"), ("NONSENSE",)], texts=True) == ["\\xff", ANY]
    assert await link.call("GET", "key") == b"\xff"
    found = await link.pipeline([("GET", "key"), ("NONSENSE",)])
    assert found[0] == b"\xff"
    assert isinstance(found[1], failures.ResponseError)


async def test_the_turn_passes_over_a_task_that_is_cancelled_when_it_gets_it():
    turn, order = Turn(), []

    async def take(name):
        async with turn:
            order.append(name)
            await asyncio.sleep(0)

    assert turn.since is None
    async with turn:
        assert turn.since is not None
        tasks = [asyncio.create_task(take(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits
    tasks[1].cancel()  # it has been given the turn, and has not run since
    await asyncio.wait(tasks)
    assert order == ["c"]
    assert turn.since is None
