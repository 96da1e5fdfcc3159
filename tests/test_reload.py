"""Another configuration for a router that runs: what stays goes on untouched, what can't work changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from tests.support.daemon import daemon
from tests.support.lists import left
from tests.support.process import ROOT, Process, run
from tests.support.proxy import Proxy
from tests.support.redis import free_port
from tests.support.streams import pending
from tests.support.waiting import PATIENCE

LOG = {"type": "log", "path": "audit.jsonl"}
CONFIG = {
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
    "sinks": {"audit": LOG},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}

PLUGIN = """
import asyncio, os
from pathlib import Path
from router.api import Secret, SinkError, SinkOptions, Template, TransientError, hookimpl

class Options(SinkOptions):
    file: str
    text: Template = ""
    token: Secret | None = None

class Slow:
    '''Writes a line for each delivery; waits while there is a file `hold`, fails while there is a file `fail`.'''

    def __init__(self, options):
        self.file = Path(options.file)

    async def open(self, context):
        with self.file.open("a") as file:
            file.write("open\\n")

    async def deliver(self, event, options):
        while Path("hold").exists():
            await asyncio.sleep(0.01)
        if Path("fail").exists():
            raise TransientError("not now")
        if options.token and options.token.get_secret_value() == "wrong":
            raise SinkError("invalid_auth")
        with self.file.open("a") as file:
            file.write(f"{options.text or event.raw.decode()}\\n")

    async def close(self):
        with self.file.open("a") as file:
            file.write("close\\n")

@hookimpl
def register_sinks(register):
    register("slow", Slow, options=Options, queue="memory", concurrency=1)
