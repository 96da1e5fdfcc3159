"""The connection to Redis in trouble, as the users of the real command see it."""

import json
import signal
import time

import pytest

from tests.support.daemon import daemon
from tests.support.proxy import Proxy
from tests.support.waiting import moment

AUDIT = {"sinks": {"audit": {"type": "log", "path": "audit.jsonl"}}, "routes": [{"id": "all", "sinks": ["audit"]}]}


async def test_a_router_that_was_stopped_for_a_while_says_how_long_it_was_deaf(start_server, kind, tmp_path):
    server = start_server(kind, options={"client-output-buffer-limit": "pubsub 64kb 64kb 0"})
    config = {"sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}}, **AUDIT}
    async with daemon(server, tmp_path, config) as router:
        router.publish("notification", {"n": 0})
        await router.until(router.count)
        router.process.signal(signal.SIGSTOP)
        began = time.monotonic()
        with server.client() as client:
            while client.publish("notification", b"x" * 100_000):  # until the server gives it up
                pass
        await moment(2.0)
        stood = time.monotonic() - began
        router.process.signal(signal.SIGCONT)
        await router.until(lambda: "subscription is restored" in router.process.err)
        assert await router.stop() == 0
    closing = router.closing()
    assert closing["gaps"] == 1
    assert closing["gap_seconds"] >= round(stood, 1) - 0.1  # it is rounded too


@pytest.mark.parametrize("extra", [b":1\r\n", b"+OK\r\n", b"*0\r\n", b"$-1\r\n", b"*1\r\n*2\r\n$1\r\nx\r\n*0\r\n"])
async def test_an_answer_that_nobody_asked_for_costs_a_connection_and_nothing_else(start_server, tmp_path, extra):
    server = start_server("valkey")
    sources = {
        "web-app": {"type": "pubsub", "channels": ["notification"]},
        "billing": {"type": "stream", "streams": ["billing"], "start": "oldest"},
        "jobs": {"type": "list", "keys": ["jobs"]},
    }
    sinks = {"audit": {"type": "log", "path": "audit.jsonl", "queue": "redis"}}
    routes = [{"id": "all", "sinks": ["audit"]}]
    async with Proxy(server.port) as proxy:
        config = {"redis": {"url": proxy.url}, "sources": sources, "sinks": sinks, "routes": routes}
        async with daemon(server, tmp_path, config) as router:
            for number in range(0, 60, 2):
                server.do("XADD", "billing", "*", "payload", json.dumps({"n": number}))
                server.do("LPUSH", "jobs", json.dumps({"n": number + 1}))
                if number % 10 == 0:
                    assert proxy.inject(extra) > 5
                await router.until(lambda number=number: router.count() >= number + 2)
            assert await router.stop() == 0
        assert "Traceback" not in router.process.err
    assert {line["payload"]["n"] for line in router.lines()} == set(range(60))
    assert router.count() == 60
    assert "the subscription is lost" in router.process.err
