"""The cost of an idle router: the commands that it sends to its server, and its CPU time.

Two routers are measured: a router with 20 sinks that have queues in Redis, and a router with a source of each type.
Before the measurement, each router delivers one event. So all streams and keys exist, and all queues are empty.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    Lines,
    Server,
    configuration,
    counted,
    cpu_seconds,
    log_sink,
    publishes,
    router,
    send,
    server,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

SINKS = "20 sinks with Redis queues"
SOURCES = "a pub/sub, a stream and a list source"
SENT, ALL, CPU = "commands sent", "those in scripts too", "CPU"
GOALS = {SENT: 25.0, ALL: 70.0, CPU: 0.4}
"""The limits for 20 sinks: commands per second, and percent of a core."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--settle", type=float, default=5.0, help="seconds from the last event to the beginning of the measurement"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how many seconds are measured")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the two routers."""
    goals: Mapping[str, float]
    chosen = []
    for name, sections, goals in ((SINKS, of_sinks, GOALS), (SOURCES, of_sources, {})):
        figures = [
            Figure(f"{name}: {what}", "% of a core" if what == CPU else "per s", goal=goals.get(what), goal_of="value")
            for what in (SENT, ALL, CPU)
        ]
        chosen.append(Case(name, figures, partial(measure, name, sections, options.settle, options.seconds)))
    return chosen


def of_sinks(folder: Path) -> dict[str, Any]:
    """Return the sections with 20 sinks."""
    names = [f"sink-{number}" for number in range(20)]
    return {
        "sinks": {name: log_sink(folder, "redis") for name in names},
        "routes": [{"id": "everything", "sinks": names}],
    }


def of_sources(_folder: Path) -> dict[str, Any]:
    """Return the sections with three sources."""
    return {
        "sources": {
            "published": {"type": "pubsub", "channels": [CHANNEL]},
            "added": {"type": "stream", "streams": [f"{CHANNEL}-stream"]},
            "pushed": {"type": "list", "keys": [f"{CHANNEL}-list"]},
        }
    }


def measure(
    name: str, sections: Callable[[Path], dict[str, Any]], settle: float, seconds: float, command: Path
) -> Turns:
    """Deliver one event, wait a moment, and then count commands and CPU time for a while."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = sections(folder)
        with router(command, configuration(at, folder, **own), folder) as pid:
            send(at, publishes([CHANNEL], 1))
            Lines(folder / "out", pid).need(len(own.get("sinks", [CHANNEL])))
            time.sleep(settle)
            yield
            return _count(name, at, pid, seconds)


def _count(name: str, at: Server, pid: int, seconds: float) -> dict[str, Reading]:
    with counted(at) as commands:
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        used, took = cpu_seconds(pid) - before, time.monotonic() - began
    sent = {each: calls / took for each, calls in commands.sent.most_common()}
    every = {each: calls / took for each, calls in (commands.sent + commands.inside).most_common()}
    return {
        f"{name}: {SENT}": Reading(sum(sent.values()), {"ECHO": sent.get("echo", 0.0)}, sent),
        f"{name}: {ALL}": Reading(sum(every.values()), detail=every),
        f"{name}: {CPU}": Reading(used / took * 100),
    }


BENCHMARK = Benchmark(str(__doc__), "A router at rest", 1, arguments, cases)
