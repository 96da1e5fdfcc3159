"""The cost of a POST: pub/sub → schema → route → Redis queue → one HTTP request for each event, 32 at a time.

Requests are made by the sink `webhook`, unsigned and signed, by the sink `chat`, and by a plugin of a few lines.

The endpoint responds after 30 ms, so 32 workers make at most 32 requests in 30 ms. A program that reaches this rate
has the ideal time. The time is measured from the first publish to the last response. The base is a bare program that
posts the published messages with aiohttp.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    HERE,
    NEVER_FULL,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    free_port,
    listens,
    publishes,
    router,
    running,
    send,
    server,
    wait_for,
)
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

BARE, UNSIGNED, SIGNED, CHAT, PLUGIN = "bare aiohttp", "unsigned", "signed", "chat sink", "own plugin"
WORKERS = 32
WARM_UP = 200
MOST_TIME = 1.066
"""The goal for the time, as a multiple of the ideal: 1,000 requests of 30 ms in one second."""
MOST_CPU = 1.25
"""The goal for the CPU time of a signed post, as a multiple of the CPU time of an unsigned post."""
MOST_CHAT, MOST_PLUGIN = 1.35, 1.15
"""The goals for the CPU time of a post by the chat sink and by a plugin, as multiples of that of the bare program."""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PARTS = str(HERE / "http_parts.py")
WEBHOOK = {"type": "webhook", "body": "raw"}
TEXT = "{{ payload.message }}"
POSTER = """
from router.api import SinkOptions, hookimpl


class Options(SinkOptions):
    url: str


async def post(event, options, context):
    headers = {"Content-Type": "application/json"}
    answer = await context.http.request("POST", options.url, data=event.raw, headers=headers)
    return f"HTTP {answer.status}"


@hookimpl
def register_sinks(register):
    register("poster", post, options=Options, queue="redis")
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=1_000, help="events of one measurement")
    parser.add_argument(
        "--answer-after", type=float, default=0.03, metavar="SECONDS", help="the time after which the endpoint responds"
    )


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the bare program, and the router with each kind of request."""
    chosen = []
    kinds: dict[str, tuple[str | None, float | None, Begin]] = {
        BARE: (None, None, _bare),
        UNSIGNED: (BARE, None, partial(_router, WEBHOOK)),
        SIGNED: (UNSIGNED, MOST_CPU, partial(_router, {**WEBHOOK, "signing_secret": SECRET})),
        CHAT: (BARE, MOST_CHAT, partial(_router, {"type": "chat", "service": "slack", "text": TEXT})),
        PLUGIN: (BARE, MOST_PLUGIN, partial(_router, {"type": "poster"})),
    }
    for name, (base, most, begin) in kinds.items():
        figures = [
            Figure(
                _time(name),
                "ideals",
                base=_time(BARE) if base else None,
                goal=MOST_TIME if base else None,
                goal_of="value",
            ),
            Figure(_cpu(name), "µs CPU/event", base=_cpu(base) if base else None, goal=most),
        ]
        chosen.append(Case(name, figures, partial(measure, name, options.events, options.answer_after, begin)))
    return chosen


def _time(name: str) -> str:
    return f"{name}: time"


def _cpu(name: str) -> str:
    return f"{name}: CPU"


Begin = Callable[[Path, Server, str, Path], "contextlib.AbstractContextManager[int]"]
"""A function that starts a poster and yields its process id.

The arguments are the command, the Redis server, the URL and a working folder.
"""


@contextlib.contextmanager
def _bare(_command: Path, at: Server, url: str, _folder: Path) -> Iterator[int]:
    with running([sys.executable, PARTS, "bare", str(at.port), url, str(WORKERS)]) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1])
        yield process.pid


@contextlib.contextmanager
def _router(kind: dict[str, Any], command: Path, at: Server, url: str, folder: Path) -> Iterator[int]:
    queue = {"type": "redis", **NEVER_FULL}
    sinks = {"hook": {**kind, "url": url, "allow_private": True, "concurrency": WORKERS, "queue": queue}}
    if kind["type"] == "poster":
        (folder / "plugins").mkdir()
        (folder / "plugins" / "poster.py").write_text(POSTER)
    routes = [{"id": "everything", "sinks": ["hook"]}]
    with router(command, configuration(at, folder, sinks=sinks, routes=routes), folder) as pid:
        yield pid


def measure(name: str, events: int, seconds: float, begin: Begin, command: Path) -> Turns:
    """Measure the time and the CPU time of posting a number of events."""
    with ExitStack() as stack:
        at = stack.enter_context(server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        out = folder / "answers"
        stack.enter_context(running([sys.executable, PARTS, "endpoint", str(port), str(seconds), str(out)]))
        wait_for(lambda: listens(port), what="the endpoint")
        pid = stack.enter_context(begin(command, at, f"http://127.0.0.1:{port}/hook", folder))
        return (yield from _measure(name, events, seconds, at, Lines(out, pid)))


def _measure(
    name: str, events: int, seconds: float, at: Server, lines: Lines
) -> Generator[None, None, dict[str, Reading]]:
    send(at, publishes([CHANNEL], WARM_UP))
    lines.need(WARM_UP)
    messages = publishes([CHANNEL], events)
    yield
    before, began = cpu_seconds(lines.pid), time.monotonic()
    send(at, messages)
    lines.need(WARM_UP + events, every=0.002)
    took, used = time.monotonic() - began, cpu_seconds(lines.pid) - before
    ideal = events / WORKERS * seconds
    return {
        _time(name): Reading(took / ideal if ideal else 0.0, {"s": took}),
        _cpu(name): Reading(used / events * 1e6, {}),
    }


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → Redis queue → webhook", 5, arguments, cases, base="base"
)
