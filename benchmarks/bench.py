"""The benchmarks. `make bench` runs the benchmark `peers`, and `make bench ARGS='NAME …'` runs the benchmark NAME.

Machines differ and may be busy. Therefore the programs are measured in turn, and their ratios within one run are
compared. CPU is the user and system time of a process and its children. With `--other`, the command of another
checkout is measured too. The table then has the figures of both checkouts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import (
    burst,
    channels,
    check,
    compare,
    conditions,
    failures,
    fanout,
    idle,
    lists,
    lookups,
    mail,
    mixed,
    peers,
    quick,
    replay,
    report,
    start,
    trickle,
    waiting,
    webhook,
)
from benchmarks.harness import OURS
from benchmarks.results import OTHER, THIS, Results, in_turn

FIRST = "peers"
QUICK = "quick"
REPORT = "report"
IN_TURN = {
    "compare": compare.BENCHMARK,
    "burst": burst.BENCHMARK,
    "channels": channels.BENCHMARK,
    "check": check.BENCHMARK,
    "conditions": conditions.BENCHMARK,
    "failures": failures.BENCHMARK,
    "fanout": fanout.BENCHMARK,
    "lists": lists.BENCHMARK,
    "lookups": lookups.BENCHMARK,
    "idle": idle.BENCHMARK,
    "mixed": mixed.BENCHMARK,
    "replay": replay.BENCHMARK,
    "start": start.BENCHMARK,
    "trickle": trickle.BENCHMARK,
    "waiting": waiting.BENCHMARK,
    "webhook": webhook.BENCHMARK,
    "mail": mail.BENCHMARK,
}
"""The benchmarks that measure their cases and commands in turn."""

WIDE = 180
"""The width of a table, in columns, if the output is not a terminal."""


def main(words: Sequence[str]) -> int:
    """Run a benchmark and print its results.

    Return the exit code: 1 if `quick` found a job that uses more CPU than before.
    """
    options = _parser().parse_args([*words] if _named(words) else [FIRST, *words])
    talk = Console(stderr=True)
    with Progress(console=talk, disable=not talk.is_terminal) as progress:
        if options.benchmark == FIRST:
            peers.run(options, progress)
            return 0
        if options.benchmark == REPORT:
            _report(options.jobs, progress)
            return 0
        if options.benchmark == QUICK:
            verdicts = quick.run(options, progress)
        else:
            results = _measured(options, progress)
    if options.benchmark == QUICK:
        _print(quick.table(verdicts))
        return int(not options.store and any(each.result == quick.DEARER for each in verdicts))
    if options.json:
        commands = {name: str(path) for name, path in _commands(options).items()}
        print(json.dumps({"benchmark": options.benchmark, "commands": commands} | results.as_dict()))
    else:
        _print(results.table(IN_TURN[options.benchmark].title))
    return 0


def _commands(options: argparse.Namespace) -> dict[str, Path]:
    return {THIS: OURS} | ({OTHER: options.other} if options.other else {})


def _measured(options: argparse.Namespace, progress: Progress) -> Results:
    benchmark = IN_TURN[options.benchmark]
    return in_turn(benchmark.cases(options), _commands(options), options.rounds, progress, benchmark.base)


def _report(jobs: Sequence[str], progress: Progress) -> None:
    """Run these benchmarks, store the figures after each one, and update the page."""
    chosen = [(each, _parser().parse_args(shlex.split(each))) for each in jobs]
    for words, options in chosen:
        if options.benchmark not in IN_TURN:
            raise SystemExit(f"{options.benchmark} has no figures for the report")
        results = _measured(options, progress)
        report.save(report.merged(report.load(), options.benchmark, words, results))
    report.draw(report.load())


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _named(words: Sequence[str]) -> bool:
    """Return True if the arguments name a benchmark, or ask for the help about all benchmarks."""
    return bool(words) and words[0] in {FIRST, QUICK, REPORT, *IN_TURN, "-h", "--help"}


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=form)
    several = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")

    def add(name: str, about: str, arguments: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
        one = several.add_parser(name, help=about.partition("\n")[0], description=about, formatter_class=form)
        arguments(one)
        return one

    as_json = "print all measured values as JSON"
    add(FIRST, str(peers.__doc__), peers.arguments).add_argument("--json", action="store_true", help=as_json)
    add(QUICK, str(quick.__doc__), quick.arguments)
    add(REPORT, str(report.__doc__), report.arguments)
    for name, benchmark in IN_TURN.items():
        one = add(name, benchmark.about, benchmark.arguments)
        one.add_argument("--json", action="store_true", help=as_json)
        one.add_argument(
            "--rounds",
            "--pairs",
            type=_positive,
            default=benchmark.rounds,
            help="the number of rounds; each round measures every case once",
        )
        one.add_argument(
            "--other",
            type=_command,
            required=name == "compare",
            metavar="COMMAND",
            help="the event-router of another checkout, measured in turn with this one",
        )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _command(text: str) -> Path:
    path = Path(text).absolute()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text} is not a command")
    return path


if __name__ == "__main__":
    # SIGTERM must leave the `with` blocks that start servers and routers, as Ctrl-C does, because these blocks also
    # stop the servers and routers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
