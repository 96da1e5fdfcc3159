"""The scenarios: each takes a scale, breaks something while events flow, and returns what came of them.

`Scale` says how many events and how many faults: the small one is a part of the test suite, the full one is `make faults`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness import Recorder, Routers, Verdict, until, verdict
from tests.support.process import Process
from tests.support.redis import RedisServer

STREAM = "billing"
SINKS = ["first", "second", "third"]


@dataclass(frozen=True)
class Scale:
    """How much: events, faults among them, and seconds that an outage lasts."""

    events: int
    faults: int
    outage: float


SMALL = Scale(events=3_000, faults=3, outage=2.0)
FULL = Scale(events=100_000, faults=10, outage=60.0)


def stream_config(queue: str = "redis", **keys: Any) -> dict[str, Any]:
    """A stream to three recording sinks, retried quickly."""
    sink = {"type": "record", "retry": {"initial": "50ms", "max_delay": "1s"}, "timeout": "5s", "queue": queue}
    return {
        "sources": {"billing": {"type": "stream", "streams": [STREAM], "start": "oldest", "claim": {"idle": "15s"}}},
        "sinks": {name: dict(sink) for name in SINKS},
        "routes": [{"id": "all", "sinks": SINKS}],
        **keys,
    }


def add(server: RedisServer, numbers: range) -> None:
    """Append numbered events to the stream."""
    with server.client() as client:
        for start in range(numbers.start, numbers.stop, 500):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(start + 500, numbers.stop)):
                pipeline.xadd(STREAM, {"payload": json.dumps({"n": number})})
            pipeline.execute()


def all_delivered(recorder: Recorder, events: int) -> Callable[[], bool]:
    return lambda: all(recorder.count(sink) == events for sink in SINKS)


def killed(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """The daemon is killed with -9 again and again while a stream flows."""
    routers = Routers(folder, server, recorder, stream_config())
    try:
        daemon = routers.start()
        part = scale.events // (scale.faults + 1)
        for fault in range(scale.faults):
            add(server, range(fault * part, (fault + 1) * part))
            seen = recorder.count("first")
            until(lambda seen=seen: recorder.count("first") > seen, "some deliveries before the kill")
            daemon.signal(9)
            daemon.wait()
            daemon = routers.start()
        add(server, range(scale.faults * part, scale.events))
        until(all_delivered(recorder, scale.events), "every event at every sink", 120)
        daemon.stop(60)
        return verdict(recorder, scale.events, SINKS)
    finally:
        routers.stop_all()


def stopped(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """The daemon is stopped with SIGTERM again and again under load: nothing lost, nothing twice."""
    routers = Routers(folder, server, recorder, stream_config())
    try:
        part = scale.events // (scale.faults + 1)
        daemon = routers.start()
        for fault in range(scale.faults):
            add(server, range(fault * part, (fault + 1) * part))
            assert daemon.stop(60) == 0, daemon.err
            daemon = routers.start()
        add(server, range(scale.faults * part, scale.events))
        until(all_delivered(recorder, scale.events), "every event at every sink", 120)
        assert daemon.stop(60) == 0
        return verdict(recorder, scale.events, SINKS)
    finally:
        routers.stop_all()


def refused(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """One sink's credential is refused for a while: nothing of it becomes a dead letter, everything arrives."""
    end = time.monotonic() + scale.outage
    recorder.answer = lambda sink, _number: "refused" if sink == "second" and time.monotonic() < end else "ok"
    routers = Routers(folder, server, recorder, stream_config())
    events = min(scale.events, 5_000)
    try:
        daemon = routers.start()
        add(server, range(events))
        until(lambda: recorder.count("first") > 0, "the good sinks go on")
        until(all_delivered(recorder, events), "every event at every sink", scale.outage + 180)
        daemon.stop(60)
        found = verdict(recorder, events, SINKS)
        assert server.do("EXISTS", "{event-router}:dead") == 0
        return found
    finally:
        routers.stop_all()


def destroyed(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """The group is destroyed: it heals, loses nothing, and does not send the history again."""
    routers = Routers(folder, server, recorder, stream_config())
    events = min(scale.events, 5_000)
    try:
        daemon = routers.start()
        add(server, range(events // 2))
        until(all_delivered(recorder, events // 2), "the first half")
        server.do("XGROUP", "DESTROY", STREAM, "event-router")
        add(server, range(events // 2, events))
        until(all_delivered(recorder, events), "the second half")
        daemon.stop(60)
        return verdict(recorder, events, SINKS)
    finally:
        routers.stop_all()


def flushed(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """FLUSHALL in mid-life: what is added after it is delivered."""
    routers = Routers(folder, server, recorder, stream_config())
    events = min(scale.events, 5_000)
    try:
        daemon = routers.start()
        add(server, range(events // 2))
        until(all_delivered(recorder, events // 2), "the first half")
        server.do("FLUSHALL")
        add(server, range(events // 2, events))
        until(all_delivered(recorder, events), "the second half")
        daemon.stop(60)
        return verdict(recorder, events, SINKS)
    finally:
        routers.stop_all()


def taken_over(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """One of two routers is killed with work in hand: the other delivers it within `claim.idle`."""
    routers = Routers(folder, server, recorder, stream_config("memory"))
    events = min(scale.events, 2_000)
    try:
        first = routers.start("one")
        second = routers.start("two")
        add(server, range(events))
        until(lambda: recorder.count("first") > 0, "some deliveries")
        first.signal(9)
        first.wait()
        until(all_delivered(recorder, events), "the other's work", 40)
        second.stop(60)
        return verdict(recorder, events, SINKS)
    finally:
        routers.stop_all()


def poisoned(folder: Path, server: RedisServer, recorder: Recorder, scale: Scale) -> Verdict:
    """One event ends the process whenever it is delivered: it alone becomes a dead letter."""
    routers = Routers(folder, server, recorder, stream_config("memory"))
    events = min(scale.events, 1_000)
    try:
        add(server, range(events // 2))
        server.do("XADD", STREAM, "*", "payload", '{"n": "poison"}')
        add(server, range(events // 2, events))
        for _ in range(60):
            daemon = routers.start(wait=False)
            end = time.monotonic() + 60
            while daemon.running and time.monotonic() < end and not _done(server, recorder, events):
                time.sleep(0.02)
            if daemon.running:
                break
        until(
            lambda: _done(server, recorder, events),
            "the poison alone a dead letter",
            told=lambda: _told(server, recorder, daemon),
        )
        daemon.stop(60)
        letters = server.do("XRANGE", "{event-router}:dead", "-", "+")
        assert len(letters) == 1, letters
        return verdict(recorder, events, SINKS)
    finally:
        routers.stop_all()


def _told(server: RedisServer, recorder: Recorder, daemon: Process) -> str:
    """What there is to see when a scenario does not end."""
    counts = {sink: recorder.count(sink) for sink in SINKS}
    pending = server.do("XPENDING", STREAM, "event-router", "-", "+", 20)
    letters = server.do("XRANGE", "{event-router}:dead", "-", "+")
    return f"delivered {counts}, pending {pending}, letters {letters}, the daemon said:\n{daemon.err}"


def _done(server: RedisServer, recorder: Recorder, events: int) -> bool:
    return all_delivered(recorder, events)() and server.do("XLEN", "{event-router}:dead") == 1
