"""The cost of an event if events come one at a time, so that each event wakes the router: pub/sub → … → log file.

Three jobs: 1,000 and 10,000 events a second with the queue in memory, and 1,000 a second through a Redis queue. The
base is a simple program for the same job. The router and the simple program run at the same time, each with its own
server, and get their events in turn (A B A B …). A line that is missing, out of order or wrong ends the benchmark.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    CHANNEL,
    HERE,
    SCHEMA,
    Lines,
    Server,
    configuration,
    counted,
    cpu_seconds,
    log_sink,
    payload,
    publishes,
    router,
    running,
    server,
    wait_for,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

BASE = "simple program"
PARTS = str(HERE / "trickle_parts.py")
TURNS = 10
WARM_UP = 500
COUNTED = 200
"""The number of events during which the commands to Redis are counted."""

ALONE = 1_000
"""Up to this rate per second, an event is published only after the line of the previous event has come."""


@dataclass(frozen=True)
class Job:
    """A job: its program in `trickle_parts`, the queue of the router's sink, events per second, and the goal."""

    name: str
    part: str
    queue: str
    rate: int
    goal: float


JOBS = (
    Job("log at 1,000/s", "log", "memory", 1_000, 1.25),
    Job("log at 10,000/s", "log", "memory", 10_000, 1.25),
    Job("Redis queue at 1,000/s", "durable", "redis", 1_000, 1.0),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each program gets events, for each job")
    parser.add_argument(
        "--only", nargs="+", type=int, choices=range(1, len(JOBS) + 1), help="measure only the jobs with these numbers"
    )


def cases(options: argparse.Namespace) -> list[Case]:
    """Return a case for each job."""
    chosen = JOBS if options.only is None else [JOBS[number - 1] for number in options.only]
    return [
        Case(
            job.name,
            [
                Figure(_base(job), "µs CPU/event"),
                Figure(job.name, "µs CPU/event", base=_base(job), goal=job.goal),
            ],
            partial(measure, job, max(int(job.rate * options.seconds), TURNS)),
        )
        for job in chosen
    ]


def _base(job: Job) -> str:
    return f"{job.name}: {BASE}"


class Contender:
    """A program that writes a line for each event, with its server. `used` is the CPU time of its turns in seconds."""

    def __init__(self, at: Server, out: Path, pid: int) -> None:
        self.at = at
        self.lines = Lines(out, pid)
        self.used = 0.0
        self.waits = 0
        self._out = out
        self._came = 0

    def turn(self, commands: Sequence[bytes], rate: int) -> None:
        """Publish events at a steady rate, and wait for their lines."""
        pid = self.lines.pid
        used, waits = cpu_seconds(pid), _waits(pid)
        if rate <= ALONE:
            publish(self.at, commands, rate, self._one_more)
        else:
            publish(self.at, commands, rate)
            self._came += len(commands)
            self.lines.need(self._came, every=0.005)
        self.used += cpu_seconds(pid) - used
        self.waits += _waits(pid) - waits

    def _one_more(self) -> None:
        """Wait for the line of the next event."""
        self._came += 1
        self.lines.need(self._came, every=0.0001)

    def commands(self, messages: Sequence[bytes], rate: int) -> dict[str, float]:
        """Publish the last events, and return the number of commands that Redis gets per event, without PUBLISH."""
        with counted(self.at) as commands:
            self.turn(messages[-COUNTED:], rate)
        commands.sent["publish"] = 0
        counts = {"sent/event": commands.sent.total(), "in scripts/event": commands.inside.total()}
        return {name: number / COUNTED for name, number in counts.items()}

    def check(self) -> None:
        """Raise `SystemExit` unless there is exactly one line for each event, in order and with its payload."""
        with self._out.open("rb") as file:
            found = [json.loads(line)["payload"]["message"] for line in file]
        expected = [json.loads(payload(number))["message"] for number in range(self._came)]
        if found != expected:
            raise SystemExit(f"{self._out}: {len(found)} lines, not the {self._came} expected ones in order")


def measure(job: Job, events: int, command: Path) -> Turns:
    """Measure the router and the simple program in turns. Each turn has a tenth of the events."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both = [stack.enter_context(begin(job, command, folder)) for begin in (_simple_program, _router)]
        part = events // TURNS
        messages = publishes([CHANNEL], WARM_UP + TURNS * part + COUNTED)
        for contender in both:
            contender.turn(messages[:WARM_UP], job.rate)
            contender.used, contender.waits = 0.0, 0
        for start in range(WARM_UP, WARM_UP + TURNS * part, part):
            yield
            for contender in both:
                contender.turn(messages[start : start + part], job.rate)
        readings = {}
        for contender, name in zip(both, (_base(job), job.name), strict=True):
            beside = {"waits/event": contender.waits / (TURNS * part)}
            readings[name] = Reading(
                contender.used / (TURNS * part) * 1e6, beside | contender.commands(messages, job.rate)
            )
            contender.check()
        return readings


@contextmanager
def _simple_program(job: Job, _command: Path, folder: Path) -> Iterator[Contender]:
    out, schema = folder / "base-out", folder / "base-schema.json"
    schema.write_text(json.dumps(SCHEMA))
    with server() as at, running([sys.executable, PARTS, job.part, str(at.port), str(schema), str(out)]) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1])
        yield Contender(at, out, process.pid)


@contextmanager
def _router(job: Job, command: Path, folder: Path) -> Iterator[Contender]:
    with server() as at:
        config = configuration(at, folder, sinks={"audit": log_sink(folder, job.queue)})
        with router(command, config, folder) as pid:
            yield Contender(at, folder / "out", pid)


def publish(at: Server, commands: Sequence[bytes], rate: int, sent: Callable[[], None] = lambda: None) -> None:
    """Send commands one at a time, at most `rate` per second. Call `sent` after each command.

    A late command delays all following commands. Without this delay, several commands would be sent together, and the
    measured program would wake up only once for all of them.
    """
    with socket.create_connection(("127.0.0.1", at.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"CLIENT REPLY OFF\r\n")
        due = time.monotonic()
        for command in commands:
            now = time.monotonic()
            if due > now:
                time.sleep(due - now)
            elif now - due > 1 / rate:
                due = now
            due += 1 / rate
            connection.sendall(command)
            sent()
        connection.sendall(b"CLIENT REPLY ON\r\n")
        connection.recv(100)


def _waits(pid: int) -> int:
    """Return the number of times that the process has waited so far.

    If a program waits once for each event, the result is 1 wait per event.
    """
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → log file, one event at a time", 5, arguments, cases, base="base"
)
