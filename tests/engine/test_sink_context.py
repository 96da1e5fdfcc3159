"""What a sink gets of the router: its Redis client, and a state that its workers share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from router.broker.server import client
from router.config.models import HostKeys
from router.engine.calling.context import Context
from router.engine.calling.threads import DaemonThreads
from router.engine.clock import SystemClock
from router.engine.runtime import Runtime
from router.errors import SinkError, TransientError
from tests.support.engine import bench, make_event


def context_of(server=None):
    threads = DaemonThreads("test", 1)
    keys = HostKeys(type="log")
    return Context("audit", clock=SystemClock(), base=Path("/nowhere"), threads=threads, keys=keys, server=server)


def of(redis_server):
    runtime = Runtime("one", redis_server.url, 1.0, printer=print, waiting=print)
    return context_of(partial(runtime.server, sink="audit"))


async def test_it_is_made_on_first_use_with_a_name_of_its_own_and_closed_with_the_sink(redis_server):
    context = of(redis_server)
    before = {each["id"] for each in redis_server.client().client_list()}
    redis = context.redis
    assert redis is context.redis
    assert await redis.call("SET", "a", "b") == b"OK"
    names = [each["name"] for each in redis_server.client().client_list() if each["id"] not in before]
    assert "event-router:one:sink:audit" in names
    await context.close()
    with pytest.raises(TransientError, match="closed"):
        await redis.call("GET", "a")


async def test_another_server_has_a_client_of_its_own(redis_server):
    context = of(redis_server)
    other = context.redis_at(f"{redis_server.url}/1")
    assert other is context.redis_at(f"{redis_server.url}/1")
    assert other is not context.redis
    await other.call("SET", "a", "b")
    assert await context.redis.call("EXISTS", "a") == 0
    with pytest.raises(SinkError, match="begin with redis://"):
        context.redis_at("http://localhost")
    await context.close()


async def test_there_is_none_in_threads(redis_server):
    context = of(redis_server)
    assert await context.run_blocking(lambda: context.redis) is None
    assert await context.run_blocking(lambda: context.redis_at("redis://localhost")) is None
    assert context.redis is not None
    await context.close()


def test_there_is_none_with_deliver_print():
    context = context_of()
    assert context.redis is None
    assert context.redis_at("redis://localhost") is None


async def test_the_workers_of_a_sink_share_one_state():
    seen = []

    async def sink(event, options, context):
        context.state["calls"] = context.state.get("calls", 0) + 1
        seen.append(context.state["calls"])

    async with bench(sink, concurrency=4) as at:
        at.put(*(make_event() for _ in range(8)))
        await at.settled()
    assert sorted(seen) == list(range(1, 9))


def test_the_connections_of_the_router_keep_their_name():
    runtime = Runtime("one", "redis://localhost", 1.0, printer=print, waiting=print)
    assert runtime.server().client_name == "event-router:one"
    assert client.server("redis://localhost", client_name="a b").client_name == "a-b"
