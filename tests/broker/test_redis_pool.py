"""The Redis client of plugins: its connections, and what each failure means for a delivery."""

from __future__ import annotations

import asyncio

import pytest

from router.broker.plugins.redis_pool import CONNECTIONS, RedisPool
from router.broker.server import client
from router.errors import PermanentError, SinkError, TransientError
from tests.support.redis import free_port


@pytest.fixture
async def pool_of():
    """Return a pool for a URL; all are closed after the test."""
    pools = []

    def made(url, patience=client.TIMEOUT):
        pools.append(RedisPool(client.server(url, client_name="event-router:test:sink:s"), patience))
        return pools[-1]

    yield made
    for pool in pools:
        await pool.close()


async def test_it_has_four_connections_at_most_with_a_name_of_their_own(redis_server, pool_of):
    pool = pool_of(redis_server.url)
    await asyncio.gather(*(pool.call("INCR", "n") for _ in range(50)))
    assert await pool.call("GET", "n") == b"50"
    names = [each["name"] for each in redis_server.client().client_list()]
    assert names.count("event-router:test:sink:s") == CONNECTIONS
    await pool.close()
    with pytest.raises(TransientError, match="closed"):
        await pool.call("PING")


async def test_calls_that_wait_for_a_connection_fail_in_time(redis_server, pool_of):
    pool = pool_of(redis_server.url, patience=0.5)
    waiting = [asyncio.create_task(pool.call("BLPOP", "empty", 0)) for _ in range(CONNECTIONS + 2)]
    for each in waiting:
        with pytest.raises(TransientError, match="no answer in time"):
            await each
    assert await pool.call("PING") == b"PONG"


async def test_a_cancelled_call_leaves_no_answer_for_the_next(redis_server, pool_of):
    pool = pool_of(redis_server.url)
    for _ in range(3):
        blocked = asyncio.create_task(pool.call("BLPOP", "empty", 0))
        while not any(each["cmd"] == "blpop" for each in redis_server.client().client_list()):
            await asyncio.sleep(0)
        blocked.cancel()
        await asyncio.wait([blocked])
        assert await pool.call("ECHO", "mine") == b"mine"


async def test_an_error_in_a_pipeline_stands_in_the_place_of_its_answer(redis_server, pool_of):
    redis_server.do("SET", "text", "x")
    first, wrong, syntax, last = await pool_of(redis_server.url).pipeline(
        [("SET", "a", 1), ("LPUSH", "text", "y"), ("SET", "a"), ("GET", "a")]
    )
    assert (first, last) == (b"OK", b"1")
    assert isinstance(wrong, PermanentError)
    assert "WRONGTYPE" in str(wrong)
    assert isinstance(syntax, PermanentError)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "unix:///nowhere/at/all"])
async def test_a_server_that_is_not_there_is_transient(pool_of, url):
    pool = pool_of(url.format(port=free_port()))
    with pytest.raises(TransientError, match=r"connection refused|no such socket"):
        await pool.call("PING")
    with pytest.raises(TransientError):
        await pool.pipeline([("PING",)])


async def test_a_full_server_is_transient(redis_server, pool_of):
    redis_server.do("CONFIG", "SET", "maxmemory", "1")
    pool = pool_of(redis_server.url)
    (refused,) = await pool.pipeline([("SET", "a", "b")])
    assert isinstance(refused, TransientError)
    assert "OOM" in str(refused)
    with pytest.raises(TransientError, match="OOM"):
        await pool.call("SET", "a", "b")


async def test_a_replica_is_transient_and_is_dialled_anew(start_server, pool_of):
    server = start_server()
    pool = pool_of(server.url)
    assert await pool.call("PING") == b"PONG"
    server.do("REPLICAOF", "127.0.0.1", free_port())
    server.do("CONFIG", "SET", "replica-serve-stale-data", "yes")
    before = server.do("INFO", "stats")["total_connections_received"]
    (refused,) = await pool.pipeline([("SET", "a", "b")])
    assert isinstance(refused, TransientError)
    assert "READONLY" in str(refused)
    server.do("REPLICAOF", "NO", "ONE")
    assert await pool.pipeline([("SET", "a", "b")]) == [b"OK"]
    assert server.do("INFO", "stats")["total_connections_received"] > before + 1


async def test_a_server_that_runs_a_script_is_transient(start_server, pool_of):
    server = start_server(options={"busy-reply-threshold": "1"})
    pool = pool_of(server.url)
    await pool.call("PING")
    with server.client() as other:
        connection = other.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", "0")
        refusals = []
        while not refusals:  # from the first millisecond on
            try:
                await pool.call("SET", "a", "b")
            except TransientError as error:
                refusals.append(str(error))
        assert "BUSY" in refusals[0]
        server.do("SCRIPT", "KILL")
        connection.disconnect()


@pytest.mark.parametrize(
    ("user", "command", "said"),
    [
        ("weak:pw", ("SET", "a", "b"), "the Redis user lacks the permission"),
        ("weak:wrong", ("PING",), "refused the login"),
    ],
)
async def test_what_an_operator_must_mend_is_a_fault_of_the_sink(redis_server, pool_of, user, command, said):
    redis_server.do("ACL", "SETUSER", "weak", "on", ">pw", "+get", "+ping", "+echo", "~*")
    pool = pool_of(f"redis://{user}@127.0.0.1:{redis_server.port}")
    with pytest.raises(SinkError, match=said) as raised:
        await pool.call(*command)
    assert user.partition(":")[2] not in str(raised.value)


async def test_a_server_without_the_command_or_the_database_is_a_fault_of_the_sink(redis_server, pool_of):
    with pytest.raises(SinkError, match="unknown command"):
        await pool_of(redis_server.url).call("XYZZY")
    with pytest.raises(SinkError, match="DB index"):
        await pool_of(f"{redis_server.url}/99").call("PING")


async def test_what_is_no_word_is_a_fault_of_the_plugin(redis_server, pool_of):
    with pytest.raises((TypeError, ValueError)):
        await pool_of(redis_server.url).call("SET", "a", object())
