"""The connection to Redis in trouble, as the users of the real command see it."""

import asyncio
import signal
import time

from tests.support.daemon import daemon

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
        await asyncio.sleep(2.0)
        stood = time.monotonic() - began
        router.process.signal(signal.SIGCONT)
        await router.until(lambda: "subscription is back" in router.process.err)
        assert await router.stop() == 0
    closing = router.closing()
    assert closing["gaps"] == 1
    assert closing["gap_seconds"] >= round(stood, 1) - 0.1  # it is rounded too
