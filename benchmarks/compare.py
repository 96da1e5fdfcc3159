"""The CPU time of two versions of the router, with events from pub/sub, from a stream, and through a Redis queue.

    make bench ARGS='compare --other ../before/.venv/bin/event-router'

The two routers run at the same time. They get the events in turn, a twentieth in each turn (A B A B …), so that other
work of the machine affects both routers equally. The result is the ratio of the two CPU times.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    log_sink,
    payload,
    peak_mib,
    publishes,
    router,
    send,
    server,
    split,
    wire,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

JOBS = ("pubsub", "stream", "durable")
TURNS = 20
DEARER = 1.03
"""The goal: the maximum ratio of the CPU time of a job to the CPU time with the other command."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="measure only these jobs")
    parser.add_argument("--events", type=int, default=400_000, help="events of a run")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return a case for each job."""
    return [
        Case(
            job,
            [Figure(job, "µs CPU/event", goal=DEARER, goal_of="other")],
            partial(measure, job, options.events),
        )
        for job in options.jobs
    ]


def measure(job: str, events: int, command: Path) -> Turns:
    """Measure the router's CPU time for an event of this job, with a twentieth of the events in each turn.

    The CPU time between turns is included, because the router may finish work of a turn after the turn.
    """
    messages = commands(job, events)
    warm_up = messages[: max(events // 100, 100)]
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with router(command, configuration(at, folder, **sections(job, at, folder)), folder) as pid:
            lines = Lines(folder / "out", pid)
            send(at, warm_up)
            lines.need(len(warm_up))
            yield
            before, came = cpu_seconds(pid), len(warm_up)
            for part in split(messages, TURNS):
                send(at, part)
                came, _ = lines.wait(came + len(part), every=0.005)
                yield
            used, got = cpu_seconds(pid) - before, came - len(warm_up)
            beside = {"lost": events - got, "peak MiB": peak_mib(pid)}
            return {job: Reading(used / max(got, 1) * 1e6, beside)}


def commands(job: str, events: int) -> Sequence[bytes]:
    """Return the commands that publish or add this number of events."""
    if job == "stream":
        return [wire(b"XADD", CHANNEL.encode(), b"*", b"payload", payload(number)) for number in range(events)]
    return publishes([CHANNEL], events)


def sections(job: str, _at: Server, folder: Path) -> dict[str, Any]:
    """Return the sections of the configuration that are special for a job.

    The job `durable` is pub/sub with a queue in Redis.
    """
    if job == "stream":
        return {"sources": {"bench": {"type": "stream", "streams": [CHANNEL], "start": "oldest"}}}
    return {"sinks": {"audit": log_sink(folder, "redis" if job == "durable" else "memory")}}


BENCHMARK = Benchmark(str(__doc__), "source → schema → route → log file", 7, arguments, cases)
