"""Whether a change made the router dearer: two commands in turn, on pub/sub, on a stream, and through a Redis queue.

    make bench ARGS='compare --other ../before/.venv/bin/event-router'

Both of a pair run at the same time and get a twentieth of the events in turn (A B A B …), so that they share whatever else
the machine does; what counts is the ratio of each pair.
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
"""The goal: the most that a job may cost, as a ratio to the other command."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="these alone")
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
    """Measure the CPU time that the router takes for an event of this job, a twentieth of the events in each turn.

    The time between turns counts too: there the router ends what it had begun, and is at rest.
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
    """Return the commands that bring in so many events."""
    if job == "stream":
        return [wire(b"XADD", CHANNEL.encode(), b"*", b"payload", payload(number)) for number in range(events)]
    return publishes([CHANNEL], events)


def sections(job: str, _at: Server, folder: Path) -> dict[str, Any]:
    """Return what the configuration of a job has of its own: `durable` is pub/sub through a queue in Redis."""
    if job == "stream":
        return {"sources": {"bench": {"type": "stream", "streams": [CHANNEL], "start": "oldest"}}}
    return {"sinks": {"audit": log_sink(folder, "redis" if job == "durable" else "memory")}}


BENCHMARK = Benchmark(str(__doc__), "source → schema → route → log file", 7, arguments, cases)
