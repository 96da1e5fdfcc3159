"""`event-router status`; floor 7."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from router.admin.admin_client import Client
from router.admin.sockets import STATUS
from router.cli.common import config_option, console, env_file_option, instance_option, json_option, print_json
from router.cli.operate.sink_troubles import Document, fault_warning, span, trouble
from router.cli.running_router import running
from router.cli.tables import Cell, Column, Table
from router.errors import Exit, UnavailableError
from router.escaping import escape
from router.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

EVERY = 1.0
"""Seconds between two refreshes of `--watch`."""

MOST_ROUTES = 20
"""The largest number of routes shown. A router may have thousands of routes; those with the most events are shown."""

MOST_NAMES = 5
"""The largest number of sinks that the footnote below the table of sinks names."""


@click.command()
@config_option
@env_file_option
@instance_option
@json_option
@click.option("--watch", "watches", is_flag=True, help="Refresh every second until Ctrl-C, and show events per second.")
def status(config: Path | None, env_file: Path | None, instance: str, *, as_json: bool, watches: bool) -> int:
    """Show the running router: sources, sinks, queues, routes and books.

    The books are the counters of events and deliveries. They balance if each of these is counted exactly once. The exit
    code is 0 if the router is ready and its books balance, else 1. It is 69 if no router runs.
    """
    client = running(config, env_file, instance)
    if watches:
        _watch(client, as_json=as_json)
    document = client.get(STATUS)
    if as_json:
        print_json(document)
    else:
        _console().print(drawn(document), crop=False, soft_wrap=not sys.stdout.isatty())
    return Exit.OK if document["ready"] and document["balanced"] else Exit.FINDINGS


def _watch(client: Client, *, as_json: bool) -> None:
    """Refresh the status until Ctrl-C. While no router runs, show the error and try again."""
    from rich.live import Live

    before: tuple[float, Document] | None = None
    console = _console()
    draws = console.is_terminal and not as_json
    with Live(console=console, auto_refresh=False, transient=False) if draws else _Plain(console) as display:
        while True:
            began = time.monotonic()
            try:
                document = client.get(STATUS)
            except UnavailableError as error:
                before = None
                _show(display, str(error), {"error": str(error)}, as_json=as_json)
            else:
                rates = Rates(began - before[0], before[1], document) if before else None
                _show(display, drawn(document, rates), document, as_json=as_json)
                before = began, document
            time.sleep(max(0.0, began + EVERY - time.monotonic()))


def _show(display: Any, picture: RenderableType, document: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        sys.stdout.flush()
    else:
        display.update(picture, refresh=True)


class _Plain:
    """A replacement for `rich.live.Live` without a terminal: each status is printed below the previous status."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is no screen to restore."""

    def update(self, picture: RenderableType, *, refresh: bool) -> None:
        """Print the status; `refresh` matters on terminals only."""
        del refresh
        self._console.print(picture, crop=False, soft_wrap=True)
        self._console.file.flush()


class Rates:
    """Events per second between two refreshes. After a restart of the router, the first refresh shows no rates."""

    def __init__(self, seconds: float, before: Document, now: Document) -> None:
        self._seconds = max(seconds, 1e-3)
        self._before = _counted(before) if before["pid"] == now["pid"] else {"sources": {}, "sinks": {}, "routes": {}}
        self._now = _counted(now)

    def of(self, kind: str, name: str, *columns: str) -> str:
        """Return the growth per second of the sum of these columns of a book; empty if the growth is not known yet."""
        before, now = self._before[kind].get(name), self._now[kind][name]
        if before is None:
            return ""
        grown = sum(now.get(column, 0) - before.get(column, 0) for column in columns)
        return f"{max(grown, 0) / self._seconds:,.0f}"  # a route that was removed and added again counts from 0


def drawn(document: Document, rates: Rates | None = None) -> RenderableType:
    """Return the status for a terminal, with problems in colour."""
    from rich.console import Group

    return Group(
        _headline(document),
        *_complaints(document),
        _sources(document, rates),
        _sinks(document, rates),
        *_scopes(document),
        *_routes(document, rates),
        _books(document),
    )


def _headline(document: Document) -> Text:
    from rich.text import Text

    ready = ("ready", "bold green") if document["ready"] else ("not ready", "bold red")
    about = f"{document['instance']}, process {document['pid']}, up {span(document['uptime'])}, "
    return Text.assemble((f"event-router {document['version']}", "bold"), "  ", escape(about), ready)


def _complaints(document: Document) -> list[Text]:
    from rich.text import Text

    now = time.time()
    sinks = {name: (sink, document["books"]["sinks"][name]) for name, sink in document["sinks"].items()}
    troubles = [trouble(name, sink, book, now) for name, (sink, book) in sinks.items()]
    repeated = {fault_warning(name, sink) for name, (sink, _) in sinks.items()}
    warnings = [*filter(None, troubles), *(warning for warning in document["warnings"] if warning not in repeated)]
    reasons = [Text.assemble(("  ✗ ", "red"), escape(reason)) for reason in document["reasons"]]
    return reasons + [Text.assemble(("  ! ", "yellow"), escape(warning)) for warning in warnings]


