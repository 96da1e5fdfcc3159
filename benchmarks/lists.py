"""The cost of an item of a list for the router and for the Redis server: list source → route → log file.

In a flood, all items are there at once. In a trickle, each item is pushed when the previous one has been delivered.
The base is a bare loop that moves an item, writes the item and removes the item. This is the minimum work of a
consumer that processes one item at a time and loses nothing. In a trickle, the server's cost of an item includes its
push.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import cast

from benchmarks.harness import (
    CHANNEL,
    HERE,
    Lines,
    Server,
    configuration,
    counted,
    cpu_seconds,
    log_sink,
    payload,
    router,
    running,
    send,
    server,
    wire,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

FLOOD, TRICKLE = "flood", "trickle"
PARTS = ("consumer", "server")
BASE = "bare loop"
UNIT = "µs CPU/item"
DEARER = 1.3
"""The goal: the maximum cost of an item of a trickle, as a ratio to the other command."""
WARM_UP = 100
AT_ONCE = 500
"""The number of items in one LPUSH."""

ASIDE = "bench-aside"
"""The Redis list with the names of the lists that were filled for floods."""
TURNS = 10


@dataclass(frozen=True)
class Play:
    """A flood or a trickle: its preparation, the measured function, and the commands of the benchmark itself."""

    prepare: Callable[[Server, int, int], None]
    run: Callable[[Server, Lines, int], float]
    own: Callable[[int], Mapping[str, int]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--flood", type=int, default=50_000, help="items of the flood")
    parser.add_argument("--trickle", type=int, default=3_000, help="items of the trickle")
    parser.add_argument("--queue", choices=("memory", "redis"), default="memory", help="where the sink's queue is")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return flood and trickle, each for the bare loop and for the router."""
    chosen = []
    for name, items in ((FLOOD, options.flood), (TRICKLE, options.trickle)):
        goal = DEARER if name == TRICKLE else None
        base = f"{name}, {BASE}"
        chosen.append(
            Case(base, [Figure(f"{base}: {part}", UNIT) for part in PARTS], partial(measure_base, base, name, items))
        )
        figures = [
            Figure(f"{name}: {part}", UNIT, base=f"{base}: {part}", goal=goal, goal_of="other") for part in PARTS
        ]
        chosen.append(Case(name, figures, partial(measure, name, items, options.queue)))
    return chosen


def measure(name: str, items: int, queue: str, command: Path) -> Turns:
    """Measure the router."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = configuration(
            at,
            folder,
            sources={"bench": {"type": "list", "keys": [CHANNEL]}},
            sinks={"audit": log_sink(folder, queue)},
        )
        with router(command, config, folder) as pid:
            readings = yield from _measure(PLAYS[name], items, at, Lines(folder / "out", pid))
    return _named(name, readings)


def measure_base(title: str, name: str, items: int, _command: Path) -> Turns:
    """Measure the bare loop."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        with running([sys.executable, str(HERE / "contenders.py"), "list", str(at.port), "-", str(out)]) as process:
            readings = yield from _measure(PLAYS[name], items, at, Lines(out, process.pid))
    return _named(title, readings)


def _named(title: str, readings: Sequence[Reading]) -> dict[str, Reading]:
    return {f"{title}: {part}": reading for part, reading in zip(PARTS, readings, strict=True)}


def _measure(play: Play, items: int, at: Server, lines: Lines) -> Generator[None, None, tuple[Reading, Reading]]:
    """Return the cost of an item for the consumer and for the server, and the number of commands per item.

    Each turn has a tenth of the items. The time between turns is included, because the consumer removes delivered items
    then. The commands are counted afterwards, with one more tenth.
    """
    trickle(at, lines, WARM_UP)
    part = max(items // TURNS, 1)
    play.prepare(at, part, TURNS + 1)
    yield
    before = [cpu_seconds(pid) for pid in (lines.pid, at.pid)]
    took = []
    for _ in range(TURNS):
        took.append(play.run(at, lines, part))
        yield
    used = [cpu_seconds(pid) - earlier for pid, earlier in zip((lines.pid, at.pid), before, strict=True)]
    consumer, at_server = (seconds / (part * TURNS) * 1e6 for seconds in used)
    with counted(at) as commands:
        play.run(at, lines, part)
    commands.sent.subtract(play.own(part))
    calls = {"sent/item": commands.sent.total() / part, "in scripts/item": commands.inside.total() / part}
    return Reading(consumer, {"ms each": median(took) * 1000}), Reading(at_server, calls)


def fill(at: Server, items: int, times: int) -> None:
    """Prepare `times` floods: push the items of each flood into a separate list, with the oldest item at the right end."""
    for number in range(times):
        batches = (range(start, min(start + AT_ONCE, items)) for start in range(0, items, AT_ONCE))
        send(at, [wire(b"LPUSH", b"bench-aside-%d" % number, *map(payload, batch)) for batch in batches])
        at.client.lpush(ASIDE, b"bench-aside-%d" % number)


def flood(at: Server, lines: Lines, items: int) -> float:
    """Give a filled list the name of the consumer's list, and wait for all lines. Return the seconds per item."""
    aside = cast("bytes", at.client.lpop(ASIDE))
    began, came = time.monotonic(), lines.count()
    at.client.rename(aside, CHANNEL)
    lines.need(came + items, every=0.005)
    return (time.monotonic() - began) / items


def trickle(at: Server, lines: Lines, items: int) -> float:
    """Push each item when the previous one has been delivered. Return the median of the seconds per item."""
    took, came = [], lines.count()
    for number in range(1, items + 1):
        began = time.monotonic()
        at.client.lpush(CHANNEL, payload(number))
        lines.need(came + number, every=0.0001)
        took.append(time.monotonic() - began)
    return median(took)


PLAYS = {
    FLOOD: Play(fill, flood, lambda _items: {"lpop": 1, "rename": 1}),
    TRICKLE: Play(lambda _at, _items, _times: None, trickle, lambda items: {"lpush": items}),
}


BENCHMARK = Benchmark(str(__doc__), "list → schema → route → log file", 7, arguments, cases, base=BASE)
