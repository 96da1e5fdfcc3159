"""The cost of a lookup for a delivery: pub/sub → route → log file, with a field of a record in each line.

The records are hashes in Redis, one for each user. In some cases, all events are for one user, so that the record is
always in the cache. In the other cases, each event is for the next user, and the cache has room for a tenth of the
records, so that the record is never in the cache. The base is the same deliveries without a lookup, once with the
queue in memory and once in Redis. Every output line is compared with its record. A wrong line ends the benchmark.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    log_sink,
    router,
    send,
    server,
    split,
    wire,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

UNIT = "µs CPU/delivery"
PARTS = 4
"""The number of turns of a case."""

WARM_UP = 1_000
STEP = 0.005
"""Seconds between two sends at a steady rate."""


@dataclass(frozen=True)
class Kind:
    """The deliveries of one case: the type of queue, and whether the user is looked up."""

    title: str
    queue: str
    looks_up: bool
    repeats: bool = False
    """True if all events are for one user, whose record is in the cache."""

    @property
    def base(self) -> str | None:
        """The name of the case without a lookup. None for a case that has no lookup itself."""
        return f"queue in {self.queue}, no lookup" if self.looks_up else None


def kinds() -> dict[str, Kind]:
    """Return the cases, by the names that `--only` takes."""
    return {
        f"{queue.lower()}-{name}": Kind(f"queue in {queue}, {title}", queue, looks_up, repeats)
        for queue in ("memory", "Redis")
        for name, title, looks_up, repeats in (
            ("none", "no lookup", False, False),
            ("hit", "always in the cache", True, True),
            ("miss", "never in the cache", True, False),
        )
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=100_000, help="how many events a case gets")
    parser.add_argument("--users", type=int, default=100_000, help="how many hashes there are")
    parser.add_argument("--rate", type=int, default=0, help="events per second; 0 for as fast as the server takes them")
    parser.add_argument("--only", nargs="+", choices=[*kinds()], help="measure only these cases")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the chosen cases."""
    chosen = {name: kind for name, kind in kinds().items() if not options.only or name in options.only}
    measured = {kind.title for kind in chosen.values()}
    return [
        Case(
            kind.title,
            [_figure(kind, measured)],
            partial(measure, kind, options.events, options.users, options.rate),
        )
        for kind in chosen.values()
    ]


def _figure(kind: Kind, measured: set[str]) -> Figure:
    based = kind.base in measured
    return Figure(kind.title, UNIT, base=kind.base if based else None, goal=2 if based else None)


def measure(kind: Kind, events: int, users: int, rate: int, command: Path) -> Turns:
    """Measure the cost of a delivery."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _add_users(at, users)
        numbers = [0 if kind.repeats else each % users for each in range(WARM_UP + events)]
        messages = [_message(number) for number in numbers]
        sink = log_sink(folder, kind.queue.lower()) | {"template": _TEMPLATE[kind.looks_up]}
        lookups = {"user": {"type": "redis-hash", "key": "user:{{ payload.user_id }}", "ttl": "1h"}}
        config = configuration(at, folder, schemas=[], sinks={"audit": sink}, lookups=lookups)
        with router(command, config, folder) as pid:
            lines = Lines(folder / "out", pid)
            send(at, messages[:WARM_UP])
            lines.need(WARM_UP)
            used = 0.0
            for part in split(messages[WARM_UP:], PARTS):
                yield
                came, before = lines.count(), cpu_seconds(pid)
                _send(at, part, rate)
                lines.wait(came + len(part), every=0.01)
                used += cpu_seconds(pid) - before
            got = lines.count() - WARM_UP
            _compare(folder / "out", [_line(number) for number in numbers])
            return {kind.title: Reading(used / max(got, 1) * 1e6, {"lost": events - got})}


def _add_users(at: Server, users: int) -> None:
    pipeline = at.client.pipeline(transaction=False)
    for number in range(users):
        fields: dict[Any, Any] = {
            "name": _name(number),
            "email": f"user{number}@example.org",
            "telegram": number,
            "wants_mail": "yes",
        }
        pipeline.hset(f"user:{number}", mapping=fields)
        if number % 1_000 == 999:
            pipeline.execute()
    pipeline.execute()


def _name(number: int) -> str:
    return f"User {number * 7919}"


def _message(number: int) -> bytes:
    body = b'{"user_id": %d, "name": "%b", "message": "Your parcel has arrived"}' % (number, _name(number).encode())
    return wire(b"PUBLISH", CHANNEL.encode(), body)


_TEMPLATE = {
    False: "{{ payload.user_id }} {{ payload.name }}",
    True: "{{ payload.user_id }} {{ user.name }}",
}


def _line(number: int) -> str:
    return f"{number} {_name(number)}"


def _compare(file: Path, expected: Sequence[str]) -> None:
    """Raise `SystemExit` if the file contains an unexpected line."""
    wrong = set(file.read_text().splitlines()) - set(expected)
    if wrong:
        raise SystemExit(f"{len(wrong)} lines are wrong, among them: {min(wrong)}")


def _send(at: Server, commands: Sequence[bytes], rate: int) -> None:
    """Send commands as fast as the server accepts them, or at a number per second."""
    if not rate:
        send(at, commands)
        return
    with socket.create_connection(("127.0.0.1", at.port)) as connection:
        connection.sendall(wire(b"CLIENT", b"REPLY", b"OFF"))
        began, sent = time.monotonic(), 0
        while sent < len(commands):
            time.sleep(STEP)
            due = int((time.monotonic() - began) * rate)
            connection.sendall(b"".join(commands[sent:due]))
            sent = due
        connection.sendall(wire(b"CLIENT", b"REPLY", b"ON"))
        connection.recv(100)  # the server has executed everything


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → route → log file, whose lines hold a record's field", 3, arguments, cases, base="no lookup"
)
"""The figures of this benchmark."""
