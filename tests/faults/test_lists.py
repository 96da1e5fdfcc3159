"""A list to Redis queues while the daemon is killed under load: each item is queued exactly once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from tests.faults.harness import Recorder, Routers, recording, until, verdict

from tests.support.redis import RedisServer

EVENTS = 4_000
KILLS = 5
IN_HAND = 8
"""Calls that the recording sink makes at a time."""


@pytest.fixture
def server(start_server):
    return start_server("valkey", options={"appendonly": "yes", "appendfsync": "everysec"})


def config(**sinks: str) -> dict[str, Any]:
    """A list to recording sinks, each with this kind of queue."""
    sink = {"type": "record", "retry": {"initial": "50ms", "max_delay": "1s"}, "timeout": "5s"}
    return {
        "sources": {"jobs": {"type": "list", "keys": ["jobs"], "max_deliveries": 20}},
        "sinks": {name: {**sink, "queue": queue} for name, queue in sinks.items()},
        "routes": [{"id": "all", "sinks": list(sinks)}],
    }


def push(server: RedisServer, numbers: range) -> None:
    with server.client() as client:
        for start in range(numbers.start, numbers.stop, 500):
            chunk = range(start, min(start + 500, numbers.stop))
            client.lpush("jobs", *[json.dumps({"n": number}) for number in chunk])


def accepted(server: RedisServer, sink: str) -> int:
    """How many deliveries were ever appended to a sink's Redis queue."""
    return int(server.do("HGET", f"{{event-router}}:books:{sink}", "accepted") or 0)


def left(server: RedisServer) -> list[bytes]:
    """What there still is of the list and of what goes with it."""
    with server.client() as client:
        return [key for key in client.keys("*jobs*") if not key.startswith(b"{event-router}:")]


def killed_under_load(folder, server: RedisServer, recorder: Recorder, routers: Routers, *sinks: str) -> None:
    """Kill the daemon with -9 again and again while items flow, then let it finish and end in order."""
    daemon = routers.start()
    part = EVENTS // (KILLS + 1)
    for kill in range(KILLS):
        push(server, range(kill * part, (kill + 1) * part))
        seen = recorder.count(sinks[-1])
        until(lambda seen=seen: recorder.count(sinks[-1]) > seen + 20, "some deliveries before the kill")
        daemon.signal(9)
        daemon.wait()
        daemon = routers.start()
    push(server, range(KILLS * part, EVENTS))
    until(
        lambda: all(recorder.count(sink) == EVENTS for sink in sinks),
        "every event at every sink",
        120,
        lambda: f"{[recorder.count(sink) for sink in sinks]}, {left(server)}, {daemon.err}",
    )
    assert daemon.stop(60) == 0


@pytest.mark.timeout(240)
def test_kills_repeat_only_what_the_sink_had_in_hand(server, tmp_path):
    with recording() as recorder:
        routers = Routers(tmp_path / "router", server, recorder, config(kept="redis"))
        try:
            killed_under_load(tmp_path, server, recorder, routers, "kept")
        finally:
            routers.stop_all()
        found = verdict(recorder, EVENTS, ["kept"])
        assert found.lost == {"kept": 0}
        assert accepted(server, "kept") == EVENTS, "each item was queued once, whatever the moment of a kill"
        assert found.duplicated["kept"] <= KILLS * 4 * IN_HAND  # in hand, or settled and not yet told to Redis
        assert left(server) == []


@pytest.mark.timeout(240)
def test_kills_queue_nothing_twice_while_a_sink_in_memory_has_it_in_hand_too(server, tmp_path):
    with recording() as recorder:
        routers = Routers(tmp_path / "router", server, recorder, config(kept="redis", quick="memory"))
        try:
            killed_under_load(tmp_path, server, recorder, routers, "kept", "quick")
        finally:
            routers.stop_all()
        found = verdict(recorder, EVENTS, ["kept", "quick"])
        assert found.lost == {"kept": 0, "quick": 0}
        assert accepted(server, "kept") == EVENTS
        assert found.duplicated["quick"] <= KILLS * 100  # max_in_flight
        assert left(server) == []


@pytest.mark.timeout(240)
def test_sigterm_repeats_nothing(server, tmp_path):
    with recording() as recorder:
        routers = Routers(tmp_path / "router", server, recorder, config(kept="redis", quick="memory"))
        try:
            daemon = routers.start()
            part = EVENTS // 4
            for stop in range(3):
                push(server, range(stop * part, (stop + 1) * part))
                seen = recorder.count("quick")
                until(lambda seen=seen: recorder.count("quick") > seen, "some deliveries before the stop")
                assert daemon.stop(60) == 0
                daemon = routers.start()
            push(server, range(3 * part, EVENTS))
            until(lambda: all(recorder.count(sink) == EVENTS for sink in ("kept", "quick")), "every event", 120)
            assert daemon.stop(60) == 0
        finally:
            routers.stop_all()
        assert Counter(recorder.got["kept"].values()) == Counter(recorder.got["quick"].values()) == {1: EVENTS}
        assert accepted(server, "kept") == EVENTS
        assert left(server) == []
