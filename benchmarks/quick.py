"""A quick check of the CPU time of an event: a few short jobs, compared with stored ratios.

Each job is measured together with its base in the same run. The ratio of job to base is compared with the stored
ratio.

The base of an event is a bare loop that only reads the same messages. The base of a start is the import of the
libraries. Ratios are compared, and not times, because ratios hardly depend on the machine. If the ratio of a job
exceeds the stored ratio by more than the tolerance in every round, the job counts as more expensive. If the ratio is
lower by more than the tolerance in every round, the job counts as cheaper. `--store` replaces the stored ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from benchmarks import compare, start
from benchmarks.harness import CHANNEL, HERE, OURS, cpu_seconds, publishes, send, server, split
from benchmarks.peers import FLOOR, Counted, contender
from benchmarks.ratios import Interval
from benchmarks.results import THIS, Case, Figure, Reading, Turns, in_turn

BASELINE = HERE / "baseline.json"
TOLERANCE = 0.15
"""The fraction by which a ratio may exceed the stored ratio.

On a busy machine, two runs of the same checkout differ by a tenth.
"""
OK, DEARER, CHEAPER, NEW = "ok", "more expensive", "cheaper", "not stored"


@dataclass(frozen=True)
class Verdict:
    """The result for one job: its ratio to its base, the stored ratio, and the conclusion.

    `stored` is None if no ratio is stored for the job.
    """

    job: str
    ratio: Interval
    stored: float | None
    result: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=60_000, help="events of one run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each job is measured")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="how much more expensive a job may be: 0.15 is 15 %%"
    )
    parser.add_argument("--store", action="store_true", help="store the ratios of this run, to compare later runs with")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="the file of the stored ratios")


def cases(events: int) -> list[Case]:
    """Return the bases and the jobs."""
    jobs = [
        Case(job, [Figure(job, "µs CPU/event", base=FLOOR)], partial(compare.measure, job, events))
        for job in compare.JOBS
    ]
    return [
        Case(FLOOR, [Figure(FLOOR, "µs CPU/event")], partial(measure_floor, events)),
        *jobs,
        *start.cases(argparse.Namespace()),
    ]


def measure_floor(events: int, _command: Path) -> Turns:
    """Measure the bare loop, with as many turns as for the jobs."""
    messages = publishes([CHANNEL], events)
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contender(FLOOR, at, folder) as pid:
            lines = Counted(folder / "out", pid)
            send(at, messages[:100])
            lines.need(100)
            yield
            before, came = cpu_seconds(pid), 100
            for part in split(messages, compare.TURNS):
                send(at, part)
                came, _ = lines.wait(came + len(part), every=0.005)
                yield
            return {FLOOR: Reading((cpu_seconds(pid) - before) / max(came - 100, 1) * 1e6)}


def judge(ratios: Mapping[str, Interval], stored: Mapping[str, float], tolerance: float) -> list[Verdict]:
    """Compare ratios with the stored ones."""
    return [
        Verdict(job, ratio, stored.get(job), _result(ratio, stored.get(job), tolerance))
        for job, ratio in ratios.items()
    ]


def _result(ratio: Interval, stored: float | None, tolerance: float) -> str:
    if stored is None:
        return NEW
    if ratio.low > stored * (1 + tolerance):
        return DEARER
    return CHEAPER if ratio.high < stored / (1 + tolerance) else OK


def table(verdicts: list[Verdict]) -> Table:
    """Return the verdicts as a table with one row per verdict."""
    drawn = Table(title="As a multiple of the base of the same run")
    for heading in ("job", "÷ base", "stored", "÷ stored", ""):
        drawn.add_column(heading, justify="left" if heading in {"job", ""} else "right")
    for each in verdicts:
        stored = ("", "") if each.stored is None else (f"{each.stored:.2f}", f"{each.ratio.median / each.stored:.2f}")
        drawn.add_row(each.job, str(each.ratio), *stored, each.result)
    return drawn


def stored_in(file: Path) -> dict[str, float]:
    """Return the stored ratios by job; none if there is no file."""
    return dict(json.loads(file.read_text())["ratios"]) if file.exists() else {}


def store(file: Path, ratios: Mapping[str, Interval]) -> None:
    """Store the medians."""
    told = {"ratios": {job: round(ratio.median, 3) for job, ratio in ratios.items()}}
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def run(options: argparse.Namespace, progress: Progress) -> list[Verdict]:
    """Measure and compare the ratios; with `--store`, store them."""
    chosen = cases(options.events)
    results = in_turn(chosen, {THIS: OURS}, options.rounds, progress, FLOOR)
    ratios = {
        figure.name: ratio
        for case in chosen
        for figure in case.figures
        if (ratio := results.to_base(figure)) is not None
    }
    verdicts = judge(ratios, stored_in(options.baseline), options.tolerance)
    if options.store:
        store(options.baseline, ratios)
    return verdicts
