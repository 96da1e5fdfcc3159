"""The cost of `dlq replay`: the router delivers dead letters of a log sink again, and writes them to the log file.

The benchmark writes the dead letters into Redis in the format of the router. The time is measured from the start of
the command until the last line is written. By default the command sends 2,000 letters per second, so 100,000 letters
take at least 50 s. `--rate` sets another rate.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import CHANNEL, Lines, configuration, cpu_seconds, payload, peak_mib, router, send, server, wire
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

TIME, COMMAND = "time for 100,000 letters", "`dlq replay`: CPU"
ROUTER, SERVER = "router: CPU", "Redis server: CPU"
MOST_SECONDS = 60.0
"""The goal for 100,000 letters."""
AS_MANY = 100_000
STREAM = b"{event-router}:dead"
"""The stream of dead letters."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--letters", type=int, default=20_000, help="how many letters are replayed")
    parser.add_argument("--rate", type=int, help="letters per second; without it, the default of the command")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the only case."""
    figures = [
        Figure(TIME, "s", goal=MOST_SECONDS, goal_of="value"),
        Figure(COMMAND, "µs CPU/letter"),
        Figure(ROUTER, "µs CPU/letter"),
        Figure(SERVER, "µs CPU/letter"),
    ]
    return [Case("replay", figures, partial(measure, options.letters, options.rate))]


def letters(count: int) -> Iterator[bytes]:
    """Yield the commands that write a number of dead letters of deliveries to the log sink."""
    for number in range(count):
        yield wire(
            *(b"XADD", STREAM, b"*", b"version", b"1"),
            *(b"id", b"letter-%d" % number, b"event_id", b"event-%d" % number),
            *(b"reason", b"exhausted", b"detail", b"TimeoutError: no answer within 30 s"),
            *(b"source", b"bench", b"channel", CHANNEL.encode(), b"payload", payload(number)),
            *(b"received_at", b"2026-01-31T12:00:00.000000Z", b"failed_at", b"2026-02-01T12:00:00.000000Z"),
            *(b"route", b"everything", b"sink", b"audit", b"attempts", b"9"),
        )


def measure(count: int, rate: int | None, command: Path) -> Turns:
    """Measure the replay of a number of letters."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        send(at, list(letters(count)))
        with router(command, configuration(at, folder), folder) as pid:
            lines = Lines(folder / "out", pid)
            yield
            before = cpu_seconds(pid), cpu_seconds(at.pid)
            children, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            words = [str(command), "dlq", "replay", "-c", str(folder / "config.yaml"), "--yes"]
            words += [] if rate is None else ["--rate", str(rate)]
            subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
            ended = time.monotonic()
            lines.need(count)
            took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime - children.ru_utime + after.ru_stime - children.ru_stime
            return {
                TIME: Reading(took * AS_MANY / count, {"s of the command": ended - began, "peak MiB": peak_mib(pid)}),
                COMMAND: Reading(used / count * 1e6),
                ROUTER: Reading((cpu_seconds(pid) - before[0]) / count * 1e6),
                SERVER: Reading((cpu_seconds(at.pid) - before[1]) / count * 1e6),
            }


BENCHMARK = Benchmark(str(__doc__), "dead letters → `dlq replay` → log file", 1, arguments, cases)
