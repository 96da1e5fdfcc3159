"""The cost of a long queue: deliveries wait in the Redis queue of a sink that is down, while another sink gets events.

The sink that is down is a plugin that fails as long as a file exists. First, the queue of this sink is filled. Then
events for a log sink are published at a steady rate. Their latency is compared with the latency beside an empty queue.
Finally, the file is removed, and the queue drains. `--waiting 1000000` takes several minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    HERE,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    log_sink,
    peak_mib,
    publishes,
    router,
    running,
    send,
    server,
    wait_for,
)
from benchmarks.peers import followed
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

EMPTY = "an empty queue"
MOST = 2
"""The goal for the latency, as a multiple of the latency beside an empty queue."""
HELD = f"{CHANNEL}.held"
"""The channel of the events for the sink that is down."""

PLUGIN = '''"""A sink that is down as long as a file exists."""

import os

from router.api import SinkOptions, TransientError, hookimpl


class GateOptions(SinkOptions):
    path: str
    down: str


class Gate:
    def __init__(self, options):
        self._down = options.down
        self._file = os.open(options.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def deliver_batch(self, batch):
        if os.path.exists(self._down):
            raise TransientError("the service is down")
        os.write(self._file, b"\\n" * len(batch))


@hookimpl
def register_sinks(register):
    register("gate", Gate, options=GateOptions)
'''


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--waiting", type=int, default=50_000, help="how many deliveries wait")
    parser.add_argument("--rate", type=int, default=1_000, help="new events for the log sink, per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="for how many seconds new events are published")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return an empty and a long queue."""
    long = f"{options.waiting:,} waiting"
    play = partial(measure, rate=options.rate, seconds=options.seconds)
    return [
        Case(EMPTY, [Figure(_latency(EMPTY), "ms")], partial(play, EMPTY, 0)),
        Case(
            long,
            [
                Figure(_latency(long), "ms", base=_latency(EMPTY), goal=MOST),
                Figure(f"{long}: drained", "µs CPU/delivery"),
                Figure(f"{long}: memory of Redis", "bytes/delivery"),
            ],
            partial(play, long, options.waiting),
        ),
    ]


def _latency(title: str) -> str:
    return f"p99 of fresh events, {title}"


def sections(folder: Path, waiting: int) -> dict[str, Any]:
    """Return the special sections of the configuration: the sink that is down, and a route for each sink."""
    gate = {
        "type": "gate",
        "path": str(folder / "drained"),
        "down": str(folder / "down"),
        "queue": {"type": "redis", "max_events": waiting + 10_000, "max_bytes": "8GiB"},
        "breaker": {"failures": 5, "reset": "1s"},
        "retry": {"initial": "1s", "max_delay": "1s"},
    }
    return {
        "sources": {"bench": {"type": "pubsub", "channels": [CHANNEL, HELD]}},
        "sinks": {"audit": log_sink(folder), "gate": gate},
        "routes": [
            {"id": "fresh", "channels": [CHANNEL], "sinks": ["audit"]},
            {"id": "held", "channels": [HELD], "sinks": ["gate"]},
        ],
    }


def measure(title: str, waiting: int, command: Path, *, rate: int, seconds: float) -> Turns:
    """Measure the latency while `waiting` deliveries wait, and then the rate at which these deliveries are made."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "plugins").mkdir(mode=0o755)
        (folder / "plugins" / "gate.py").write_text(PLUGIN)
        (folder / "down").touch()
        with router(command, configuration(at, folder, **sections(folder, waiting)), folder) as pid:
            yield
            took = latencies(at, folder / "out", 200, 1.0)  # the first lines open the file
            empty = _memory(at)
            fill(at, waiting)
            held = _memory(at)
            took = latencies(at, folder / "out", rate, seconds)
            p99 = sorted(took)[int(len(took) * 0.99)]
            readings = {_latency(title): Reading(p99, {"peak MiB": peak_mib(pid)})}
            if waiting:
                used, per_second = yield from _drained(folder, pid, waiting)
                readings[f"{title}: drained"] = Reading(used / waiting * 1e6, {"per second": per_second})
                readings[f"{title}: memory of Redis"] = Reading((held - empty) / waiting)
            return readings


def fill(at: Server, waiting: int) -> None:
    """Publish events for the sink that is down, and wait until all their deliveries are in Redis."""
    chunk = 50_000
    for start in range(0, waiting, chunk):
        send(at, publishes([HELD], min(chunk, waiting - start)))
        wait_for(partial(_queued, at, min(start + chunk, waiting)), 300, "the queue")


def _queued(at: Server, wanted: int) -> bool:
    """Return True if this number of deliveries is in the queue. Deliveries that wait for a retry count too."""
    found = 0
    for key in at.client.scan_iter("*queue*gate*"):
        kind = at.client.type(key)
        found += int(at.client.xlen(key) if kind == b"stream" else at.client.zcard(key) if kind == b"zset" else 0)
    return found >= wanted


def _memory(at: Server) -> int:
    memory: Any = at.client.info("memory")
    return int(memory["used_memory"])


def latencies(at: Server, file: Path, rate: int, seconds: float) -> Sequence[float]:
    """Publish at a steady rate, and return for each event the milliseconds from publish to output line."""
    total = int(rate * seconds)
    file.touch()
    with file.open("rb") as out:
        out.seek(0, 2)
        arguments = [sys.executable, str(HERE / "steady.py"), str(at.port), str(rate), str(total)]
        with running(arguments) as publisher:
            took = list(followed(out, total))
            publisher.wait()
    return took


def _drained(folder: Path, pid: int, waiting: int) -> Generator[None, None, tuple[float, float]]:
    """Let the sink work again. Return the CPU seconds until the queue is empty, and the deliveries per second."""
    yield
    before, began = cpu_seconds(pid), time.monotonic()
    (folder / "down").unlink()
    Lines(folder / "drained", pid).need(waiting)
    return cpu_seconds(pid) - before, waiting / (time.monotonic() - began)


BENCHMARK = Benchmark(str(__doc__), "Deliveries that wait in Redis", 1, arguments, cases, base="empty")