"""


TAKEN = "the new configuration has taken effect"
REFUSED = "the new configuration was refused; the router goes on with the old configuration"
QUICK = {"retry": {"initial": "50ms", "max_delay": "200ms"}, "breaker": {"reset": "200ms"}}


def config(**changes):
    return {**CONFIG, **changes}


def write(router, setup):
    """Put another configuration in the place of the one that runs."""
    whole = (
        setup if isinstance(setup, str) else json.dumps({"version": 1, "redis": {"url": router.server.url}, **setup})
    )
    (router.folder / "config.yaml").write_text(whole)


async def reload(router, setup=None):
    """Have a configuration taken, by SIGHUP; returns the STATUS that came with READY."""
    if setup is not None:
        write(router, setup)
    seen = len(router.process.notify.messages)
    router.process.signal(signal.SIGHUP)
    messages = router.process.notify.messages
    await router.until(lambda: any("READY=1" in one for one in messages[seen:]), "for READY")
    fresh = [one.splitlines() for one in messages[seen:] if not one.startswith("STATUS=")]
    reloading, ready = fresh[:2]
    assert reloading[0] == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
    assert ready[0] == "READY=1"
    return ready[1].removeprefix("STATUS=")


def said(router, event):
    """The log lines that say this."""
    lines = [json.loads(line) for line in router.process.err.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def told(router, event):
    """The same, as soon as there is one: READY may be heard before the line that was written earlier."""
    await router.until(lambda: said(router, event), event)
    return said(router, event)


def lines(router, name):
    file = router.folder / name
    return file.read_text().splitlines() if file.exists() else []


def subscriber(server):
    """The connection that is subscribed."""
    rows = server.do("CLIENT", "LIST", "TYPE", "pubsub")
    return [re.search(rb"id=(\d+)", row)[1] for row in rows.splitlines()]


def put_plugin(folder, *, modules=False):
    plugin = folder / "plugins" / ("slow/sink.py" if modules else "slow.py")
    plugin.parent.mkdir(parents=True)
    plugin.write_text(PLUGIN)
    if modules:
        (plugin.parent / "__init__.py").write_text("from .sink import register_sinks\n")
    return plugin


@asynccontextmanager
async def slow_router(server, folder, *, modules=False, keys=None, **sink):
    """A router with the sink `slow`, whose plugin stands in the folder: a file, or a folder of modules."""
    put_plugin(folder, modules=modules)
    setup = config(
        sinks={"slow": {"type": "slow", "file": "slow.txt", **QUICK, **sink}},
        routes=[{"id": "all", "sinks": ["slow"]}],
        **(keys or {}),
    )
    async with daemon(server, folder, setup) as router:
        router.setup = setup
        yield router


@pytest.fixture
def server(start_server):
    return start_server()


# Taken or refused.


async def test_a_configuration_is_taken_and_says_so(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        other = config(sinks={"audit": LOG, "text": {"type": "log", "path": "text.log", "template": "{{ payload.n }}"}})
        other["routes"] = [*CONFIG["routes"], {"id": "text", "sinks": ["text"]}]
        assert await reload(router, other) == "1 of 1 sources up, 0 received, 0 delivered"
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "text.log") == ["1"] and router.count() == 1)
        [line] = await told(router, TAKEN)
        assert (line["sinks"], line["routes"], line["files"]) == ("added text", "added text", "config.yaml")
        assert "sources" not in line


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("version: 1\nsinks: [\n", "config.yaml:"),
        (config(routes=[{"id": "all", "sinks": ["nobody"]}]), 'unknown sink "nobody"'),
        (config(sinks={"audit": {**LOG, "template": "{{ payload."}}), "template"),
        (
            config(redis={"url": "redis://127.0.0.1:1"}),
            "a reload can't change `redis.url`: restart the router to change it",
        ),
        (config(deliver="print"), "a reload can't change `deliver`"),
        (config(admin={"listen": "off"}), "a reload can't change `admin`"),
    ],
)
async def test_what_cannot_work_changes_nothing(server, tmp_path, fault, says):
    async with daemon(server, tmp_path, CONFIG) as router:
        before = subscriber(server)
        status = await reload(router, fault)
        assert status.startswith("the configuration on disk was refused: ")
        await router.until(lambda: any(says in line["problem"] for line in said(router, REFUSED)))
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count() == 1)
        assert subscriber(server) == before
        assert (await reload(router, CONFIG)).startswith("1 of 1 sources up")


async def test_a_new_source_that_is_refused_changes_nothing(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        server.do("ACL", "SETUSER", "default", "resetchannels", "&a", "&b")
        sources = {
            "web": {"type": "pubsub", "channels": ["a", "b"]},
            "other": {"type": "pubsub", "channels": ["secret"]},
            "jobs": {"type": "list", "keys": ["jobs"]},
        }
        server.do("LPUSH", "jobs", '{"n": 0}')
        assert "refuses the channel 'secret'" in await reload(router, config(sources=sources))
        assert server.do("LRANGE", "jobs", 0, -1) == [b'{"n": 0}'], "what a list had handed out is back"
        await router.until(lambda: server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 0])
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count() == 1)
        assert router.lines()[0]["payload"] == {"n": 1}


async def test_a_new_source_that_cannot_be_reached_changes_nothing(server, tmp_path):
    setup = config(redis={"url": server.url, "connect_timeout": "500ms"})
    async with daemon(server, tmp_path, setup) as router:
        sources = {
            **CONFIG["sources"],
            "far": {"type": "pubsub", "channels": ["x"], "url": f"redis://127.0.0.1:{free_port()}"},
        }
        assert "connection refused" in await reload(router, {**setup, "sources": sources})
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count() == 1)


async def test_a_plugin_that_blocks_at_import_or_cannot_be_made_changes_nothing(server, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    made = """
from router.api import hookimpl

class Broken:
    def __init__(self, options):
        raise ValueError("no luck")

    async def deliver(self, event, options):
        pass

@hookimpl
def register_sinks(register):
    register("broken", Broken)
"""
    async with daemon(server, tmp_path, CONFIG) as router:
        (plugins / "broken.py").write_text(made)
        setup = config(sinks={"audit": LOG, "bad": {"type": "broken"}})
        assert "can't create the sink: ValueError: no luck" in await reload(router, setup)
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count() == 1)


IMPATIENT = "from router.engine.reload import reloader\nreloader.DEADLINE = 1.0\n"
BLOCKING = """
import time
from router.api import hookimpl

