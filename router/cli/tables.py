"""Tables that fit the terminal: unimportant columns are left out, ids and numbers are never cut; floor 7."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from router.cli.common import console, print_message
from router.escaping import escape
from router.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

GAP = 2
"""Spaces between two columns."""

MOST_DRAWN = 2000
"""The maximum number of rows of a table with colours on a terminal; longer tables are printed plainly."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table.

    On a narrow terminal, the columns with the highest `rank` are left out first. A column with rank 0 is never left
    out. `least` is the width to which the texts of the column may be cut; a cut text ends in `…`. A column with ids or
    numbers has the `least` None: it is shown in full or left out. If `wraps` is true, texts are broken between words
    over several lines. Then only words that are wider than the column are cut.
    """

    name: str
    rank: int = 0
    least: int | None = None
    number: bool = False
    wraps: bool = False


class Cell(NamedTuple):
    """A string in a table, with its colour (a style of rich), and a short form for a column that is too narrow."""

    text: str
    style: str = ""
    short: str | None = None


def width_of(text: str) -> int:
    """Return the width of a string in terminal cells: two for a Chinese character, none for an accent."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut_to(text: str, width: int) -> str:
    """Return the text. If the text is wider than `width`, cut it to this width and end it with `…`."""
    if width_of(text) <= width:
        return text
    from rich.cells import set_cell_size

    return f"{set_cell_size(text, width - 1).rstrip()}…"


def broken(text: str, width: int) -> list[str]:
    """Return the text as lines of at most `width` cells, broken between words. A longer word has its own line."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]


class Table:
    """Rows under named columns, drawn to a width. A table is also a renderable of rich."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
        self._columns = columns
        self._rows = [
            [Cell(escape(cell)) if isinstance(cell, str) else cell._replace(text=escape(cell.text)) for cell in row]
            for row in rows
        ]
        self._full = [
            max(width_of(column.name), *(width_of(row[at].text) for row in self._rows), 0)
            for at, column in enumerate(columns)
        ]

    def missing(self, width: int | None) -> list[str]:
        """Return the names of the columns that do not fit into a width."""
        kept = self._widths(width)
        return [column.name for at, column in enumerate(self._columns) if at not in kept]

    def lines(self, width: int | None) -> Iterator[list[Cell]]:
        """Yield the header and each row as cells, padded to the columns that fit. A `width` of None means any width.

        The last cell of a row has no spaces at its end.
        """
        if not self._columns:
            return
        widths = self._widths(width)
        names = [Cell(column.name, "bold") for column in self._columns]
        for row in (names, *self._rows):
            for cells in zip_longest(
                *(self._broken(row[at], at, size) for at, size in widths.items()), fillvalue=Cell("")
            ):
                shown = [self._padded(cell, at, size) for cell, (at, size) in zip(cells, widths.items(), strict=True)]
                yield [*shown[:-1], shown[-1]._replace(text=shown[-1].text.rstrip())]

    def _broken(self, cell: Cell, at: int, size: int) -> list[Cell]:
        """Return the lines of a cell."""
        if not self._columns[at].wraps or width_of(cell.text) <= size:
            return [cell]
        return [cell._replace(text=line) for line in broken(cell.text, size)]

    def _padded(self, cell: Cell, at: int, size: int) -> Cell:
        text = cell.text
        if width_of(text) > size:
            text = cut_to(text, size) if cell.short is None else cell.short
        spaces = " " * (size - width_of(text))
        return cell._replace(text=f"{spaces}{text}" if self._columns[at].number else f"{text}{spaces}")

    def _widths(self, width: int | None) -> dict[int, int]:
        """Return the width of each column that fits, by index.

        Every column gets its least width first; the remaining space is given to columns in order of importance.
        """
        if width is None or sum(self._full) + GAP * (len(self._full) - 1) <= width:
            return dict(enumerate(self._full))
        least = [self._least(at) for at in range(len(self._columns))]
        ranked = sorted(range(len(self._columns)), key=lambda at: (self._columns[at].rank, at))
        while sum(least[at] + GAP for at in ranked) - GAP > width and self._columns[ranked[-1]].rank:
            ranked.pop()
        left = width - sum(least[at] + GAP for at in ranked) + GAP
        widths = {}
        for at in ranked:
            more = self._full[at] - least[at]
            if more > left:  # cells that can't be cut are still shown in their short form
                more = 0 if self._columns[at].least is None else max(left, 0)
            widths[at] = least[at] + more
            left -= more
        return dict(sorted(widths.items()))

    def _least(self, at: int) -> int:
        """Return the least width of a column."""
        column = self._columns[at]
        if column.least is not None:
            return min(self._full[at], max(column.least, width_of(column.name)))
        shortest = (row[at].text if row[at].short is None else row[at].short or "" for row in self._rows)
        return max(width_of(column.name), *map(width_of, shortest), 0)

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the lines for rich, with a rule below the header on a terminal."""
        from rich.text import Text

        lines = list(self.lines(options.max_width))
        longest = max((sum(width_of(cell.text) + GAP for cell in line) - GAP for line in lines), default=0)
        for number, line in enumerate(lines):
            parts = [part for cell in line for part in ((cell.text, cell.style), " " * GAP)]
            yield Text.assemble(*parts[:-1], no_wrap=True, overflow="ignore", end="\n")
            if number == 0 and screen.is_terminal:
                yield Text("─" * longest, "dim", no_wrap=True, overflow="ignore")


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
    """Print a table: fitted to a terminal, or plain and in full width to a pipe."""
    table = Table(columns, rows)
    if not sys.stdout.isatty():
        width = None
    else:
        screen = console(width=0)
        width = screen.width
        if len(rows) <= MOST_DRAWN:
            screen.print(table, crop=False, no_wrap=True, overflow="ignore")
            _report_missing(table, width)
            return
    for line in table.lines(width):
        click.echo((" " * GAP).join(cell.text for cell in line))
    _report_missing(table, width)


def _report_missing(table: Table, width: int | None) -> None:
    if missing := table.missing(width):
        print_message(
            f"note: {counted(len(missing), 'column does', 'columns do')} not fit: {', '.join(missing)}; use a wider terminal, a pipe or --json to see all",
            "note",
        )
