"""Questions and progress bars, for commands that deal with many things at once; floor 7."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from router.cli.common import console, tell

ASK_ABOVE = 100
"""Things above which a person is asked first."""


yes_option = click.option("--yes", is_flag=True, help=f"Don't ask; else above {ASK_ABOVE} on a terminal.")
"""`--yes`: nobody is asked."""

dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
"""`--dry-run`: only say what would be done."""


def agreed(number: int, question: str, *, yes: bool) -> bool:
    """Return whether a person agrees, who is asked above `ASK_ABOVE` on a terminal."""
    if yes or number <= ASK_ABOVE or not sys.stdin.isatty():
        return True
    if click.confirm(question, err=True):
        return True
    tell("nothing was done")
    return False


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _number: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = console(width=110, err=True)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=screen) as bar:
        task = bar.add_task("", total=total)
        yield lambda number: bar.advance(task, number)


def ago(seconds: float) -> str:
    """Return how long ago something was, in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
