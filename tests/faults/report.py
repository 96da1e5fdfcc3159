"""The command that plays the fault scenarios and reports the results.

    python -m tests.faults.report [--only NAME …] [--scale small|full] [--server redis|valkey] [--write] [--json] [--list]

The command prints a table, or with `--json` a line for each scenario. `--write` stores the results in `measured.json`
beside this file, and renders them into `docs/reliability.md`. The exit code is 1 if a promise was not kept. A full run
of all scenarios takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import tests.faults.scenarios  # noqa: F401  # fills the list
from router.version import __version__
from tests.faults.judging import Found
from tests.faults.registry import SCENARIOS, run
from tests.faults.stage import Step, kinds_of_server
from tests.faults.tables import BEGIN, END, document
from tests.support.process import ROOT
from tests.support.redis import binary

MEASURED = Path(__file__).with_name("measured.json")
PAGE = ROOT / "docs" / "reliability.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and options.scale == "small":
        parser.error("--write is allowed only for full runs, because small runs do not measure times")
    chosen = [SCENARIOS[name] for name in options.only] or list(SCENARIOS.values())
    if options.scale == "small":
        chosen = [one for one in chosen if one.small or options.only]
    if options.list:
        print("\n".join(f"{one.name}: {one.title}" for one in chosen))
        return 0
    talk = Console(stderr=True)
    results: list[Found] = []
    for number, one in enumerate(chosen, 1):
        lacking = one.lacks()
        if lacking:
            talk.print(f"skipped {one.name}: {lacking}", highlight=False)
            continue
        with _telling(talk, f"{number}/{len(chosen)} {one.name}") as step:
            found = run(one, full=options.scale == "full", step=step, kind=options.server)
        results.append(found)
        talk.print(f"{'kept  ' if not found.problems else 'FAILED'} {one.name}, {found.seconds:.0f} s", highlight=False)
        for problem in found.problems:
            talk.print(f"  {problem}", highlight=False, markup=False)
        if options.json:
            print(json.dumps(found.as_dict()), flush=True)
        if options.write:
            keep(found, options.server, options.scale)
            PAGE.write_text(rendered(PAGE.read_text()))
    if not options.json:
        Console(highlight=False).print(_table(results))
    return 1 if any(found.problems for found in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[], choices=sorted(SCENARIOS), metavar="NAME", help="play only these scenarios"
    )
    parser.add_argument("--scale", choices=("small", "full"), default="full", help="default: full")
    servers = kinds_of_server()
    parser.add_argument("--server", choices=servers, default=servers[0], help=f"default: {servers[0]}")
    parser.add_argument("--write", action="store_true", help="render the results into docs/reliability.md")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each scenario, and no table")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    return parser


@contextmanager
def _telling(console: Console, title: str) -> Iterator[Step]:
    """Show the current step on a terminal. Elsewhere, print only the title of the scenario."""
    if not console.is_terminal:
        console.print(f"       {title}", highlight=False)
        yield lambda _step: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title)
        yield lambda step: progress.update(task, description=f"{title}: {step}")


def _table(results: Sequence[Found]) -> Table:
    table = Table("scenario", box=None, pad_edge=False)
    for column in ("published", "lost", "repeated", "dead", "dropped", "lines"):
        table.add_column(column, justify="right")
    table.add_column("books")
    table.add_column("kept")
    for found in results:
        numbers = (found.published, found.most_lost, found.most_repeated, found.dead, found.dropped, found.lines)
        state = "balance" if found.balanced else "[red]DO NOT[/red]"
        held = "[red]no[/red]" if found.problems else "yes"
        table.add_row(found.name, *[f"{number:,}" for number in numbers], state, held)
    return table


def keep(found: Found, server: str, scale: str) -> None:
    """Store a result in `measured.json`, with the date, the version of the router, the server and the machine."""
    results = measured()
    results[found.name] = {
        **found.as_dict(),
        "problems": [problem.partition("\n")[0] for problem in found.problems],
        "scale": scale,
        "date": datetime.now(UTC).date().isoformat(),
        "version": __version__,
        "server": _version(server),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }
    known = {name: results[name] for name in SCENARIOS if name in results}
    MEASURED.write_text(json.dumps(known, indent=1) + "\n")


def measured() -> dict[str, dict[str, Any]]:
    """Return the stored results, by scenario."""
    found: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return found


def rendered(page: str) -> str:
    """Return the page with new tables of the stored results between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{document(SCENARIOS, measured())}\n{END}{tail}"


def _version(server: str) -> str:
    """Return the name and the version of the server, such as `Redis 7.0.15`."""
    said = subprocess.run([str(binary(server)), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=([\d.]+)", said)
    return f"{server.capitalize()} {found[1] if found else 'of unknown version'}"


if __name__ == "__main__":
    sys.exit(main())
