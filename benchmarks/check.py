"""The cost of routes for `check`: the CPU time of the command for one route and for a thousand.

A router with a thousand tenants has a thousand routes. In the first case each route has a `match` on its tenant. In the
second case the routes differ: some have a `when`, some a glob, and some replace an option of a mail sink.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import CHANNEL, log_sink, write
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

ONE = "1 route"
MOST = 3
"""The goal: the maximum cost of many routes, as a multiple of the cost of one route."""

Route = Callable[[int], dict[str, Any]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--routes", type=int, default=1_000, help="how many routes the large configurations have")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return one route, and many routes of both kinds."""
    many = f"{options.routes:,} routes"
    kinds: list[tuple[str, int, Route]] = [
        (ONE, 1, tenant),
        (f"{many}, a tenant for each", options.routes, tenant),
        (f"{many}, of several kinds", options.routes, various),
    ]
    return [
        Case(
            title,
            [Figure(title, "ms CPU") if title == ONE else Figure(title, "ms CPU", base=ONE, goal=MOST)],
            partial(measure, title, count, route),
        )
        for title, count, route in kinds
    ]


def tenant(number: int) -> dict[str, Any]:
    """Return the keys of a route for the events of one tenant."""
    return {
        "channels": [f"{CHANNEL}.{number}"],
        "match": {"severity": ["high", "critical"], "event": f"signup-{number}"},
        "sinks": ["audit"],
    }


def various(number: int) -> dict[str, Any]:
    """Return the keys of a route; five kinds of routes take turns."""
    kinds: list[dict[str, Any]] = [
        {"channels": [f"{CHANNEL}.{number}"], "sinks": ["audit"]},
        {"match": {"user_id": {"gte": number}, "severity": ["high", "critical"]}, "sinks": ["audit"]},
        {"when": f"payload.user_id > {number} and payload.severity == 'high'", "sinks": ["audit"]},
        {"channels": [f"{CHANNEL}.*.{number}"], "sinks": ["mail"]},
        {
            "channels": [f"{CHANNEL}.{number}"],
            "match": {"event": f"signup-{number}"},
            "sinks": [{"sink": "mail", "subject": f"Tenant {number}: {{{{ payload.event }}}}"}],
        },
    ]
    return kinds[number % len(kinds)]


def configuration(folder: Path, count: int, route: Route) -> dict[str, Any]:
    """Return a configuration with this number of routes. `check` does not connect to its server."""
    mail = {
        "type": "email",
        "host": "localhost",
        "from": "shop@example.org",
        "to": "user-{{ payload.user_id }}@example.org",
        "subject": "{{ payload.event }}",
        "text": "{{ payload.message }}",
    }
    return {
        "version": 1,
        "redis": {"url": "redis://127.0.0.1:1/0"},
        "sources": {"bench": {"type": "pubsub", "channels": [CHANNEL, f"{CHANNEL}.*"]}},
        "schemas": [{"channels": [CHANNEL, f"{CHANNEL}.*"], "file": "schema.json"}],
        "sinks": {"audit": log_sink(folder), "mail": mail},
        "routes": [{"id": f"route-{number}", **route(number)} for number in range(count)],
    }


def measure(title: str, count: int, route: Route, command: Path) -> Turns:
    """Measure `check` of a configuration with this number of routes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(configuration(folder, count, route), folder)
        yield
        return {title: Reading(checked(command, folder) * 1000)}


def checked(command: Path, folder: Path) -> float:
    """Run `check` of the configuration in a folder, and return its CPU time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(command), "check", "-c", str(folder / "config.yaml")], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


BENCHMARK = Benchmark(str(__doc__), "`check` of many routes", 5, arguments, cases, base=ONE)
