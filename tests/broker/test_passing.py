"""A server that says `not now` at the start is waited for, by every source and by what writes dead letters."""

import asyncio
import contextlib
import json

import pytest

from router.broker.dead_letters.dead_letter_writer import DeadLetterWriter
from router.broker.pubsub.pubsub_source import PubSubSource
from router.errors import UnavailableError
from tests.support.lists import list_source
from tests.support.process import run
from tests.support.redis import free_port
from tests.support.streams import Desk, source_of
from tests.support.waiting import PATIENCE

FAULTS = {
    "CLUSTERDOWN": ({"cluster-enabled": "yes"}, ("CLUSTER", "ADDSLOTSRANGE", 0, 16383)),
    "READONLY": ({"replicaof": "127.0.0.1 1"}, ("REPLICAOF", "NO", "ONE")),
    "MASTERDOWN": ({"replicaof": "127.0.0.1 1", "replica-serve-stale-data": "no"}, ("REPLICAOF", "NO", "ONE")),
    "NOREPLICAS": ({"min-replicas-to-write": "1"}, ("CONFIG", "SET", "min-replicas-to-write", 0)),
    "BUSY": ({"lua-time-limit": "10"}, ("SCRIPT", "KILL")),
}


def trouble(start_server, kind, fault):
    """A server with the fault, and what ends it."""
    options, cure = FAULTS[fault]
    if fault == "CLUSTERDOWN":  # else it is 10,000 above the server's port, which may be too high
        options = {**options, "cluster-port": str(free_port())}
    server = start_server(kind, options=options)
    if fault == "BUSY":
        with server.client(socket_timeout=0.1) as client, contextlib.suppress(Exception):
            client.eval("while true do end", 0)
    return server, lambda: server.do(*cure)


@pytest.fixture
async def make(clock):
    """Make a source of a kind; it is ended after the test."""
    made = []

    def one(which, url, **keys):
        options = {"receiver": Desk(), "clock": clock, **keys}
        if which == "stream":
            source = source_of(url, ["in"], Desk(), clock, start="new", **keys)
        elif which == "list":
            source = list_source(url, ["in"], Desk(), clock, **keys)
        else:
            source = PubSubSource("s", url, ["in"], [], **options)
        made.append(source)
        return source

    yield one
    for source in made:
        await source.stop()
        await source.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("which", ["stream", "list", "pubsub"])
async def test_a_source_waits_until_it_has_passed(start_server, make, kind, fault, which):
    server, heal = trouble(start_server, kind, fault)
    told = asyncio.Event()
    reasons = []

    def waiting(why):
        reasons.append(why)
        told.set()

    source = make(which, server.url, connect_timeout=PATIENCE, waiting=waiting)
    starting = asyncio.create_task(source.start())
    hearing = asyncio.create_task(told.wait())
    await asyncio.wait({starting, hearing}, return_when=asyncio.FIRST_COMPLETED)
    if which == "pubsub":  # SUBSCRIBE is answered whatever becomes of keys
        hearing.cancel()
    else:
        assert not starting.done()
    heal()
    await starting
    assert source.up


@pytest.mark.parametrize("fault", ["CLUSTERDOWN", "MASTERDOWN", "BUSY"])
@pytest.mark.parametrize("which", ["stream", "list"])
async def test_a_source_that_waited_in_vain_says_for_what(start_server, make, kind, fault, which):
    server, heal = trouble(start_server, kind, fault)
    try:
        with pytest.raises(UnavailableError) as caught:
            await make(which, server.url, connect_timeout=2.0).start()
        assert "tried for 2 s" in str(caught.value)
    finally:
        heal()


@pytest.mark.parametrize("fault", ["CLUSTERDOWN", "READONLY", "MASTERDOWN"])
async def test_dead_letters_wait_for_it(start_server, kind, clock, fault):
    server, heal = trouble(start_server, kind, fault)
    writer = DeadLetterWriter(server.url, clock=clock, connect_timeout=PATIENCE, longest_delay=0.2)
    starting = asyncio.create_task(writer.start())
    await asyncio.sleep(0)
    heal()
    await starting
    assert await writer.drain(PATIENCE) == 0


@pytest.mark.parametrize("source", [{"type": "stream", "streams": ["in"]}, {"type": "list", "keys": ["in"]}])
def test_the_daemon_ends_with_69_after_connect_timeout(start_server, tmp_path, source):
    server, _ = trouble(start_server, "valkey", "CLUSTERDOWN")
    config = {
        "version": 1,
        "redis": {"url": server.url, "connect_timeout": "2s"},
        "sources": {"s": source},
        "sinks": {"audit": {"type": "log", "path": "audit.jsonl"}},
        "routes": [{"id": "all", "sinks": ["audit"]}],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    done = run("run", "-c", tmp_path / "config.yaml", cwd=tmp_path)
    assert done.code == 69, done.err
    assert "CLUSTERDOWN" in done.err
