"""The cost of conditions on the payload: pub/sub → routes with `match` or `when` → log file.

Each event meets the condition of one route. A thousand routes, each for a different tenant, are compared with ten such
routes. A thousand routes with a range of numbers each are compared with the same routes in a form that needs a
separate validator for each route.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import CHANNEL, Lines, configuration, cpu_seconds, router, send, server, split, wire
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

NONE = "no condition"
TEN = "10 tenants"
EACH = "1,000 ranges, a validator for each"
UNIT = "µs CPU/event"
PARTS = 4
"""The number of turns of a case."""

MANY = 1_000
SLOW = 20
"""The divisor of the number of events for very slow cases, which take hundreds of times as long per event."""


@dataclass(frozen=True)
class Kind:
    """The routes of one case: their number, and the keys of each route. `goal` is the maximum ratio to the base."""

    title: str
    routes: int
    keys: Callable[[int], dict[str, Any]]
    base: str | None = NONE
    goal: float | None = None
    events: int = 1
    """The divisor of the number of events."""


def kinds() -> dict[str, Kind]:
    """Return the cases, by the names that `--only` takes."""
    return {
        "none": Kind(NONE, 1, lambda _number: {}, None),
        "match": Kind("1 match", 1, lambda _number: {"match": {"message": {"prefix": "a"}, "amount": {"gte": 0}}}),
        "when": Kind("1 when", 1, lambda _number: {"when": "payload.amount >= 0 and payload.message"}),
        "10-tenants": Kind(TEN, 10, _tenant),
        "1000-tenants": Kind("1,000 tenants", MANY, _tenant, TEN, 2),
        "each": Kind(EACH, MANY, _range_by_itself, None, events=SLOW),
        "1000-ranges": Kind("1,000 ranges", MANY, _range, EACH, 0.6, events=SLOW),
    }


def _tenant(number: int) -> dict[str, Any]:
    return {"match": {"tenant": f"tenant-{number}"}}


def _range(number: int) -> dict[str, Any]:
    return {"match": {"amount": {"gte": number, "lt": number + 1}}}


def _range_by_itself(number: int) -> dict[str, Any]:
    """Return the condition of `_range` in a form that the router can't evaluate together with other conditions."""
    return {"match": {"amount": {"not": {"not": {"gte": number, "lt": number + 1}}}}}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--events", type=int, default=100_000, help="how many events a case gets; a slow case gets fewer"
    )
    parser.add_argument("--only", nargs="+", choices=[*kinds()], help="measure only these cases")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the chosen cases."""
    return [
        Case(
            kind.title,
            [Figure(kind.title, UNIT, base=kind.base, goal=kind.goal)],
            partial(measure, kind, max(options.events // kind.events, PARTS)),
        )
        for name, kind in kinds().items()
        if not options.only or name in options.only
    ]


def messages(events: int, routes: int) -> list[bytes]:
    """Return commands that publish this number of events. The events fit the routes one after another."""
    form = b'{"tenant": "tenant-%d", "amount": %d.5, "message": "an order of 90 bytes, for a tenant"}'
    return [wire(b"PUBLISH", CHANNEL.encode(), form % (each % routes, each % routes)) for each in range(events)]


def measure(kind: Kind, events: int, command: Path) -> Turns:
    """Measure the cost of an event with these routes."""
    routes: Sequence[dict[str, Any]] = [
        {"id": f"route-{number}", "sinks": ["audit"], **kind.keys(number)} for number in range(kind.routes)
    ]
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with router(command, configuration(at, folder, routes=routes, schemas=[]), folder) as pid:
            lines = Lines(folder / "out", pid)
            warm_up = messages(min(events, kind.routes), kind.routes)
            send(at, warm_up)
            lines.need(len(warm_up))
            came, used = lines.count(), 0.0
            for part in split(messages(events, kind.routes), PARTS):
                yield
                before = cpu_seconds(pid)
                send(at, part)
                came = lines.wait(came + len(part))[0]
                used += cpu_seconds(pid) - before
            got = came - len(warm_up)
            return {kind.title: Reading(used / max(got, 1) * 1e6, {"lost": events - got})}


BENCHMARK = Benchmark(str(__doc__), "pub/sub → routes with conditions → log file", 3, arguments, cases, base=NONE)
