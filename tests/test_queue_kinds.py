"""Sinks whose queue moves between memory and Redis, or that come new, while entries of a stream are not settled."""

import asyncio
import json
import signal
from collections import Counter

import pytest

from tests.support.daemon import daemon
from tests.support.process import run
from tests.support.streams import pending

GROUP = "event-router"
MARKS = "{event-router}:handed-over"
EVENTS = set(range(1, 31))
BILLING = {"billing": {"type": "stream", "streams": ["billing"], "start": "oldest", "claim": {"idle": "30s"}}}

PLUGIN = """
import asyncio
from pathlib import Path
from router.api import SinkOptions, hookimpl

class Options(SinkOptions):
    file: str

class Held:
    '''Writes a line for each delivery; waits while there is a file `hold`.'''

    def __init__(self, options):
        self.file = Path(options.file)

    async def deliver(self, event, options):
        while Path("hold").exists():
            await asyncio.sleep(0.01)
        with self.file.open("a") as file:
            file.write(f"{event.payload['user_id']}\\n")

@hookimpl
def register_sinks(register):
    register("held", Held, options=Options, queue="memory", concurrency=2)
"""


def setup(kinds, **routes):
    """A configuration of sinks of the type `held`, by the kind of their queue; `all` names every one of them."""
    sinks = {name: {"type": "held", "file": f"{name}.txt", "queue": kind} for name, kind in kinds.items()}
    for name in sinks:
        if name != "slow":
            sinks[name] = {"type": "log", "path": f"{name}.jsonl", "queue": kinds[name]}
    routes = {"all": list(kinds), **routes}
    return {"sources": BILLING, "sinks": sinks, "routes": [{"id": id_, "sinks": to} for id_, to in routes.items()]}


def got(router, sink):
    """How often each event was delivered to a sink."""
    if sink == "slow":
        file = router.folder / "slow.txt"
        return Counter(int(line) for line in file.read_text().splitlines()) if file.exists() else Counter()
    return Counter(line["payload"]["user_id"] for line in router.lines(f"{sink}.jsonl"))


def hold(folder):
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "held.py").write_text(PLUGIN)
    (folder / "hold").touch()


def fill(server):
    with server.client() as client:
        for number in sorted(EVENTS):
            client.xadd("billing", {"payload": json.dumps({"user_id": number, "message": "m"})})


async def kill(router):
    router.process.signal(signal.SIGKILL)
    await asyncio.to_thread(router.process.wait)


async def reload(router, config):
    """Have another configuration taken by SIGHUP."""
    whole = {"version": 1, "redis": {"url": router.server.url}, **config}
    (router.folder / "config.yaml").write_text(json.dumps(whole))
    seen = len(router.process.notify.messages)
    router.process.signal(signal.SIGHUP)
    messages = router.process.notify.messages
    await router.until(lambda: any("READY=1" in one for one in messages[seen:]), "for READY")


async def settled(router, *sinks):
    """Wait until every event has come to each of the sinks, and the stream is done with them; then the books are asked."""
    for sink in sinks:
        await router.until(lambda sink=sink: set(got(router, sink)) == EVENTS, f"for every event in {sink}")
    await router.until(lambda: not pending(router.server, "billing", GROUP), "for every entry to be acknowledged")
    await router.until(lambda: not router.server.do("HLEN", MARKS), "for every mark to be removed")
    status = json.loads(run("status", "--json", cwd=router.folder).out)
    assert status["balanced"] is True
    return status["books"]["sinks"]


async def half_done(router):
    """Wait until the entries are read, and over for the sink `kept`; its queue says so too, so that a kill repeats nothing."""
    await router.until(lambda: set(got(router, "kept")) == EVENTS, "for every event in kept")
    await router.until(lambda: not router.server.do("XLEN", "{event-router}:queue:kept"), "for an empty queue")
    assert len(pending(router.server, "billing", GROUP)) == len(EVENTS)
    assert not got(router, "slow")


@pytest.fixture
def server(start_server):
    return start_server()


BEFORE = {"slow": "memory", "kept": "redis"}
AFTER = {"slow": "redis", "kept": "redis"}


async def test_a_queue_that_is_moved_to_redis_by_a_restart_gets_what_another_had_already(server, tmp_path):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await kill(router)
    (tmp_path / "hold").unlink()
    async with daemon(server, tmp_path, setup(AFTER)) as router:
        sinks = await settled(router, "slow", "kept")
        assert got(router, "kept") == dict.fromkeys(EVENTS, 1), "what stood in a queue in Redis is not enqueued again"
        assert (sinks["slow"]["accepted"], sinks["kept"]["accepted"]) == (30, 30)


async def test_a_queue_that_is_moved_to_redis_by_a_reload_gets_what_another_had_already(server, tmp_path):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await reload(router, setup(AFTER))
        (tmp_path / "hold").unlink()
        await settled(router, "slow", "kept")
        assert got(router, "slow") == got(router, "kept") == dict.fromkeys(EVENTS, 1)


async def test_a_queue_that_is_moved_to_memory_by_a_restart_gets_everything_again(server, tmp_path):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await kill(router)
    (tmp_path / "hold").unlink()
    async with daemon(server, tmp_path, setup({"slow": "memory", "kept": "memory"})) as router:
        await settled(router, "slow", "kept")
        assert got(router, "slow") == dict.fromkeys(EVENTS, 1)


async def test_a_queue_that_is_moved_to_memory_by_a_reload_gets_all_that_comes_afterwards(server, tmp_path):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await reload(router, setup({"slow": "memory", "kept": "memory"}))
        (tmp_path / "hold").unlink()
        await settled(router, "slow", "kept")
        assert got(router, "slow") == got(router, "kept") == dict.fromkeys(EVENTS, 1)


@pytest.mark.parametrize("kinds", [BEFORE, AFTER])
async def test_a_sink_that_is_new_after_a_restart_gets_what_the_others_had_already(server, tmp_path, kinds):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await kill(router)
    (tmp_path / "hold").unlink()
    async with daemon(server, tmp_path, setup({**kinds, "third": "redis"})) as router:
        await settled(router, "slow", "kept", "third")
        assert got(router, "kept") == got(router, "third") == dict.fromkeys(EVENTS, 1)


async def test_a_route_that_is_new_after_a_restart_makes_its_delivery_to_a_sink_that_had_the_event(server, tmp_path):
    hold(tmp_path)
    fill(server)
    async with daemon(server, tmp_path, setup(BEFORE)) as router:
        await half_done(router)
        await kill(router)
    (tmp_path / "hold").unlink()
    changed = setup(BEFORE, too=["kept"])
    changed["routes"][-1]["expires"] = "1h"  # else its delivery would be merged with that of the other route
    async with daemon(server, tmp_path, changed) as router:
        await settled(router, "slow", "kept")
        await router.until(lambda: got(router, "kept") == dict.fromkeys(EVENTS, 2))
