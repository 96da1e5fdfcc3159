"""The cost of fan-out: pub/sub → schema → one route → ten log files, 90-byte payloads.

The base is a simple program for this job, without configuration, queues and books. It reads the published messages,
and decodes and validates each payload once. Then it encodes and writes a line for each of the ten files. A missing
line, or a file that differs from the first file, ends the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    CHANNEL,
    SCHEMA,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    log_sink,
    peak_mib,
    publishes,
    router,
    running,
    send,
    server,
    split,
    wait_for,
)
from benchmarks.peers import program
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

SIMPLE, ROUTER = "simple program", "event-router"
TURNS = 10
WARM_UP = 1_000
MOST = 1.0
"""The goal: the maximum ratio of the router's CPU time to the CPU time of the simple program."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=100_000, help="events of one measurement")
    parser.add_argument("--sinks", type=int, default=10, help="log sinks that get each event")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the simple program and the router."""
    return [
        Case(
            name,
            [Figure(name, "µs CPU/event", base=base, goal=MOST if base else None)],
            partial(measure, name, options.events, options.sinks, begin),
        )
        for name, base, begin in ((SIMPLE, None, _simple), (ROUTER, SIMPLE, _router))
    ]


Begin = Callable[[Path, Server, list[Path]], AbstractContextManager[int]]
"""A function that starts a contender, given the command, the server and the files. It yields the process id."""


@contextlib.contextmanager
def _simple(_command: Path, at: Server, files: list[Path]) -> Iterator[int]:
    folder = files[0].parent
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    with running([*program("fan-out", at, folder), str(len(files))]) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1])
        yield process.pid


@contextlib.contextmanager
def _router(command: Path, at: Server, files: list[Path]) -> Iterator[int]:
    folder = files[0].parent
    sinks = {f"audit-{number}": {**log_sink(folder), "path": str(file)} for number, file in enumerate(files)}
    routes = [{"id": "everything", "sinks": list(sinks)}]
    with router(command, configuration(at, folder, sinks=sinks, routes=routes), folder) as pid:
        yield pid


def measure(name: str, events: int, sinks: int, begin: Begin, command: Path) -> Turns:
    """Measure the CPU time of an event with all its lines. Each turn has a tenth of the events."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"out{number}" for number in range(sinks)]
        with begin(command, at, files) as pid:
            several = [Lines(file, pid) for file in files]
            send(at, publishes([CHANNEL], WARM_UP))
            for lines in several:
                lines.need(WARM_UP)
            messages = publishes([CHANNEL], events)
            yield
            before, came = cpu_seconds(pid), WARM_UP
            for part in split(messages, TURNS):
                send(at, part)
                came += len(part)
                for lines in several:
                    lines.need(came, every=0.005)
                yield
            used, peak = cpu_seconds(pid) - before, peak_mib(pid)
        _compare(files)
        return {name: Reading(used / events * 1e6, {"peak MiB": peak})}


def _compare(files: list[Path]) -> None:
    """Raise `SystemExit` if the files do not contain the same lines."""
    expected = files[0].read_bytes()
    wrong = [file.name for file in files if file.read_bytes() != expected]
    if wrong:
        raise SystemExit(f"{', '.join(wrong)} differ from {files[0].name}")


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → ten log files", 5, arguments, cases, base="simple program"
)
"""The figures of this benchmark."""
