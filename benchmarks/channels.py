"""The cost of many channels and many routes: pub/sub → schema → route → log file.

One source reads all channels by one glob. First, one event is published on each channel, while the router has nothing
cached for the channel. Then a second event is published on each channel. In some cases, only the last route matches,
and all other routes have globs or names of other channels. In one case, each of 1,000 routes matches its share of the
channels. The last case is a burst, and counts the lost events: the server disconnects the router if it is too far
behind.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    Lines,
    configuration,
    cpu_seconds,
    peak_mib,
    publishes,
    router,
    send,
    server,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

ONE = "1 channel"
BURST = "burst"
ONCE, AGAIN = "first seen", "seen again"
UNIT = "µs CPU/event"
WARM_UP = 1_000
SHARES = 1_000
"""The number of groups of channels: channel n is `bench.<n modulo SHARES>.<n>`."""


@dataclass(frozen=True)
class Kind:
    """The globs or names of the routes of one case. `goal` is the maximum ratio to the case with one channel."""

    title: str
    channels: Sequence[str]
    goal: float


def kinds() -> dict[str, Kind]:
    """Return the cases with many channels, by the names that `--only` takes."""
    return {
        "glob": Kind("1 route", [f"{CHANNEL}.*"], 2),
        "100-globs": Kind("100 globs, one matches", _others(99, "shop-{}.*"), 3),
        "1000-globs": Kind("1,000 globs, one matches", _others(999, "shop-{}.*"), 3),
        "1000-shares": Kind(
            "1,000 globs, each matches its share", [f"{CHANNEL}.{share}.*" for share in range(SHARES)], 3
        ),
        "1000-names": Kind("999 names and one glob, which matches", _others(999, "shop-{}.orders"), 3),
    }


def _others(count: int, form: str) -> list[str]:
    """Return channels on which nothing is published, and then the glob that matches."""
    return [*(form.format(number) for number in range(count)), f"{CHANNEL}.*"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--channels", type=int, default=100_000, help="how many channels there are")
    parser.add_argument("--burst", type=int, default=300_000, help="events of the burst")
    parser.add_argument(
        "--only", nargs="+", choices=[*kinds(), BURST], help="measure only these cases, and the case with one channel"
    )


def cases(options: argparse.Namespace) -> list[Case]:
    """Return one channel, every case with many channels, and the burst."""
    many = f"{options.channels:,} channels"
    chosen = [
        Case(ONE, [Figure(ONE, UNIT)], partial(measure_one, 2 * options.channels)),
        *(
            Case(
                f"{many}, {kind.title}",
                [Figure(f"{many}, {kind.title}, {when}", UNIT, base=ONE, goal=kind.goal) for when in (ONCE, AGAIN)],
                partial(measure_many, f"{many}, {kind.title}", kind.channels, options.channels),
            )
            for name, kind in kinds().items()
            if not options.only or name in options.only
        ),
    ]
    if not options.only or BURST in options.only:
        title = f"a burst of {options.burst:,} over {many}, 1,000 routes: lost"
        figure = Figure(title, "events", goal=0, goal_of="value")
        chosen.append(Case(title, [figure], partial(measure_burst, title, options.burst, options.channels)))
    return chosen


def names(channels: int) -> list[str]:
    """Return the names of a number of channels."""
    return [f"{CHANNEL}.{number % SHARES}.{number}" for number in range(channels)]


def sections(routes: Sequence[str]) -> dict[str, Any]:
    """Return the special sections of the configuration: a source with one glob, and the routes."""
    return {
        "sources": {"bench": {"type": "pubsub", "channels": [f"{CHANNEL}.*"]}},
        "routes": [
            {"id": f"route-{number}", "channels": [channel], "sinks": ["audit"]}
            for number, channel in enumerate(routes)
        ],
    }


def measure_one(events: int, command: Path) -> Turns:
    """Measure the cost of an event if all events come on one channel."""
    (reading,) = yield from _measure(command, {}, [CHANNEL], [publishes([CHANNEL], events)])
    return {ONE: reading}


def measure_many(title: str, routes: Sequence[str], channels: int, command: Path) -> Turns:
    """Measure the cost of the first event of a channel, and of a later event of the same channel."""
    messages = publishes(names(channels), channels)
    once, again = yield from _measure(command, sections(routes), [f"{CHANNEL}.0.warm-up"], [messages, messages])
    return {f"{title}, {ONCE}": once, f"{title}, {AGAIN}": again}


def _measure(
    command: Path, own: Mapping[str, Any], warm_up: Sequence[str], parts: Sequence[Sequence[bytes]]
) -> Generator[None, None, list[Reading]]:
    """Send parts of the commands to a router that is warmed up, and return a reading for each part.

    Each part is one turn. A part is sent when the events of the previous part have been written.
    """
    readings = []
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with router(command, configuration(at, folder, **own), folder) as pid:
            lines = Lines(folder / "out", pid)
            send(at, publishes(warm_up, WARM_UP))
            lines.need(WARM_UP)
            for part in parts:
                yield
                before, came = cpu_seconds(pid), lines.count()
                send(at, part)
                got = lines.wait(came + len(part))[0] - came
                used = cpu_seconds(pid) - before
                beside = {"lost": len(part) - got, "peak MiB": peak_mib(pid)}
                readings.append(Reading(used / max(got, 1) * 1e6, beside))
    return readings


def measure_burst(title: str, events: int, channels: int, command: Path) -> Turns:
    """Publish as fast as the server accepts events, and count the events that are lost.

    The server has its default limits.
    """
    own = sections(kinds()["1000-globs"].channels)
    messages = publishes(names(channels), events)
    with server(cuts_off=True) as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with router(command, configuration(at, folder, **own), folder) as pid:
            lines = Lines(folder / "out", pid)
            yield
            send(at, messages)
            came, _ = lines.wait(events)
            return {title: Reading(events - came, {"peak MiB": peak_mib(pid), "cut off": at.cut_off})}


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → log file, on many channels", 3, arguments, cases, base=ONE
)
