"""A plugin's state and Redis client under the real daemon: what a reload keeps, and what `deliver: print` denies."""

from __future__ import annotations

from tests.support.daemon import daemon
from tests.test_reload import reload

PLUGIN = """
from router.api import SinkOptions, Template, hookimpl

class Options(SinkOptions):
    text: Template = Template("{{ payload }}")
    prefix: str = ""

async def count(event, options, context):
    context.state["n"] = context.state.get("n", 0) + 1
    await context.redis.call("RPUSH", "seen", f"{options.prefix}{options.text} {context.state['n']}")

class Local:
    local = True

    def __init__(self, options): ...

    async def open(self, context):
        self.context = context

    async def deliver(self, event, options):
        with open("local.txt", "a") as file:
            file.write(f"{self.context.redis}\\n")

@hookimpl
def register_sinks(register):
    register("count", count, options=Options, queue="memory", concurrency=1)
    register("local", Local)
"""
SOURCES = {"web": {"type": "pubsub", "channels": ["a"]}}


def setup(routes=None, **options):
    sinks = {"counter": {"type": "count", **options}}
    return {"sources": SOURCES, "sinks": sinks, "routes": routes or [{"id": "all", "sinks": ["counter"]}]}


def plugin(folder):
    (folder / "plugins").mkdir(mode=0o755)
    (folder / "plugins" / "count.py").write_text(PLUGIN)
    (folder / "plugins" / "count.py").chmod(0o644)


async def test_the_state_lives_until_the_definition_of_the_sink_changes(redis_server, tmp_path):
    plugin(tmp_path)

    async def publish(payload):
        seen = redis_server.do("LLEN", "seen")
        router.publish("a", payload)
        await router.until(lambda: redis_server.do("LLEN", "seen") > seen)
        return redis_server.do("LINDEX", "seen", -1).decode()

    async with daemon(redis_server, tmp_path, setup()) as router:
        assert await publish(1) == "1 1"
        assert await publish(2) == "2 2"
        others = [{"id": "some", "sinks": [{"sink": "counter", "text": "over {{ payload }}"}]}]
        await reload(router, setup(others))
        assert await publish(3) == "over 3 3"
        await reload(router, setup(others, prefix="new "))
        assert await publish(4) == "new over 4 1"


async def test_there_is_no_redis_with_deliver_print(redis_server, tmp_path):
    plugin(tmp_path)
    sinks = {"here": {"type": "local"}}
    config = {"sources": SOURCES, "sinks": sinks, "routes": [{"id": "all", "sinks": ["here"]}], "deliver": "print"}
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("a", 1)
        file = tmp_path / "local.txt"
        await router.until(lambda: file.exists() and file.read_text())
    assert file.read_text() == "None\n"
    assert redis_server.do("KEYS", "*") == []
