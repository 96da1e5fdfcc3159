"""The watchdog of the real daemon, seen from the service manager's side."""

import asyncio
import itertools
import json
import signal
import time
import urllib.request

import pytest

from tests.support.daemon import daemon
from tests.support.redis import free_port
from tests.support.waiting import PATIENCE, stays

INTERVAL = 3.0
ASKED = {"WATCHDOG_USEC": str(int(INTERVAL * 1_000_000))}

PLUGIN = """
import asyncio, os, time
from router.api import SinkError, TransientError, hookimpl

async def moody(event, options):
    mood = event.payload["message"]
    if mood == "block":
        time.sleep(6)
    elif mood == "fail":
        raise TransientError("not now")
    elif mood == "refuse":
        raise SinkError("the token is refused")
    elif mood == "deaf":
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass
    elif mood == "hang":
        import router.engine.calling.slots as slots
        slots.OVERDUE = 0.5
        slots.Slots._check = lambda self: None  # nobody ends calls any more
        while not os.path.exists("go"):
            await asyncio.sleep(0.05)

@hookimpl
def register_sinks(register):
    register("moody", moody)
"""


def setup(**keys):
    sink = {"type": "moody", "queue": "memory", "timeout": "1s", "concurrency": 2, "retry": {"initial": "50ms"}}
    return {
        "sources": {
            "web": {"type": "pubsub", "channels": ["c"]},
            "billing": {"type": "stream", "streams": ["s"]},
            "jobs": {"type": "list", "keys": ["l"]},
        },
        "sinks": {"moody": {**sink, **keys}, "kept": {"type": "log", "path": "kept.jsonl", "queue": "redis"}},
        "routes": [{"id": "all", "sinks": ["moody", "kept"]}],
    }


@pytest.fixture
def server(start_server):
    return start_server("valkey")


def start(server, folder, config=None, **env):
    plugins = folder / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "moody.py").write_text(PLUGIN)
    return daemon(server, folder, config or setup(), **(ASKED | env))


def pings(running):
    """When each WATCHDOG=1 came."""
    notify = running.process.notify
    notify.catch_up()
    return [at for at, message in zip(notify.times, notify.messages, strict=False) if message == "WATCHDOG=1"]


def gaps(times):
    return [after - before for before, after in itertools.pairwise(times)]


def often_enough(times):
    """Whether the manager hears as often as it asks to, all in all: it is three times as often while nothing is wrong."""
    return len(times) >= (time.monotonic() - times[0]) / INTERVAL


def say(running, mood):
    running.publish("c", {"user_id": 1, "message": mood})


async def test_it_is_told_often_enough_and_only_once_ready(server, tmp_path):
    async with start(server, tmp_path / "a") as running:
        await running.until(lambda: len(pings(running)) >= 7)
        notify = running.process.notify
        assert notify.messages.index("WATCHDOG=1") > [m.startswith("READY=1") for m in notify.messages].index(True)
        assert often_enough(pings(running))
        assert await running.stop() == 0


@pytest.mark.parametrize("env", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}])
async def test_who_does_not_ask_is_told_nothing(server, tmp_path, env):
    async with start(server, tmp_path / "a", **env) as running:
        await running.until(lambda: running.process.notify.seen("READY=1"))
        await stays(lambda: pings(running) == [], INTERVAL)
        assert await running.stop() == 0
        assert pings(running) == []


async def test_a_plugin_that_blocks_the_event_loop_silences_it_for_that_time(server, tmp_path):
    async with start(server, tmp_path / "a") as running:
        await running.until(lambda: len(pings(running)) >= 2)
        say(running, "block")
        await running.until(lambda: "a plugin blocks the event loop" in running.process.err)
        before = len(pings(running))
        await running.until(lambda: len(pings(running)) >= before + 3)
        assert max(gaps(pings(running))) > INTERVAL
        assert "a component of the router hangs" not in running.process.err
        assert await running.stop() == 0


@pytest.mark.parametrize("mood", ["fail", "refuse", "deaf"])
async def test_a_sink_that_does_not_work_does_not_silence_it(server, tmp_path, mood):
    async with start(server, tmp_path / "a", setup(breaker={"failures": 3, "reset": "500ms"})) as running:
        await running.until(lambda: len(pings(running)) >= 2)
        for _ in range(5):
            say(running, mood)
        await running.until(lambda: '"sink":"moody"' in running.process.err)
        seen = len(pings(running))
        await running.until(lambda: len(pings(running)) >= seen + 10)
        assert often_enough(pings(running))
        assert "hangs" not in running.process.err
        running.process.signal(signal.SIGKILL)


async def test_a_redis_that_stands_still_or_is_away_does_not_silence_it(server, tmp_path):
    async with start(server, tmp_path / "a") as running:
        await running.until(lambda: len(pings(running)) >= 2)
        say(running, "fine")
        server.pause()
        await stays(lambda: running.process.running, 11.0)
        server.kill()
        await stays(lambda: running.process.running, 2.0)
        assert often_enough(pings(running))
        assert "hangs" not in running.process.err
        server.start()
        running.process.signal(signal.SIGKILL)


async def test_a_part_that_hangs_silences_it_and_is_named(server, tmp_path):
    port = free_port()
    config = {**setup(), "admin": {"listen": f"127.0.0.1:{port}"}}

    def warnings():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE) as answer:
            return json.load(answer)["warnings"]

    async with start(server, tmp_path / "a", config) as running:
        await running.until(lambda: len(pings(running)) >= 2)
        say(running, "hang")
        await running.until(lambda: "a component of the router hangs" in running.process.err)
        before = len(pings(running))
        named = "sink moody: a call exceeds its timeout and can't be ended"
        assert any(warning.startswith(named) for warning in await asyncio.to_thread(warnings))
        await stays(lambda: len(pings(running)) == before, INTERVAL)
        (tmp_path / "a" / "go").touch()
        await running.until(lambda: "a component makes progress again" in running.process.err)
        await running.until(lambda: len(pings(running)) >= before + 3)
        assert not any(warning.startswith(named) for warning in await asyncio.to_thread(warnings))
        lines = [json.loads(line) for line in running.process.err.splitlines() if line.startswith("{")]
        (hang,) = [line for line in lines if line["event"].startswith("a component of the router hangs")]
        assert (hang["level"], hang["part"]) == ("error", "sink moody")
        assert running.process.err.count("a component makes progress again") == 1
        assert await running.stop() == 0