def _sources(document: Document, rates: Rates | None) -> RenderableType:
    """Return the table of the sources."""
    # Few routers read events ahead, and a router of an older version does not report this number.
    ahead = any(source.get("read_ahead_bytes") for source in document["sources"].values())
    rows = []
    for name, source in document["sources"].items():
        book = document["books"]["sources"][name]
        gaps = source["gaps"]
        rows.append(
            {
                "source": name,
                "": Cell("up", "green") if source["up"] else Cell("down", "bold red"),
                **({"/s": rates.of("sources", name, "received")} if rates else {}),
                "received": _number(book["received"]),
                "rejected": _by_reason(book, "rejected", "yellow"),
                "unmatched": _number(book["unmatched"]),
                "routed": _number(book["routed"]),
                "gaps": Cell(f"{gaps} ({source['gap_seconds']:.1f} s)", "yellow", str(gaps)) if gaps else "0",
                **({"read ahead": _mebibytes(source.get("read_ahead_bytes", 0))} if ahead else {}),
            }
        )
    return _table(rows, ("source", "", "received", "rejected", "routed", "unmatched", "gaps", "read ahead", "/s"))


def _sinks(document: Document, rates: Rates | None) -> RenderableType:
    """Return the table of the sinks."""
    # Most routers print nothing, and a router of an older version does not report this count.
    prints = any(book.get("printed") for book in document["books"]["sinks"].values())
    rows = []
    for name, sink in document["sinks"].items():
        book = document["books"]["sinks"][name]
        rows.append(
            {
                "sink": name,
                "": _health(sink),
                **({"/s": rates.of("sinks", name, "delivered", "printed")} if rates else {}),
                "pending": _pending(book["pending"], sink["delayed"]),
                "delivered": _number(book["delivered"]),
                **({"printed": _number(book["printed"])} if prints else {}),
                "dead": _by_reason(book, "dead_lettered", "red"),
                "dropped": _by_reason(book, "dropped", "red"),
                "suppressed": _by_reason(book, "suppressed", ""),
                "handed over": _number(book["handed_over"]),
            }
        )
    most_important = ("sink", "", "pending", "delivered", "dead", "dropped", "printed", "suppressed", "/s")
    return _table(rows, (*most_important, "handed over"))


def _scopes(document: Document) -> list[Text]:
    """Return a footnote about the counts: some are of this process, others are shared in Redis by all routers."""
    from rich.text import Text

    shared = [name for name, sink in document["sinks"].items() if sink["queue"] == "redis"]
    if not shared:
        return []
    more = len(shared) - MOST_NAMES
    listed = ", ".join(shared[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    whose = "Sinks" if len(shared) == len(document["sinks"]) else f"Sinks with a queue in Redis ({escape(listed)})"
    others = "Sources and routes" if whose == "Sinks" else "Everything else"
    return [
        Text(f"{whose}: the counts are in Redis. They include all routers, and survive a restart."),
        Text(f"{others}: the counts are those of this process since its start."),
    ]


def _routes(document: Document, rates: Rates | None) -> list[RenderableType]:
    """Return the table of the routes with the most events."""
    from rich.text import Text

    # A router of an older version reports no `routes`, because it does not count the events of routes.
    events = {name: route["events"] for name, route in document.get("routes", {}).items()}
    shown = set(sorted(events, key=lambda name: -events[name])[:MOST_ROUTES])
    rows = [
        {
            "route": name,
            "events": _number(number),
            **({"/s": rates.of("routes", name, "events")} if rates else {}),
        }
        for name, number in events.items()
        if name in shown
    ]
    found: list[RenderableType] = []
    if rows:
        columns = [Column(name, number=place > 0) for place, name in enumerate(rows[0])]
        found.append(Table(columns, [list(row.values()) for row in rows]))
    if hidden := len(events) - len(shown):
        others = _number(sum(number for name, number in events.items() if name not in shown))
        found.append(Text(f"{counted(hidden, 'more route')} (events together: {others}); --json has each route"))
    return found


def _table(rows: Sequence[Mapping[str, Cell | str]], most_important: Sequence[str]) -> Table:
    """Return a table of rows, which are mappings by column.

    If the terminal is too narrow, columns with only zeros are left out first, then the least important columns. The
    first two columns always stay.
    """
    names = list(rows[0]) if rows else []
    columns = []
    for place, name in enumerate(names):
        rank = max(most_important.index(name) - 1, 0)
        zeros = all(row[name] in {"0", ""} for row in rows)
        columns.append(Column(name, rank + (len(names) if zeros and rank else 0), number=place > 1))
    return Table(columns, [list(row.values()) for row in rows])


def _counted(document: Document) -> Mapping[str, Any]:
    """Return all counters of a status document: the books of sources and sinks, and the routes."""
    return {**document["books"], "routes": document.get("routes", {})}


def _health(sink: Document) -> Cell:
    if sink["breaker_open"]:
        return Cell("breaker open", "bold red")
    return Cell("failing", "bold red") if sink["fault"] else Cell("ok", "green")


def _books(document: Document) -> Text:
    from rich.text import Text

    if document["balanced"]:
        return Text("The books balance.", style="green")
    return Text("THE BOOKS DO NOT BALANCE, which is a fault of the router.", style="bold red")


def _console() -> Console:
    return console(width=10_000, markup=False)


def _number(number: int) -> str:
    return f"{number:,}"


def _mebibytes(size: int) -> str:
    """Return a size in MiB, rounded up to a tenth: `0` means that there are no bytes."""
    return f"{math.ceil(size * 10 / 1024**2) / 10:,.1f} MiB" if size else "0"


def _pending(pending: int, delayed: int) -> Cell | str:
    if not delayed:
        return _number(pending)
    return Cell(f"{pending:,} ({delayed:,} to be retried)", "yellow", _number(pending))


def _by_reason(book: Document, column: str, colour: str) -> Cell | str:
    """Return a number with its reasons."""
    reasons = book["by_reason"][column]
    total = _number(book[column])
    if not reasons:
        return total
    parts = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
    return Cell(parts if len(reasons) == 1 else f"{total}: {parts}", colour, total)
