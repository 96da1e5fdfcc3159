"""Whether the router's own Redis answers, as told without any work to do."""

import contextlib

import pytest
import uvloop

from router.broker.server.server_check import ServerCheck
from router.errors import ConfigError
from tests.support.proxy import DOWN, Proxy
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def server_check(url):
    started = ServerCheck(url, every=0.05)
    started.start()
    try:
        yield started
    finally:
        await started.close()


def connections(server):
    """The numbers of the connections that the question is asked on."""
    with server.client() as client:
        return [one["id"] for one in client.client_list() if one["name"] == "event-router"]


def asked(server):
    """How often anybody has sent PING."""
    return server.do("INFO", "commandstats")["cmdstat_ping"]["calls"]


async def test_it_follows_the_server(redis_server):
    async with server_check(redis_server.url) as watched:
        await until(lambda: redis_server.do("CLIENT", "LIST").count(b"name=event-router ") == 1)
        assert watched.reason is None
        redis_server.kill()
        await until(lambda: "connection refused" in (watched.reason or ""))
        redis_server.start()
        await until(lambda: watched.reason is None)


async def test_a_connection_that_was_ended_says_nothing_of_the_server(redis_server):
    async with server_check(redis_server.url) as watched:
        for _ in range(3):
            (before,) = await until(lambda: connections(redis_server))
            redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

            def asked_anew(before=before):
                assert watched.reason is None
                return any(one != before for one in connections(redis_server))

            await until(asked_anew)
            pings = asked(redis_server)
            await until(lambda pings=pings: asked(redis_server) > pings + 1)  # the question after that is put too


async def test_a_connection_that_was_ended_under_the_question_says_nothing_of_the_server(redis_server):
    async with Proxy(redis_server.port) as proxy, server_check(proxy.url) as watched:
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
        async with Proxy(redis_server.port) as proxy, server_check(proxy.url) as watched:
            await until(lambda: connections(redis_server))
            proxy.cut()

            def asked_anew():
                assert watched.reason is None
                return proxy.accepted == 2

            await until(asked_anew)

    uvloop.run(scenario())


def test_the_words_are_the_same_on_uvloop(start_server):
    server = start_server()

    async def scenario():
        async with server_check(server.url) as watched:
            await until(lambda: connections(server))
            server.kill()
            await until(lambda: "refused" in (watched.reason or ""))
            assert watched.reason == f"{watched.address}: connection refused"

    uvloop.run(scenario())


async def test_a_server_that_hangs_is_not_there(start_server, monkeypatch):
    monkeypatch.setattr("router.broker.server.server_check.PATIENCE", 0.2)
    server = start_server()
    async with server_check(server.url) as watched:
        await until(lambda: b"name=event-router " in server.do("CLIENT", "LIST"))
        server.pause()
        await until(lambda: watched.reason)
        assert watched.reason == f"{watched.address}: no answer in time"
        server.resume()
        await until(lambda: watched.reason is None)


async def test_a_password_that_was_changed_is_told(start_server):
    server = start_server(options={"requirepass": "word-of-redis"})
    async with server_check(server.url) as watched:
        await until(lambda: b"name=event-router " in server.do("CLIENT", "LIST"))
        server.do("CONFIG", "SET", "requirepass", "another")
        server.password = "another"
        server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: "refused the login" in (watched.reason or ""))
        assert "word-of-redis" not in watched.reason


async def test_its_connection_is_closed_with_it(start_server):
    server = start_server()
    async with server_check(server.url) as watched:
        await until(lambda: connections(server))
    await until(lambda: not connections(server))
    assert watched.reason is None


def test_a_url_that_is_none():
    with pytest.raises(ConfigError):
        ServerCheck("http://localhost")


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_server_that_is_busy_with_a_script_is_not_reached(start_server, kind):
    server = start_server(kind, options={"lua-time-limit": "10"})
    async with server_check(server.url) as watched:
        await until(lambda: connections(server))
        with server.client(socket_timeout=0.1) as client, contextlib.suppress(Exception):
            client.eval("while true do end", 0)
        await until(lambda: "BUSY" in (watched.reason or ""))
        server.do("SCRIPT", "KILL")
        await until(lambda: watched.reason is None)
