"""Whether the router's own Redis answers, as told without any work to do."""

import asyncio
import contextlib

import pytest
import uvloop

from router.broker.pulse import Pulse
from router.errors import ConfigError
from tests.support.proxy import DOWN, Proxy


@contextlib.asynccontextmanager
async def pulse(url):
    started = Pulse(url, every=0.05)
    started.start()
    try:
        yield started
    finally:
        await started.close()


async def until(condition, seconds=15):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_follows_the_server(redis_server):
    async with pulse(redis_server.url) as watched:
        await until(lambda: redis_server.do("CLIENT", "LIST").count(b"name=event-router ") == 1)
        assert watched.reason is None
        redis_server.kill()
        await until(lambda: watched.reason)
        await until(lambda: "connection refused" in watched.reason)
        redis_server.start()
        await until(lambda: watched.reason is None)


async def test_a_connection_that_was_ended_says_nothing_of_the_server(redis_server):
    async with pulse(redis_server.url) as watched:
        for _ in range(3):
            await until(lambda: b"name=event-router " in redis_server.do("CLIENT", "LIST"))
            told = asyncio.create_task(until(lambda: watched.reason, 0.3))
            redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(TimeoutError):
                await told


async def test_a_connection_that_was_ended_under_the_question_says_nothing_of_the_server(redis_server):
    async with Proxy(redis_server.port) as proxy, pulse(proxy.url) as watched:
        await until(lambda: b"name=event-router " in redis_server.do("CLIENT", "LIST"))
        proxy.blackhole(DOWN)
        await until(lambda: proxy.swallowed)  # an answer: its question is under way
        proxy.heal()
        proxy.cut()

        def asked_anew():
            assert watched.reason is None
            return proxy.accepted == 2

        await until(asked_anew)


def test_so_it_is_on_uvloop(redis_server):
    """Which raises a bare `RuntimeError` for it."""

    async def scenario():
        async with Proxy(redis_server.port) as proxy, pulse(proxy.url) as watched:
            await until(lambda: watched._connection)
            watched._connection._writer.transport.abort()

            def asked_anew():
                assert watched.reason is None
                return proxy.accepted == 2

            await until(asked_anew)

    uvloop.run(scenario())


def test_the_words_are_the_same_on_uvloop(start_server):
    server = start_server()

    async def scenario():
        async with pulse(server.url) as watched:
            await until(lambda: watched._connection)
            server.kill()
            await until(lambda: watched.reason == f"{watched.address}: connection refused")

    uvloop.run(scenario())


async def test_a_server_that_hangs_is_not_there(start_server, monkeypatch):
    monkeypatch.setattr("router.broker.pulse.PATIENCE", 0.2)
    server = start_server()
    async with pulse(server.url) as watched:
        await until(lambda: b"name=event-router " in server.do("CLIENT", "LIST"))
        server.pause()
        await until(lambda: watched.reason)
        assert watched.reason == f"{watched.address}: no answer in time"
        server.resume()
        await until(lambda: watched.reason is None)


async def test_a_password_that_was_changed_is_told(start_server):
    server = start_server(options={"requirepass": "word-of-redis"})
    async with pulse(server.url) as watched:
        await until(lambda: b"name=event-router " in server.do("CLIENT", "LIST"))
        server.do("CONFIG", "SET", "requirepass", "another")
        server.password = "another"
        server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: watched.reason)
        await until(lambda: "refused the login" in watched.reason)
        assert "word-of-redis" not in watched.reason


async def test_its_connection_is_closed_with_it(start_server):
    server = start_server()
    async with pulse(server.url):
        await until(lambda: b"name=event-router " in server.do("CLIENT", "LIST"))
    await until(lambda: b"name=event-router " not in server.do("CLIENT", "LIST"))


def test_a_url_that_is_none():
    with pytest.raises(ConfigError):
        Pulse("http://localhost")
