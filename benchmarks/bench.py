"""The benchmarks: `make bench` runs the first of them, `make bench ARGS='NAME …'` another.

Machines differ and are busy, so what counts are ratios within one run, of contenders that are measured in turn. CPU is that
of a process and its children, user and system. With `--other` everything is measured of the command of another checkout
too, and its figures stand beside those of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks import channels, compare, conditions, fanout, idle, lists, lookups, mail, peers, start, trickle, webhook
from benchmarks.harness import OURS
from benchmarks.results import OTHER, THIS, in_turn

FIRST = "peers"
IN_TURN = {
    "compare": compare.BENCHMARK,
    "channels": channels.BENCHMARK,
    "conditions": conditions.BENCHMARK,
    "fanout": fanout.BENCHMARK,
    "lists": lists.BENCHMARK,
    "lookups": lookups.BENCHMARK,
    "idle": idle.BENCHMARK,
    "start": start.BENCHMARK,
    "trickle": trickle.BENCHMARK,
    "webhook": webhook.BENCHMARK,
    "mail": mail.BENCHMARK,
}
"""The benchmarks that measure their cases and commands in turn."""

WIDE = 180
"""The columns of a table that is not shown on a terminal."""


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    options = _parser().parse_args([*words] if _named(words) else [FIRST, *words])
    talk = Console(stderr=True)
    with Progress(console=talk, disable=not talk.is_terminal) as progress:
        if options.benchmark == FIRST:
            peers.run(options, progress)
            return
        benchmark = IN_TURN[options.benchmark]
        commands = {THIS: OURS} | ({OTHER: options.other} if options.other else {})
        results = in_turn(benchmark.cases(options), commands, options.rounds, progress, benchmark.base)
    if options.json:
        told = {"benchmark": options.benchmark, "commands": {name: str(path) for name, path in commands.items()}}
        print(json.dumps(told | results.as_dict()))
    else:
        Console(width=None if sys.stdout.isatty() else WIDE).print(results.table(benchmark.title))


def _named(words: Sequence[str]) -> bool:
    """Return whether a benchmark, or the help of all of them, is asked for."""
    return bool(words) and words[0] in {FIRST, *IN_TURN, "-h", "--help"}


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=form)
    several = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")

    def add(name: str, about: str, arguments: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
        one = several.add_parser(name, help=about.partition("\n")[0], description=about, formatter_class=form)
        arguments(one)
        one.add_argument("--json", action="store_true", help="print everything that was measured as JSON")
        return one

    add(FIRST, str(peers.__doc__), peers.arguments)
    for name, benchmark in IN_TURN.items():
        one = add(name, benchmark.about, benchmark.arguments)
        one.add_argument(
            "--rounds", "--pairs", type=_positive, default=benchmark.rounds, help="how often each is measured"
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
    # The blocks that start servers and routers end them too: a SIGTERM has to leave these blocks, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
