"""The number of events lost in a burst: pub/sub → schema → route → log file.

The events come faster than any program can process them. The server has its default limits: it disconnects a
subscriber that is 32 MiB behind. Several processes publish at once, as fast as the server accepts events, without
waiting for replies. The router is compared with a simple hand-written loop of redis-py and asyncio. The loop validates
each event before it reads the next event.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks.harness import (
    CHANNEL,
    HERE,
    SCHEMA,
    Lines,
    Server,
    configuration,
    peak_mib,
    publishes,
    router,
    running,
    send,
    server,
    status,
    wait_for,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

ROUTER, LOOP = "event-router", "hand-written loop"
PROGRAM = "asyncio"
"""The name of the loop in `contenders.py`."""
LOST, CUT, AHEAD, PEAK, AFTERWARDS = "lost", "disconnected", "peak read-ahead", "peak memory", "memory afterwards"
WARM_UP = 1_000
MIB = 1024**2


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the burst")
    parser.add_argument("--publishers", type=int, default=2, help="how many processes publish at once")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the loop and the router."""
    measured = options.events, options.publishers
    return [
        Case(
            LOOP,
            [Figure(f"{LOOP}: {LOST}", "events"), Figure(f"{LOOP}: {CUT}", "times"), Figure(f"{LOOP}: {PEAK}", "MiB")],
            partial(measure_loop, *measured),
        ),
        Case(
            ROUTER,
            [
                Figure(LOST, "events", goal=0, goal_of="value"),
                Figure(CUT, "times", goal=0, goal_of="value"),
                Figure(AHEAD, "MiB"),
                Figure(PEAK, "MiB"),
                Figure(AFTERWARDS, "MiB"),
            ],
            partial(measure_router, *measured),
        ),
    ]


def measure_loop(events: int, publishers: int, _command: Path) -> Turns:
    """Measure the loop."""
    with server(cuts_off=True) as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with _loop(at, folder) as pid:
            lines = Lines(folder / "out", pid)
            yield
            lost, rate = _burst(at, lines, events, publishers)
            return {
                f"{LOOP}: {LOST}": Reading(lost, {"published/s": rate}),
                f"{LOOP}: {CUT}": Reading(at.cut_off),
                f"{LOOP}: {PEAK}": Reading(peak_mib(pid)),
            }


def measure_router(events: int, publishers: int, command: Path) -> Turns:
    """Measure the router."""
    with server(cuts_off=True) as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with router(command, configuration(at, folder), folder) as pid:
            lines = Lines(folder / "out", pid)
            yield
            lost, rate = _burst(at, lines, events, publishers)
            source = status(command, folder)["sources"]["bench"]
            return {
                LOST: Reading(lost, {"published/s": rate}),
                CUT: Reading(at.cut_off, {"gaps": source["gaps"]}),
                AHEAD: Reading(source.get("read_ahead_peak_bytes", 0) / MIB),  # older checkouts lack this field
                PEAK: Reading(peak_mib(pid)),
                AFTERWARDS: Reading(_resident_mib(pid)),
            }


@contextmanager
def _loop(at: Server, folder: Path) -> Iterator[int]:
    """Start the loop and yield its process id once it has subscribed."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    program = [sys.executable, str(HERE / "contenders.py"), PROGRAM, str(at.port)]
    with running([*program, str(folder / "schema.json"), str(folder / "out")]) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1] or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit(f"{LOOP} ended with {process.returncode}")
        yield process.pid


def _burst(at: Server, lines: Lines, events: int, publishers: int) -> tuple[int, float]:
    """Publish to a warm subscriber; return the number of lost events, and the number of published events per second."""
    send(at, publishes([CHANNEL], WARM_UP))
    lines.need(WARM_UP)
    bounds = [events * number // publishers for number in range(publishers + 1)]
    with ExitStack() as stack:
        started = [stack.enter_context(_publisher(at, first, end - first)) for first, end in pairwise(bounds)]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.monotonic()
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in started:
            process.wait()
        took = time.monotonic() - began
    return WARM_UP + events - lines.wait(WARM_UP + events)[0], events / took


@contextmanager
def _publisher(at: Server, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, str(HERE / "flood.py"), str(at.port), str(first), str(count)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


BENCHMARK = Benchmark(str(__doc__), "A burst, and the default limits of the server", 3, arguments, cases)
