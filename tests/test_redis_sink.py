"""The examples of the redis sink's page under the real daemon, and what the sink shows without sending."""

from __future__ import annotations

import re

import yaml

from tests.support.daemon import daemon
from tests.support.process import ROOT

PAGE = (ROOT / "docs" / "sinks" / "redis.md").read_text()
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification", "orders.*"]}}
TOGETHER = {
    "sources": SOURCES,
    "sinks": {name: sink for example in EXAMPLES for name, sink in example["sinks"].items()},
    "routes": [route for example in EXAMPLES for route in example["routes"]],
}


async def test_the_examples_of_the_page(redis_server, tmp_path):
    assert [list(example["sinks"]) for example in EXAMPLES] == [["keep"], ["inbox"], ["shipping"]]
    redis = redis_server.client()
    first = b'{"user_id": 42, "message": "on its way",  "n": 1.50}'
    with redis.pubsub() as next_app:
        next_app.subscribe("shipping")
        assert next_app.get_message(timeout=30)["type"] == "subscribe"
        async with daemon(redis_server, tmp_path, TOGETHER) as router:
            router.publish("notification", first, {"user_id": 43, "message": "hi"}, {"user_id": 42, "message": "there"})
            router.publish("orders.new", {"state": "paid"}, {"state": "shipped", "id": 7})
            await router.until(lambda: redis.xlen("events:notification") == 3)
            await router.until(lambda: redis.xlen("inbox:42") == 2)
            await router.until(lambda: redis.exists("inbox:43"))
            assert next_app.get_message(timeout=30)["data"] == b'{"state": "shipped", "id": 7}'
            assert await router.stop() == 0
    assert router.closing()["delivered"] == 7
    kept = redis.xrange("events:notification")
    assert kept[0][1][b"payload"] == first
    assert kept[0][1][b"key"].endswith(b":keep:keep")
    assert [fields[b"payload"] for _, fields in redis.xrange("inbox:42")] == [b"on its way", b"there"]


async def test_what_was_not_accepted_is_tried_again_once_there_is_room(redis_server, start_server, tmp_path):
    """The second server refuses writes at first; nothing is lost, and the order stays."""
    full = start_server()
    full.do("CONFIG", "SET", "maxmemory", "1")
    quick = {"retry": {"initial": "50ms", "max_delay": "50ms"}, "breaker": {"failures": 1000}}
    sink = {"type": "redis", "rpush": "jobs", "url": full.url, **quick}
    config = {"sources": SOURCES, "sinks": {"jobs": sink}, "routes": [{"id": "all", "sinks": ["jobs"]}]}
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", *range(20))
        await router.until(lambda: "OOM" in router.process.err)
        full.do("CONFIG", "SET", "maxmemory", "0")
        await router.until(lambda: full.do("LLEN", "jobs") == 20)
    assert sorted(map(int, full.do("LRANGE", "jobs", 0, -1))) == list(range(20))


async def test_deliver_print_shows_the_key_and_writes_nothing(redis_server, tmp_path):
    sink = {"type": "redis", "xadd": "inbox:{{ payload.user_id }}"}
    routes = [{"id": "inbox", "sinks": ["box"]}]
    config = {"sources": SOURCES, "sinks": {"box": sink}, "routes": routes, "deliver": "print"}
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"user_id": "42\n\x1b[0m"})
        await router.until(lambda: "box (redis)" in router.process.out)
    assert "notification → inbox → box (redis) to inbox:42\\n\\u001b[0m" in router.process.out.splitlines()
    assert redis_server.do("KEYS", "*") == []