@hookimpl
def register_sinks(register):
    pass

time.sleep(3600)
"""


async def test_a_reload_that_takes_too_long_is_given_up_and_the_next_one_works(server, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)  # Python imports it at its start
    setup = config(redis={"url": server.url, "connect_timeout": "1h"})
    async with daemon(server, tmp_path, setup, PYTHONPATH=f"{tmp_path}:{ROOT}") as router:
        (tmp_path / "plugins" / "slow.py").write_text(BLOCKING)
        assert "could not be read within 1 s" in await reload(router)
        assert "could not be read within 1 s" in await reload(router)
        (tmp_path / "plugins" / "slow.py").unlink()
        assert "1 of 1 sources up" in await reload(router, {**setup, "unmatched": "dead-letter"})
        nobody = f"redis://127.0.0.1:{free_port()}"
        far = {**CONFIG["sources"], "far": {"type": "pubsub", "channels": ["x"], "url": nobody}}
        assert "sources.far: " in await reload(router, {**setup, "sources": far})
        assert "1 of 1 sources up" in await reload(router, setup)
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count() == 1)


@pytest.mark.parametrize("name", ["config.yaml", "more.yaml", "notification.json", "variables.env"])
async def test_a_named_pipe_in_the_place_of_a_file_is_refused_and_the_next_reload_works(server, tmp_path, name):
    (tmp_path / "more.yaml").write_text("timezone: UTC\n")
    (tmp_path / "variables.env").write_text("A=b\n")
    setup = config(include="more.yaml", schemas=[{"channels": ["a"], "file": "notification.json", "mode": "warn"}])
    arguments = ("--env-file", str(tmp_path / "variables.env"))
    async with daemon(server, tmp_path, setup, arguments=arguments) as router:
        (tmp_path / name).rename(tmp_path / "kept")
        os.mkfifo(tmp_path / name)
        assert "this is a pipe, not a file" in await reload(router)
        (tmp_path / "kept").rename(tmp_path / name)
        assert "1 of 1 sources up" in await reload(router)


# Sources.


async def test_a_source_that_stays_keeps_its_socket_and_one_that_takes_other_channels_too(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        before = subscriber(server)
        await reload(router, config(unmatched="dead-letter"))
        assert subscriber(server) == before
        wider = {"web": {"type": "pubsub", "channels": ["a", "b*"], "format": "text"}}
        await reload(router, config(sources=wider))
        assert subscriber(server) == before
        router.publish("a", b"one")
        router.publish("bee", b"two")
        await router.until(lambda: router.count() == 2)
        assert [line["payload"] for line in router.lines()] == ["one", "two"]
        await reload(router, config(sources={"web": {"type": "pubsub", "channels": ["bee"]}}))
        await router.until(lambda: server.do("PUBSUB", "NUMSUB", "a", "bee") == [b"a", 0, b"bee", 1])
        assert subscriber(server) == before
        router.publish("bee", {"n": 3})
        await router.until(lambda: router.count() == 3)
        await router.stop()
        assert router.closing()["gaps"] == 0


async def test_another_read_ahead_keeps_the_connection_and_needs_no_server(server, tmp_path):
    def limited(size):
        return config(sources={"web": {"type": "pubsub", "channels": ["a"], "max_read_ahead": size}})

    async with daemon(server, tmp_path, CONFIG) as router:
        before = subscriber(server)
        assert "1 of 1 sources up" in await reload(router, limited("1MiB"))
        assert [line["sources"] for line in await told(router, TAKEN)] == ["changed web"]
        assert subscriber(server) == before
        router.publish("a", *range(2_000))
        await router.until(lambda: router.count() == 2_000)
        assert [line["payload"] for line in router.lines()] == list(range(2_000))
        server.pause()
        await reload(router, limited("1GiB"))
        await router.until(lambda: len(said(router, TAKEN)) == 2)
        server.resume()


async def test_a_stream_in_hand_is_neither_taken_again_nor_forgotten(server, tmp_path):
    hold = tmp_path / "r" / "hold"
    async with slow_router(server, tmp_path / "r") as router:
        sources = {"s": {"type": "stream", "streams": ["s"], "start": "oldest"}}
        sinks = {**router.setup["sinks"], "audit": LOG}
        setup = config(sources=sources, sinks=sinks, routes=[{"id": "all", "sinks": ["slow"]}])
        await reload(router, setup)
        hold.touch()
        add(server, "s", range(50))
        await router.until(lambda: len(pending(server, "s", "event-router")) == 50)
        sources["s"]["streams"] = ["s", "t"]
        await reload(router, setup)
        renamed = {"renamed": {**sources["s"], "max_in_flight": 500}}
        await reload(router, {**setup, "sources": renamed})
        add(server, "t", range(50, 60))
        hold.unlink()
        await router.until(lambda: not pending(server, "s", "event-router"))
        await router.until(lambda: len(numbers(router)) == 60)
        await router.until(lambda: not pending(server, "t", "event-router"))
        assert numbers(router) == dict.fromkeys(range(60), 1)
        await router.stop()


async def test_a_list_in_hand_goes_on(server, tmp_path):
    hold = tmp_path / "r" / "hold"
    async with slow_router(server, tmp_path / "r") as router:
        sources = {"jobs": {"type": "list", "keys": ["jobs"]}}
        await reload(router, {**router.setup, "sources": sources})
        hold.touch()
        push(server, "jobs", range(20))
        await router.until(lambda: server.do("LLEN", "jobs") == 0)
        sources["jobs"]["keys"] = ["jobs", "more"]
        await reload(router, {**router.setup, "sources": sources})
        push(server, "more", range(20, 30))
        hold.unlink()
        await router.until(lambda: sum(numbers(router).values()) >= 30)
        await router.stop()
        assert numbers(router) == dict.fromkeys(range(30), 1)
        with server.client() as client:
            assert left(client) == left(client, "more") == 0


async def test_a_source_that_moves_to_another_server_is_another_one(start_server, tmp_path):
    server, other = start_server(), start_server()
    async with daemon(server, tmp_path, CONFIG) as router:
        await reload(router, config(sources={"web": {"type": "pubsub", "channels": ["a"], "url": other.url}}))
        other.do("PUBLISH", "a", '{"n": 1}')
        await router.until(lambda: router.count() == 1)
        assert server.do("PUBSUB", "NUMSUB", "a") == [b"a", 0]
        await reload(router, config(sources={"jobs": {"type": "list", "keys": ["jobs"]}}))
        assert other.do("PUBSUB", "NUMSUB", "a") == [b"a", 0]
        push(server, "jobs", [2])
        await router.until(lambda: router.count() == 2)


# Sinks.


def add(server, stream, numbers):
    with server.client() as client:
        for number in numbers:
            client.xadd(stream, {"payload": json.dumps({"n": number})})


def push(server, key, numbers):
    with server.client() as client:
        for number in numbers:
            client.lpush(key, json.dumps({"n": number}))


def numbers(router, name="slow.txt"):
    return Counter(json.loads(line)["n"] for line in lines(router, name) if line.startswith("{"))


async def test_a_sink_that_stays_is_not_opened_again_and_takes_new_templates(server, tmp_path):
    async with slow_router(server, tmp_path / "r") as router:
        router.publish("a", {"n": 1})
        await router.until(lambda: len(lines(router, "slow.txt")) == 2)
        routes = [{"id": "all", "sinks": [{"sink": "slow", "text": "n is {{ payload.n }}"}]}]
        await reload(router, {**router.setup, "routes": routes})
        router.publish("a", {"n": 2})
        await router.until(lambda: len(lines(router, "slow.txt")) == 3)
        assert lines(router, "slow.txt") == ["open", '{"n": 1}', "n is 2"]


async def test_a_changed_sink_goes_on_with_what_waits_in_its_order(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder) as router:
        (folder / "hold").touch()
        router.publish("a", *({"n": number} for number in range(30)))
        await router.until(lambda: lines(router, "slow.txt") == ["open"])
        sink = {**router.setup["sinks"]["slow"], "timeout": "9s"}
        await reload(router, {**router.setup, "sinks": {"slow": sink}})
        router.publish("a", *({"n": number} for number in range(30, 40)))
        assert lines(router, "slow.txt") == ["open"], "the next one waits for the call under way"
        (folder / "hold").unlink()
        await router.until(lambda: len(lines(router, "slow.txt")) == 43)
        written = lines(router, "slow.txt")
        assert written[:4] == ["open", '{"n": 0}', "close", "open"]
        assert [json.loads(line)["n"] for line in written if line.startswith("{")] == list(range(40))


async def test_a_sink_that_fails_does_not_hold_a_reload_up_and_its_credential_is_read_again(server, tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    token = folder / "token"
    token.write_text("wrong\n")
    token.chmod(0o600)
    async with slow_router(server, folder, token="${file:token}") as router:
        router.publish("a", *({"n": number} for number in range(5)))
        await router.until(
            lambda: said(router, "the fault is in the sink, not in the message: all deliveries of this sink wait")
        )
        token.write_text("right\n")
        await reload(router)
        [line] = await told(router, TAKEN)
        assert (line["sinks"], line["files"]) == ("changed slow", "token")
        await router.until(lambda: sum(numbers(router).values()) == 5)
        await router.stop()
        assert router.closing()["dead_lettered"] == {}


async def test_a_plugin_that_was_rewritten_is_the_one_that_delivers(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder) as router:
        (folder / "plugins" / "slow.py").write_text(PLUGIN.replace("{options.text or event.raw.decode()}", "new"))
        await reload(router)
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "slow.txt")[-1:] == ["new"])
        [line] = await told(router, TAKEN)
        assert (line["sinks"], line["files"]) == ("changed slow", "plugins/slow.py")


async def test_a_rewritten_module_of_a_folder_is_the_one_that_delivers(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder, modules=True) as router:
        router.publish("a", {"n": 0})
        await router.until(lambda: lines(router, "slow.txt") == ["open", '{"n": 0}'])
        (folder / "plugins" / "slow" / "sink.py").write_text(
            PLUGIN.replace("{options.text or event.raw.decode()}", "new")
        )
        await reload(router)
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "slow.txt")[-1:] == ["new"])
        [line] = await told(router, TAKEN)
        assert (line["sinks"], line["files"]) == ("changed slow", "plugins/slow/sink.py")


async def test_files_behind_the_configuration_count(server, tmp_path):
    schema = {"type": "object", "required": ["n"]}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "t.txt").write_text("{% include 'inner.txt' %}")
    (tmp_path / "mail" / "inner.txt").write_text("one {{ payload.n }}")
    setup = config(
        schemas=[{"channels": ["a"], "file": "s.json"}],
        sinks={"audit": {**LOG, "template": {"file": "mail/t.txt"}}},
    )
    async with daemon(server, tmp_path, setup) as router:
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "audit.jsonl") == ["one 1"])
        (tmp_path / "s.json").write_text(json.dumps({**schema, "required": ["m"]}))
        (tmp_path / "mail" / "inner.txt").write_text("two {{ payload.m }}")
        await reload(router)
        router.publish("a", {"n": 2}, {"m": 3})
        await router.until(lambda: lines(router, "audit.jsonl") == ["one 1", "two 3"])
        await router.until(lambda: len(router.letters()) == 1)
        assert router.letters()[0]["reason"] == "schema"
        [line] = await told(router, TAKEN)
        assert line["files"] == "mail/inner.txt, s.json"
        assert "sinks" not in line


async def test_what_waits_for_a_sink_that_is_gone_is_delivered_or_a_dead_letter(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder) as router:
        (folder / "hold").touch()
        router.publish("a", {"n": 1}, {"n": 2})
        await router.until(lambda: lines(router, "slow.txt") == ["open"])
        gone = config(shutdown={"drain": "1s"}, redis={"url": server.url})
        gone["sources"] = router.setup["sources"]
        await reload(router, gone)
        (folder / "hold").unlink()
        await router.until(lambda: lines(router, "slow.txt") == ["open", '{"n": 1}', '{"n": 2}', "close"])
        await reload(router, router.setup | {"shutdown": {"drain": "300ms"}})
        (folder / "fail").touch()
        router.publish("a", {"n": 3}, {"n": 4})
        await router.until(lambda: said(router, "delivery failed"))
        await reload(router, gone | {"shutdown": {"drain": "300ms"}})
        await router.until(lambda: len(router.letters()) == 2)
        found = {(one["reason"], one["sink"], json.loads(one["payload"])["n"]) for one in router.letters()}
        assert found == {("orphaned", "slow", 3), ("orphaned", "slow", 4)}
        router.publish("a", {"n": 5})
        await router.until(lambda: router.count() == 1)
        await router.stop()
        assert router.closing()["dropped"] == {}


async def test_a_sink_that_comes_back_in_time_goes_on_with_what_waits(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder) as router:
        (folder / "fail").touch()
        router.publish("a", *({"n": number} for number in range(10)))
        await router.until(lambda: said(router, "delivery failed"))
        gone = {**CONFIG, "redis": {"url": server.url}}
        await reload(router, gone)
        await reload(router, router.setup)
        (folder / "fail").unlink()
        router.publish("a", {"n": 10})
        await router.until(lambda: sum(numbers(router).values()) == 11)
        assert numbers(router) == dict.fromkeys(range(11), 1)
        assert router.letters() == []


@pytest.mark.parametrize(("before", "after"), [("memory", "redis"), ("redis", "memory")])
async def test_a_queue_that_moves(server, tmp_path, before, after):
    folder, books = tmp_path / "r", []

    def accepted(number):
        """Whether the sink has accepted so many deliveries. Its books balance whenever they are asked for."""
        with urllib.request.urlopen(f"http://{router.setup['admin']['listen']}/api/status", timeout=PATIENCE) as answer:
            status = json.load(answer)
        books.append(status["books"]["sinks"]["slow"])
        assert status["balanced"], (books[-1], status["books"]["process"])
        return books[-1]["accepted"] == number

    admin = {"listen": f"127.0.0.1:{free_port()}"}
    async with slow_router(server, folder, queue=before, keys={"admin": admin}) as router:
        router.publish("a", {"n": 0})
        await router.until(lambda: sum(numbers(router).values()) == 1)
        (folder / "hold").touch()
        router.publish("a", *({"n": number} for number in range(1, 20)))
        await router.until(lambda: accepted(20))
        sink = {**router.setup["sinks"]["slow"], "queue": after}
        await reload(router, {**router.setup, "sinks": {"slow": sink}})
        router.publish("a", *({"n": number} for number in range(20, 25)))
        await router.until(lambda: accepted(5))  # the old worker still holds the delivery of 1
        (folder / "hold").unlink()
        kept = range(25) if after == "redis" else [0, 1, *range(20, 25)]
        await router.until(
            lambda: accepted(23 if after == "redis" else 5) and sum(numbers(router).values()) >= len(kept)
        )
        if after == "memory":
            await router.until(
                lambda: said(
                    router, "the queue is in memory now: the deliveries left in Redis wait until an operator moves them"
                )
            )
            assert server.do("XLEN", "{event-router}:queue:slow") == 18
        await router.stop()
        assert numbers(router) == dict.fromkeys(kept, 1)


async def test_keys_of_a_sink_keep_their_order(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder, order_by="payload.user", concurrency=4, queue="redis") as router:
        (folder / "fail").touch()
        setup = router.setup["sinks"]["slow"]
        router.publish("a", *({"n": number, "user": number % 3} for number in range(60)))
        await router.until(lambda: said(router, "delivery failed"))
        for timeout in ("8s", "9s"):
            await reload(router, {**router.setup, "sinks": {"slow": {**setup, "timeout": timeout}}})
        (folder / "fail").unlink()
        await router.until(lambda: sum(numbers(router).values()) == 60)
        order = [json.loads(line)["n"] for line in lines(router, "slow.txt") if line.startswith("{")]
        for user in range(3):
            assert [n for n in order if n % 3 == user] == list(range(user, 60, 3)), router.process.err


async def test_a_route_with_options_of_its_own_that_is_gone_leaves_orphans(server, tmp_path):
    folder = tmp_path / "r"
    async with slow_router(server, folder) as router:
        routes = [
            *router.setup["routes"],
            {"id": "special", "channels": ["s"], "sinks": [{"sink": "slow", "text": "special"}]},
        ]
        sources = {"web": {"type": "pubsub", "channels": ["a", "s"]}}
        await reload(router, {**router.setup, "sources": sources, "routes": routes[::-1]})
        (folder / "hold").touch()
        router.publish("a", {"n": 0})
        await router.until(lambda: lines(router, "slow.txt") == ["open"])
        router.publish("s", {"n": 1})
        await asyncio.to_thread(router.process.notify.wait, "READY=1")
        await router.until(lambda: "2 received" in status(router))
        await reload(router, {**router.setup, "sources": sources})
        (folder / "hold").unlink()
        await router.until(lambda: len(router.letters()) == 1)
        [letter] = router.letters()
        assert (letter["reason"], letter["route"]) == ("orphaned", "special")
        assert sorted(numbers(router)) == [0, 1], "the other route's delivery of the same event is made"


def status(router):
    return next(one for one in reversed(router.process.notify.messages) if "STATUS=" in one)


# Under load.


async def test_twenty_reloads_under_load_lose_and_repeat_nothing(server, tmp_path):
    events, over = 3000, threading.Event()
    sources = {
        "web": {"type": "pubsub", "channels": ["a"]},
        "s": {"type": "stream", "streams": ["s"], "start": "oldest"},
        "jobs": {"type": "list", "keys": ["jobs"]},
    }
    sinks = {"audit": LOG, "durable": {"type": "log", "path": "durable.jsonl", "queue": "redis"}}
    setup = config(sources=sources, sinks=sinks, routes=[{"id": "all", "sinks": ["audit", "durable"]}])

    def load():
        with server.client() as client:
            for number in range(events):
                payload = json.dumps({"n": number})
                pipeline = client.pipeline(transaction=False)
                pipeline.publish("a", payload)
                pipeline.xadd("s", {"payload": payload})
                pipeline.lpush("jobs", payload)
                pipeline.execute()
                if over.wait(0.001):
                    return

    async with daemon(server, tmp_path, setup) as router:
        loading = asyncio.create_task(asyncio.to_thread(load))
        try:
            for turn in range(20):
                other = json.loads(json.dumps(setup))
                other["sources"]["web"]["channels"] = ["a", f"b{turn}"]
                other["sources"]["s"]["max_in_flight"] = 100 + turn
                other["sources"]["jobs"]["max_in_flight"] = 50 + turn
                other["sinks"]["audit"]["timeout"] = f"{5 + turn}s"
                other["sinks"]["durable"]["timeout"] = f"{5 + turn}s"
                if turn % 2:
                    other["routes"][0]["sinks"].append("nobody")
                status = await reload(router, other)
                assert ("was refused" in status) == bool(turn % 2)
            await loading
        finally:
            over.set()
        await router.until(lambda: min(router.count(), router.count("durable.jsonl")) >= 3 * events)
        await router.until(lambda: not pending(server, "s", "event-router"))
        assert await router.stop() == 0
        for name in ("audit.jsonl", "durable.jsonl"):
            got = Counter((line["source"], line["payload"]["n"]) for line in router.lines(name))
            repeated = {event: times for event, times in got.items() if times > 1}
            assert not repeated, f"{name}: {repeated}\n{router.process.err}"
            assert got.keys() == {(source, number) for source in sources for number in range(events)}
        closing = router.closing()
        assert (closing["gaps"], closing["dropped"], closing["dead_lettered"]) == (0, {}, {})


async def test_one_that_is_asked_for_while_the_router_starts_waits_until_it_is_up(server, tmp_path):
    async with Proxy(server.port) as proxy:
        proxy.refuse = True
        folder = tmp_path / "r"
        folder.mkdir()
        setup = {"version": 1, "redis": {"url": proxy.url}, **CONFIG}
        (folder / "config.yaml").write_text(json.dumps(setup))
        with Process("run", "-c", folder / "config.yaml", cwd=folder, notify=True) as process:
            await asyncio.to_thread(process.wait_for, "the admin side listens")
            asking = asyncio.create_task(asyncio.to_thread(run, "reload", "--json", cwd=folder))
            process.signal(signal.SIGHUP)
            await asyncio.to_thread(process.notify.wait_part, "waiting for Redis")
            assert not asking.done()
            proxy.refuse = False
            await asyncio.to_thread(process.wait_ready)
            told = json.loads((await asking).out)
            assert (told["ok"], told["changed"]["sources"]["kept"]) == (True, 1)
            assert await asyncio.to_thread(process.stop) == 0


# A file that changes.


async def test_with_watch_a_changed_file_is_enough(server, tmp_path):
    (tmp_path / "plugins").mkdir()
    async with daemon(server, tmp_path, CONFIG, arguments=("--watch",)) as router:
        write(router, config(sinks={"audit": {**LOG, "path": "other.jsonl"}}))
        await router.until(lambda: said(router, TAKEN))
        router.publish("a", {"n": 1})
        await router.until(lambda: router.count("other.jsonl") == 1)
        write(router, "version: 1\n")
        await router.until(lambda: said(router, REFUSED))
        write(router, config(sinks={"audit": {**LOG, "template": {"file": "t.txt"}}}))
        await router.until(lambda: "t.txt" in router.process.err)
        (tmp_path / "t.txt").write_text("n {{ payload.n }}")
        await router.until(lambda: len(said(router, TAKEN)) == 2)
        router.publish("a", {"n": 2})
        await router.until(lambda: lines(router, "audit.jsonl") == ["n 2"])
        (tmp_path / "plugins" / "slow.py").write_text(PLUGIN)
        await router.until(lambda: len(said(router, TAKEN)) == 3)
        assert lines(router, "audit.jsonl") == ["n 2"]


async def test_with_watch_a_changed_module_of_a_folder_is_enough(server, tmp_path):
    plugin = put_plugin(tmp_path, modules=True)
    setup = config(sinks={"audit": {"type": "slow", "file": "slow.txt"}})
    async with daemon(server, tmp_path, setup, arguments=("--watch",)) as router:
        plugin.write_text(
            PLUGIN.replace("{options.text or event.raw.decode()}", "{word()}").replace(
                "import asyncio", "from .words import word\nimport asyncio"
            )
        )
        await router.until(lambda: said(router, REFUSED))
        assert "there is neither words.py nor words/__init__.py in" in router.process.err
        words = plugin.with_name("words.py")
        words.write_text("def word():\n    return 'one'\n")
        await router.until(lambda: len(said(router, TAKEN)) == 1)
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "slow.txt")[-1:] == ["one"])
        words.write_text("def word():\n    return 'two'\n")
        await router.until(lambda: len(said(router, TAKEN)) == 2)
        router.publish("a", {"n": 1})
        await router.until(lambda: lines(router, "slow.txt")[-1:] == ["two"])


async def test_a_reload_while_redis_is_away_does_what_needs_no_redis(server, tmp_path):
    async with Proxy(server.port) as proxy:
        setup = config(redis={"url": proxy.url})
        async with daemon(server, tmp_path, setup) as router:
            proxy.refuse = True
            proxy.cut()
            await router.until(
                lambda: said(
                    router, "the subscription is lost; events that are published before it is restored are missed"
                )
            )
            await reload(router, {**setup, "sinks": {"audit": {**LOG, "path": "other.jsonl"}}})
            refused = {"web": {"type": "pubsub", "channels": ["a", "b"]}}
            assert "source web is not connected" in await reload(router, {**setup, "sources": refused})
            proxy.refuse = False
            await router.until(lambda: said(router, "the subscription is restored"))
            router.publish("a", {"n": 1})
            await router.until(lambda: router.count("other.jsonl") == 1)
