"""The cost of a failed attempt: pub/sub → route → a sink that fails the first attempt of every delivery, and its retry.

The sink is a plugin that writes only one byte when a delivery succeeds, so that the router uses nearly all CPU time.
The base is the same sink without failures. The difference is the cost of a failure: the failed attempt, the wait, and
the second attempt. The circuit breaker never opens.
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
    NEVER_FULL,
    Lines,
    configuration,
    cpu_seconds,
    peak_mib,
    publishes,
    router,
    send,
    server,
    split,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

QUEUES = ("memory", "redis")
UNIT = "µs CPU/delivery"
TURNS = 4
WARM_UP = 200

PLUGIN = '''"""A sink that fails the first attempts of every delivery."""

import os

from router.api import SinkOptions, TransientError, hookimpl


class FlakyOptions(SinkOptions):
    path: str
    failing: int


class Flaky:
    def __init__(self, options):
        self._file = os.open(options.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._failing = options.failing

    async def deliver(self, event, options):
        if event.attempt <= self._failing:
            raise TransientError("the service is busy")
        os.write(self._file, b"\\n")


@hookimpl
def register_sinks(register):
    register("flaky", Flaky, options=FlakyOptions)
'''


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=10_000, help="deliveries of one measurement")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return cases without and with a failed attempt, each for both types of queue."""
    chosen = []
    for queue in QUEUES:
        base = f"{queue} queue, no failure"
        for title, failing in ((base, 0), (f"{queue} queue, the first attempt fails", 1)):
            figure = Figure(title, UNIT, base=base if failing else None)
            chosen.append(Case(title, [figure], partial(measure, title, queue, failing, options.events)))
    return chosen


def sink(folder: Path, queue: str, failing: int) -> dict[str, Any]:
    """Return the configuration of the sink."""
    return {
        "type": "flaky",
        "path": str(folder / "out"),
        "failing": failing,
        "queue": {"type": queue, **NEVER_FULL},
        "concurrency": 32,
        "retry": {"initial": "100ms", "max_delay": "100ms"},
        "breaker": {"failures": 1_000_000, "reset": "1s"},
    }


def measure(title: str, queue: str, failing: int, events: int, command: Path) -> Turns:
    """Measure the cost of a delivery, including its failed attempt."""
    messages: Sequence[bytes] = publishes([CHANNEL], events)
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "plugins").mkdir(mode=0o755)
        (folder / "plugins" / "flaky.py").write_text(PLUGIN)
        config = configuration(at, folder, sinks={"audit": sink(folder, queue, failing)})
        with router(command, config, folder) as pid:
            lines = Lines(folder / "out", pid)
            send(at, publishes([CHANNEL], WARM_UP))
            lines.need(WARM_UP)
            came, used = WARM_UP, 0.0
            for part in split(messages, TURNS):
                yield
                before = cpu_seconds(pid)
                send(at, part)
                came, _ = lines.wait(came + len(part), every=0.005)
                used += cpu_seconds(pid) - before
            got = came - WARM_UP
            beside = {"lost": events - got, "peak MiB": peak_mib(pid)}
            return {title: Reading(used / max(got, 1) * 1e6, beside)}


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → a sink that fails first", 5, arguments, cases, base="no failure"
)
