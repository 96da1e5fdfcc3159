"""SIGTERM while a sink waits: the end waits for attempts under way and for what is in memory alone."""

import asyncio

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.test_trouble import AUDIT, DENIED, FINE, events, setup, telegram, texts

BUSY = Reply(429, {"ok": False, "error_code": 429, "description": "Too Many", "parameters": {"retry_after": 600}})
DOWN = Reply(503, {"ok": False, "error_code": 503, "description": "Down"})
PATIENT = {"shutdown": {"drain": "10m"}}
"""Who waits for the sink waits longer than the test does for the process."""

WAITING = {
    "breaker": (DENIED, {"breaker": {"reset": "5m"}}),
    "asked": (BUSY, {"to": "42"}),
    "address asked": (BUSY, {}),
    "retries": (DOWN, {"retry": {"initial": "5m"}, "breaker": {"failures": 1000}}),
    "rate": (FINE, {"rate": "4/h"}),
}


def held(server):
    """Deliveries of the sink that Redis holds."""
    with server.client() as client:
        return client.xlen("{event-router}:queue:chat") + client.zcard("{event-router}:later:chat")


@pytest.mark.parametrize("why", WAITING)
@pytest.mark.parametrize("order", [{}, {"order_by": "payload.user_id"}])
async def test_what_waits_in_redis_holds_no_stop_up(why, order, redis_server, tmp_path):
    answer, keys = WAITING[why]
    async with stand_in() as bot:
        bot.default = answer
        sinks = {"chat": telegram(bot.url, **keys, **order), "audit": AUDIT}
        async with daemon(redis_server, tmp_path, setup(sinks, **PATIENT)) as router:
            router.publish("notification", *events(12, users=3))
            await router.until(lambda: router.count() == 12, "for the other sink")
            await router.until(lambda: len(bot.requests) >= (4 if why == "rate" else 1), "for attempts")
            assert await router.stop() == 0
        delivered = 4 if why == "rate" else 0
        assert held(redis_server) == 12 - delivered
        assert router.closing()["dropped"] == {}
        assert router.letters() == []


async def test_what_is_in_memory_alone_is_waited_for(redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = DENIED
        sinks = {"chat": telegram(bot.url, queue="memory", breaker={"reset": "300ms"}), "audit": AUDIT}
        async with daemon(redis_server, tmp_path, setup(sinks, **PATIENT)) as router:
            router.publish("notification", *events(12))
            await router.until(lambda: router.count() == 12 and bot.requests, "for the breaker to open")
            refused = len(bot.requests)
            router.process.signal()
            await router.until(lambda: '"draining"' in router.process.err, "for the end to begin")
            bot.default = FINE
            assert await asyncio.to_thread(router.process.wait) == 0
        assert sorted(map(int, texts(bot.requests[-12:]))) == list(range(12))
        assert refused < len(bot.requests)
        assert router.closing()["dropped"] == {}


async def test_what_its_source_keeps_holds_no_stop_up(redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = DENIED
        sinks = {"chat": telegram(bot.url, queue="memory", breaker={"reset": "5m"})}
        sources = {"billing": {"type": "stream", "streams": ["billing"], "start": "oldest"}}
        config = {"sources": sources, "sinks": sinks, "routes": [{"id": "all", "sinks": ["chat"]}], **PATIENT}
        with redis_server.client() as client:
            for number in range(12):
                client.xadd("billing", {"payload": f'{{"user_id": {number}, "message": "{number}"}}'})
        async with daemon(redis_server, tmp_path, config) as router:
            await router.until(lambda: bot.requests, "for the breaker to open")
            assert await router.stop() == 0
        assert redis_server.do("XPENDING", "billing", "event-router")["pending"] == 12
        assert router.closing()["dropped"] == {}


THREAD = """
import threading
from router.api import hookimpl

def starts_a_thread(event, options):
    threading.Thread(target=threading.Event().wait, name="of the plugin", daemon=False).start()

@hookimpl
def register_sinks(register):
    register("thread", starts_a_thread, queue="memory")
"""


async def test_a_thread_of_a_plugin_does_not_keep_the_process(redis_server, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "thread.py").write_text(THREAD)
    sinks = {"thread": {"type": "thread"}, "audit": AUDIT}
    async with daemon(redis_server, tmp_path, setup(sinks)) as router:
        router.publish("notification", *events(1))
        await router.until(lambda: router.count() == 1)
        assert await router.stop() == 0
    assert "threads of plugins still run; the process ends without waiting for them" in router.process.err
    assert router.closing()["delivered"] == 2


FLOOD = """
for number = 1, tonumber(ARGV[1]) do
    redis.call('PUBLISH', 'a', '{"number":' .. number .. ',"text":"' .. string.rep('x', 100) .. '"}')
end
"""
LOG = {"type": "log", "path": "audit.jsonl", "queue": {"type": "memory", "max_events": 1_000_000}}


async def test_what_was_published_before_the_end_is_delivered_after_a_flood(redis_server, tmp_path):
    config = {
        "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
        "sinks": {"audit": LOG},
        "routes": [{"id": "all", "sinks": ["audit"]}],
        **PATIENT,
    }
    async with daemon(redis_server, tmp_path, config) as router:
        redis_server.do("EVAL", FLOOD, 0, 100_000)
        assert await router.stop() == 0
    closing = router.closing()
    assert (closing["received"], closing["delivered"], closing["gaps"]) == (100_000, 100_000, 0)
    assert [line["payload"]["number"] for line in router.lines()] == list(range(1, 100_001))
    assert redis_server.subscribers("a") == 0
