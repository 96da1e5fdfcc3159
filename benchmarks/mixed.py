"""A mixed load over minutes: four sources, ten sinks (one hangs, one gets status 429), and a reload every ten seconds.

5,000 events per second come by pub/sub, a stream and a list. The latency is measured for the events of one channel
that go to a log file. The base is the same load without faults: every delivery succeeds, and nothing is reloaded. The
growth of memory is measured from the fifth minute on. In a short run, it is measured from the end of the first quarter
on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    HERE,
    NEVER_FULL,
    Server,
    configuration,
    free_port,
    listens,
    log_sink,
    peak_mib,
    router,
    running,
    server,
    wait_for,
    write,
)
from benchmarks.mixed_parts import timed
from benchmarks.peers import followed
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

QUIET, TROUBLED = "every sink answers", "one sink hangs, one answers 429, reloads"
MOST = 3
"""The goal for the latency, as a multiple of the latency without faults."""
MOST_GROWTH = 1.0
"""The goal for the growth of the memory, in MiB."""
SETTLED = 300.0
"""Seconds after which the memory must not grow."""
RELOAD_EVERY = 10.0
SHARE = 0.2
"""The share of the measured time whose median memory counts as its beginning and its end."""
PARTS = str(HERE / "mixed_parts.py")

PLUGIN = '''"""A sink that takes everything and does nothing."""

from router.api import SinkOptions, hookimpl


class NothingOptions(SinkOptions):
    note: str = ""


class Nothing:
    def __init__(self, options):
        pass

    async def deliver_batch(self, batch):
        return None


@hookimpl
def register_sinks(register):
    register("nothing", Nothing, options=NothingOptions)
'''


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--minutes", type=float, default=1.0, help="how long each case takes")
    parser.add_argument("--rate", type=int, default=5_000, help="events per second")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the load without and with faults."""
    play = partial(measure, seconds=options.minutes * 60, rate=options.rate)
    chosen = []
    for title, troubled in ((QUIET, False), (TROUBLED, True)):
        base = _latency(QUIET) if troubled else None
        figures = [
            Figure(_latency(title), "ms", base=base, goal=MOST if troubled else None),
            Figure(_growth(title), "MiB", goal=MOST_GROWTH if troubled else None, goal_of="value"),
        ]
        chosen.append(Case(title, figures, partial(play, title, troubled)))
    return chosen


def _latency(title: str) -> str:
    return f"p99 to the log, {title}"


def _growth(title: str) -> str:
    return f"growth of the memory, {title}"


def sections(folder: Path, port: int, *, troubled: bool, note: str = "") -> dict[str, Any]:
    """Return the sections of the configuration. `note` is different for each reload."""

    def hook(path: str) -> dict[str, Any]:
        options = {"allow_private": True, "body": "raw", "timeout": "2s", "concurrency": 4}
        return {"type": "webhook", "url": f"http://127.0.0.1:{port}/{path}", **options}

    def nothing(queue: str) -> dict[str, Any]:
        return {"type": "nothing", "note": note, "queue": {"type": queue, **NEVER_FULL}}

    memory, redis = [f"memory-{n}" for n in range(3)], [f"redis-{n}" for n in range(3)]
    return {
        "sources": {
            "timed": {"type": "pubsub", "channels": [CHANNEL]},
            "published": {"type": "pubsub", "channels": [f"{CHANNEL}.*"]},
            "added": {"type": "stream", "streams": [f"{CHANNEL}-stream"]},
            "pushed": {"type": "list", "keys": [f"{CHANNEL}-list"]},
        },
        "sinks": {
            "audit": log_sink(folder),
            **{name: nothing("memory") for name in memory},
            **{name: nothing("redis") for name in redis},
            "answering": hook("ok"),
            "hanging": hook("hang" if troubled else "ok"),
            "busy": hook("busy" if troubled else "ok"),
        },
        "routes": [
            {"id": "timed", "sources": ["timed"], "sinks": ["audit"]},
            {"id": "posts", "channels": [f"{CHANNEL}.posts"], "sinks": ["answering", "hanging", "busy"]},
            {"id": "published", "sources": ["published"], "sinks": memory},
            {"id": "kept", "sources": ["added", "pushed"], "sinks": redis},
        ],
    }


def measure(title: str, troubled: bool, command: Path, *, seconds: float, rate: int) -> Turns:
    """Measure the load for a number of seconds."""
    with ExitStack() as stack:
        at = stack.enter_context(server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "plugins").mkdir(mode=0o755)
        (folder / "plugins" / "nothing.py").write_text(PLUGIN)
        port = free_port()
        stack.enter_context(running([sys.executable, PARTS, "endpoint", str(port)]))
        wait_for(lambda: listens(port), what="the endpoint")
        config = configuration(at, folder, **sections(folder, port, troubled=troubled))
        pid = stack.enter_context(router(command, config, folder))
        yield
        watch = Watch(pid, partial(_reload, at, folder, port, pid) if troubled else None)
        took = _latencies(at, folder / "out", rate, seconds, watch)
        beside = {"peak MiB": peak_mib(pid), "reloads": float(watch.reloads)}
        p99 = sorted(took)[int(len(took) * 0.99)]
        return {_latency(title): Reading(p99, beside), _growth(title): Reading(watch.growth(seconds))}


def _reload(at: Server, folder: Path, port: int, pid: int, number: int) -> None:
    """Write a new configuration that differs from the old one, and make the router load the new one."""
    own = sections(folder, port, troubled=True, note=f"reload {number}")
    write(configuration(at, folder, **own), folder)
    os.kill(pid, signal.SIGHUP)


def _latencies(at: Server, file: Path, rate: int, seconds: float, watch: Watch) -> list[float]:
    file.touch()
    words = [sys.executable, PARTS, "load", str(at.port), str(rate), str(seconds)]
    with file.open("rb") as out, watch, running(words) as publisher:
        took = list(followed(out, timed(int(rate * seconds)), seconds + 60))
        publisher.wait()
    return took


class Watch:
    """A thread that measures the memory of a process once per second during the block, and causes the reloads."""

    def __init__(self, pid: int, reload: Any = None) -> None:
        self.reloads = 0
        self._pid = pid
        self._reload = reload
        self._samples: list[tuple[float, float]] = []
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            now = time.monotonic() - self._began
            self._samples.append((now, _resident_mib(self._pid)))
            if self._reload is not None and now >= (self.reloads + 1) * RELOAD_EVERY:
                self.reloads += 1
                self._reload(self.reloads)

    def growth(self, seconds: float) -> float:
        """Return the growth of the memory in MiB, without the first minutes, in which memory always grows."""
        begin = min(SETTLED, seconds / 4)
        kept = [mib for at, mib in self._samples if begin <= at < seconds]
        few = max(int(len(kept) * SHARE), 1)
        return median(kept[-few:]) - median(kept[:few]) if kept else 0.0


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


BENCHMARK = Benchmark(str(__doc__), "A mixed load", 1, arguments, cases, base="quiet")
