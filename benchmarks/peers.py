"""The cost of one event in the router (pub/sub → schema → route → log file), compared with two simple programs.

The first program (`floor`) is a bare loop that only reads the same messages. The second program (`redis-py`) is a
simple program with redis-py for the same job. Afterwards, the router's latency from publish to output line is measured
at a steady rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.harness import (
    CHANNEL,
    HERE,
    OURS,
    SCHEMA,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    peak_mib,
    publishes,
    router,
    running,
    send,
    server,
    wait_for,
)

RESULTS = HERE / "results"
ROUTER, FLOOR, PEER = "event-router", "floor", "redis-py"
PEER_SHARE = 20  # the program with redis-py is slow, so it gets only one twentieth of the events


@dataclass(frozen=True)
class Run:
    """One run of a program: CPU time per event in µs, events per second, peak memory in MiB, and missing events."""

    contender: str
    cpu_us: float
    per_second: float
    peak_mib: float
    missing: int


class Counted(Lines):
    """The output file of the floor, which contains the count instead of lines."""

    def __init__(self, file: Path, pid: int) -> None:
        super().__init__(file, pid)
        self._holds = file

    def count(self) -> int:
        """Return the count."""
        return int(self._holds.read_bytes() or 0) if self._holds.exists() else 0


@contextmanager
def contender(name: str, at: Server, folder: Path) -> Iterator[int]:
    """Start a contender and yield its process id once it has subscribed."""
    if name == ROUTER:
        with router(OURS, configuration(at, folder), folder) as pid:
            yield pid
        return
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    with running(program(name, at, folder)) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1] or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}")
        yield process.pid


def program(name: str, at: Server, folder: Path) -> list[str]:
    """Return the command that starts a contender."""
    return [
        sys.executable,
        str(HERE / "contenders.py"),
        name,
        str(at.port),
        str(folder / "schema.json"),
        str(folder / "out"),
    ]


def measure(name: str, events: int) -> Run:
    """Run one contender once."""
    commands = publishes([CHANNEL], events)
    warm_up = commands[: max(events // 100, 100)]
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contender(name, at, folder) as pid:
            lines = (Counted if name == FLOOR else Lines)(folder / "out", pid)
            send(at, warm_up)
            lines.need(len(warm_up))
            cpu, began = cpu_seconds(pid), time.monotonic()
            send(at, commands)
            came, last = lines.wait(len(warm_up) + events)
            got, used = came - len(warm_up), cpu_seconds(pid) - cpu
            return Run(name, used / max(got, 1) * 1e6, got / (last - began), peak_mib(pid), events - got)


def latencies(rate: int, seconds: float) -> list[float]:
    """Return for each event the milliseconds from publish to output line, at a steady rate of events per second."""
    total = int(rate * seconds)
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contender(ROUTER, at, folder) as pid:
            send(at, publishes([CHANNEL], 1))
            Lines(folder / "out", pid).need(1)
            arguments = [sys.executable, str(HERE / "steady.py"), str(at.port), str(rate), str(total)]
            with running(arguments) as publisher, (folder / "out").open("rb") as file:
                file.readline()
                took = list(followed(file, total))
                publisher.wait()
    return took


def followed(file: BinaryIO, total: int, seconds: float = 60.0) -> Iterator[float]:
    """Yield the latency of each line in milliseconds. The message of a line is its time of sending.

    Raises `SystemExit` if the lines do not come within the given seconds.
    """
    seen, rest, end = 0, b"", time.monotonic() + seconds
    while seen < total:
        data = file.read()
        now = time.time()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield (now - float(json.loads(line)["payload"]["message"])) * 1000
        seen += len(lines)
        if time.monotonic() > end:
            raise SystemExit(f"{total - seen} of {total} events did not come out in time")
        time.sleep(0.0001)


def table(runs: list[Run]) -> Table:
    """Draw the runs as a table, the floor first."""
    floor = next(run for run in runs if run.contender == FLOOR)
    drawn = Table(title="pub/sub → schema → route → log file")
    for heading in ("contender", "CPU µs/event", "÷ floor", "events/s", "peak MiB", "missing"):
        drawn.add_column(heading, justify="left" if heading == "contender" else "right")
    for run in runs:
        floors = f"{run.cpu_us / floor.cpu_us:.1f}"
        drawn.add_row(
            run.contender,
            f"{run.cpu_us:.2f}",
            floors,
            f"{run.per_second:,.0f}",
            f"{run.peak_mib:.0f}",
            str(run.missing),
        )
    return drawn


def draw(runs: list[Run], file: Path) -> None:
    """Draw the runs as a bar chart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.2))
    bars = axes.barh(
        [run.contender for run in runs], [run.cpu_us for run in runs], color=["#bbbbbb", "#d33682", "#268bd2"]
    )
    axes.bar_label(bars, fmt="%.2f µs", padding=4)
    axes.set_xscale("log")
    axes.set_xlim(right=max(run.cpu_us for run in runs) * 4)
    axes.set_xlabel("CPU µs per event (log scale; less is better)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file)


def best(contenders: dict[str, int], rounds: int, progress: Progress) -> list[Run]:
    """Return the run with the least CPU time of each contender.

    The runs are made in turn; slower runs were slowed by the machine.
    """
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    task = progress.add_task("", total=rounds * len(contenders))
    for _ in range(rounds):
        for name, events in contenders.items():
            progress.update(task, description=name)
            runs[name].append(measure(name, events))
            progress.advance(task)
    return [min(several, key=lambda run: (run.missing > 0, run.cpu_us)) for several in runs.values()]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--events", type=int, default=400_000, help="events of a run; the program with redis-py gets a twentieth"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each program; the run with the least CPU time counts"
    )
    parser.add_argument("--svg", type=Path, default=RESULTS / "pubsub.svg", help="the file of the bar chart")
    parser.add_argument("--rate", type=int, default=10_000, help="events per second while the latency is measured")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Measure, draw and print."""
    contenders = {FLOOR: options.events, ROUTER: options.events, PEER: max(options.events // PEER_SHARE, 1)}
    runs = best(contenders, options.rounds, progress)
    took = sorted(latencies(options.rate, 5.0))
    latency = {f"p{share}": round(took[int(len(took) * share / 100)], 3) for share in (50, 99)}
    draw(runs, options.svg)
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "latency_ms": latency}))
    else:
        Console().print(table(runs))
        print(f"latency at {options.rate:,}/s: p50 {latency['p50']} ms, p99 {latency['p99']} ms")
        print(f"drawn to {options.svg}")
