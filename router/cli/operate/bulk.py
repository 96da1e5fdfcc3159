"""Confirmation questions and progress bars, for commands that change many things at once; floor 7."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from router.cli.common import console, print_message
from router.wording import counted

ASK_ABOVE = 100
"""The number of things above which the command asks for confirmation."""


yes_option = click.option(
    "--yes",
    is_flag=True,
    help="Do not ask for confirmation. Without this option, the command asks on a terminal before it changes more than "
    f"{counted(ASK_ABOVE, 'letter or delivery', 'letters or deliveries')}.",
)
"""`--yes`: do not ask for confirmation."""

dry_run_option = click.option("--dry-run", is_flag=True, help="Only print what would be done.")
"""`--dry-run`: only print what would be done."""


def agreed(number: int, question: str, *, yes: bool) -> bool:
    """Return whether to go on. If `number` is above `ASK_ABOVE`, the user is asked for confirmation on a terminal."""
    if yes or number <= ASK_ABOVE or not sys.stdin.isatty():
        return True
    if click.confirm(question, err=True):
        return True
    print_message("nothing was done")
    return False


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _number: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = console(width=110, err=True)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=screen) as bar:
        task = bar.add_task("", total=total)
        yield lambda number: bar.advance(task, number)


def ago(seconds: float) -> str:
    """Return a duration in its largest unit: `3d`, `20m`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
