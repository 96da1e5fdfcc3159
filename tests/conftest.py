"""Fixtures that every test may ask for: real servers, a clock."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from tests.support.redis import KINDS, RedisServer, binary

# How long an example takes says how busy the machine is. What is too slow hangs, and the limit of each test ends that.
# Every run has other examples, so half of the usual number finds as much in two runs.
hypothesis.settings.register_profile(
    "suite", max_examples=50, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

BROKER = Path(__file__).parent / "broker"

DRAWN = {
    f"test_{name}.py"
    for name in (
        *("client", "courtesies", "dead_letters", "enqueuer", "letters", "link", "lists", "lists_handover", "orphans"),
        *("outage", "outbox", "passing", "pending", "queue", "queue_hostile", "queue_keep", "queue_recovery"),
        *("queue_rounds", "queues", "redis_pool"),
    )
}
"""Files of tests of the broker whose tests run on one kind of server each, drawn by their names: each file covers both kinds.

The other files run every test on both kinds, because they test what differs between servers: the counters of consumer groups,
subscriptions, restarts and the reports of a server.
"""

# The developer's own Redis is none of the tests'.
os.environ.pop("REDIS_URL", None)

# A shell without job control lets what it starts in the background ignore Ctrl-C, and every command that the tests start
# inherited that. Source: POSIX, Shell Command Language, 2.12.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Where no log is configured, structlog draws each traceback with all local variables, which takes seconds. Nobody looks at it.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback


class SystemClock:
    """The machine's own time, and `ahead` seconds more: a test that adds to them need not wait for them."""

    ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Undo what a test configured of logging: a logger that was used meanwhile would keep it for the tests that follow."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        for name, module in list(sys.modules.items()):
            log = getattr(module, "log", None) if name.startswith("router.") else None
            if log is not None:
                vars(log).pop("bind", None)


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="er-") as folder:
        yield Path(folder)


@pytest.fixture
def start_server(short_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a server: `start_server(kind="valkey", options={…}, tls=False)`. All are ended after the test."""
    servers: list[RedisServer] = []

    def start(kind: str = "valkey", **how: object) -> RedisServer:
        if binary(kind) is None:
            pytest.skip("redis-server is not installed on this machine")
        servers.append(RedisServer(kind, short_path / str(len(servers)), **how))  # type: ignore[arg-type]
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests their `kind` of server: every kind to those of the broker, one kind, drawn by its name, to any other.

    The servers differ in what the broker sees of them. Elsewhere a second run costs as much and shows nothing new.
    """
    if "kind" not in metafunc.fixturenames:
        return
    named = (mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if any(
        "kind" in (names if isinstance(names, (list, tuple)) else map(str.strip, names.split(","))) for names in named
    ):
        return  # the test says it by itself
    drawn = zlib.crc32(metafunc.definition.nodeid.encode()) % len(KINDS)
    path = metafunc.definition.path
    every = BROKER in path.parents and path.name not in DRAWN
    metafunc.parametrize("kind", KINDS if every else [KINDS[drawn]])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw cases of the tests marked `drawn(share)`, which cost much CPU, by the random seed of the run, which pytest prints.

    Without a seed (`-p no:randomly`), all cases run.
    """
    seed = config.getoption("randomly_seed", None)
    left_out = [item for item in items if seed is not None and _left_out(item, seed)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _left_out(item: pytest.Item, seed: int) -> bool:
    marker = item.get_closest_marker("drawn")
    return marker is not None and zlib.crc32(f"{seed} {item.nodeid}".encode()) % marker.args[0] != 0


@pytest.fixture
def redis_server(kind: str, start_server: Callable[..., RedisServer]) -> RedisServer:
    """A server of each kind, fresh for this test."""
    return start_server(kind)
