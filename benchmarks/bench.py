"""How dear one event is: the daemon from pub/sub through schema and route to the log file, beside a floor and a peer.

    python benchmarks/bench.py [--events 400000] [--rounds 3] [--json]

Machines differ and are busy, so what counts are the ratios within one run: CPU time per event (user and system, of the
process and its children) in floors, a floor being a bare loop that only reads the same publishes. Then the latency from
publish to line at a steady rate. Draws what it found to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
CHANNEL = "bench"
ROUTER, FLOOR, PEER = "event-router", "floor", "redis-py"
PEER_SHARE = 20  # the peer is that much slower: it gets a share of the events, or nobody would wait for it
PATIENCE = 5.0
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["event", "message", "user_id", "severity"],
    "properties": {
        "event": {"type": "string", "minLength": 1},
        "message": {"type": "string"},
        "user_id": {"type": "integer", "minimum": 1},
        "severity": {"enum": ["low", "medium", "high", "critical"]},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Run:
    """One contender's run: CPU microseconds per event, events per second, peak memory in MiB, events missing."""

    contender: str
    cpu_us: float
    per_second: float
    peak_mib: float
    missing: int


def payload(number: int) -> bytes:
    """A notification of 90 bytes."""
    return b'{"event": "signup", "message": "user %d signed up", "user_id": %d, "severity": "low"}' % (
        number,
        number + 1,
    )


def command(*parts: bytes) -> bytes:
    """A Redis command on the wire."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until the condition holds. Raises `SystemExit` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("a contender did not get ready in time")
        time.sleep(0.01)


@contextlib.contextmanager
def server() -> Iterator[redis.Redis]:
    """A Redis server of our own that never cuts a slow subscriber off."""
    binary = shutil.which("redis-server") or embedded_binary()
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        limits = ["--save", "", "--client-output-buffer-limit", "pubsub 0 0 0"]
        process = subprocess.Popen([binary, "--port", str(port), "--dir", folder, *limits], stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        try:
            wait_for(lambda: alive(client))
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait()


def embedded_binary() -> str:
    """The server that the extra `embedded` brings along."""
    from router.broker.server.embedded import binary

    return binary()


def alive(client: redis.Redis) -> bool:
    """Whether the server answers."""
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def port_of(client: redis.Redis) -> int:
    """The port of our server."""
    return int(client.connection_pool.connection_kwargs["port"])


@contextlib.contextmanager
def contender(name: str, client: redis.Redis, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A contender that has subscribed."""
    port, schema, out = port_of(client), folder / "schema.json", folder / "out"
    schema.write_text(json.dumps(SCHEMA))
    if name == ROUTER:
        configuration = folder / "config.yaml"
        configuration.write_text(json.dumps(router_config(port, folder)))  # JSON is YAML
        arguments = [str(Path(sys.executable).parent / "event-router"), "run", "-c", str(configuration)]
    else:
        arguments = [sys.executable, str(HERE / "contenders.py"), name, str(port), str(schema), str(out)]
    environment = {**os.environ, "STATE_DIRECTORY": str(folder)}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: client.pubsub_numsub(CHANNEL)[0][1] or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}")
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def router_config(port: int, folder: Path) -> dict[str, Any]:
    """What the router is told to do."""
    return {
        "version": 1,
        "redis": {"url": f"redis://127.0.0.1:{port}/0"},
        "sources": {"bench": {"type": "pubsub", "channels": [CHANNEL]}},
        "schemas": [{"channels": [CHANNEL], "file": "schema.json"}],
        "sinks": {"audit": {"type": "log", "path": str(folder / "out")}},
        "routes": [{"id": "everything", "sinks": ["audit"]}],
    }


def publish(client: redis.Redis, commands: list[bytes], window: int = 400) -> None:
    """Publish as fast as the server takes it, `window` commands at a time."""
    with socket.create_connection(("127.0.0.1", port_of(client))) as connection, connection.makefile("rb") as replies:
        for start in range(0, len(commands), window):
            part = commands[start : start + window]
            connection.sendall(b"".join(part))
            for _ in part:
                replies.readline()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    total, pids = 0, [pid]
    for each in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(field) for field in fields[11:15])
            pids += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
    return total / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most memory that the process had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def came_out(name: str, folder: Path) -> int:
    """How many events the contender has dealt with."""
    out = folder / "out"
    if not out.exists():
        return 0
    data = out.read_bytes()
    return int(data or 0) if name == FLOOR else data.count(b"\n")


def measure(name: str, events: int) -> Run:
    """Run one contender once."""
    commands = [command(b"PUBLISH", CHANNEL.encode(), payload(number)) for number in range(events)]
    warm_up = commands[: max(events // 100, 100)]
    with server() as client, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contender(name, client, folder) as process:
            publish(client, warm_up)
            wait_for(lambda: came_out(name, folder) >= len(warm_up))
            cpu, began = cpu_seconds(process.pid), time.monotonic()
            publish(client, commands)
            got, last = 0, time.monotonic()
            while got < events and time.monotonic() - last < PATIENCE:
                time.sleep(0.05)
                now = came_out(name, folder) - len(warm_up)
                if now != got:
                    got, last = now, time.monotonic()
            used = cpu_seconds(process.pid) - cpu
            rate = got / (last - began)
            return Run(name, used / max(got, 1) * 1e6, rate, peak_mib(process.pid), events - got)


def latencies(rate: int, seconds: float) -> list[float]:
    """Milliseconds from publish to line of each event, at a steady rate of publishes per second."""
    total = int(rate * seconds)
    with server() as client, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contender(ROUTER, client, folder):
            publish(client, [command(b"PUBLISH", CHANNEL.encode(), payload(0))])
            wait_for(lambda: came_out(ROUTER, folder))
            arguments = [sys.executable, str(HERE / "steady.py"), str(port_of(client)), str(rate), str(total)]
            with subprocess.Popen(arguments) as publisher, (folder / "out").open("rb") as file:
                file.readline()
                took = list(_followed(file, total))
                publisher.wait()
    return took


def _followed(file: BinaryIO, total: int) -> Iterator[float]:
    """Milliseconds that each line took: its message is when it was sent."""
    seen, rest, end = 0, b"", time.monotonic() + 60
    while seen < total:
        data = file.read()
        now = time.time()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield (now - float(json.loads(line)["payload"]["message"])) * 1000
        seen += len(lines)
        if time.monotonic() > end:
            raise SystemExit(f"{total - seen} of {total} events did not come out in time")
        time.sleep(0.0001)


def table(runs: list[Run]) -> Table:
    """The runs as a table, the floor first."""
    floor = next(run for run in runs if run.contender == FLOOR)
    drawn = Table(title="pub/sub → schema → route → log file")
    for heading in ("contender", "CPU µs/event", "floors", "events/s", "peak MiB", "missing"):
        drawn.add_column(heading, justify="left" if heading == "contender" else "right")
    for run in runs:
        floors = f"{run.cpu_us / floor.cpu_us:.1f}"
        drawn.add_row(
            run.contender,
            f"{run.cpu_us:.2f}",
            floors,
            f"{run.per_second:,.0f}",
            f"{run.peak_mib:.0f}",
            str(run.missing),
        )
    return drawn


def draw(runs: list[Run], file: Path) -> None:
    """The runs as a bar chart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.2))
    bars = axes.barh(
        [run.contender for run in runs], [run.cpu_us for run in runs], color=["#bbbbbb", "#d33682", "#268bd2"]
    )
    axes.bar_label(bars, fmt="%.2f µs", padding=4)
    axes.set_xscale("log")
    axes.set_xlim(right=max(run.cpu_us for run in runs) * 4)
    axes.set_xlabel("CPU µs per event (log scale; less is better)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file)


def best(name: str, events: int, rounds: int, progress: Progress) -> Run:
    """The cheapest of several runs: what is dearer was the machine's doing."""
    task = progress.add_task(name, total=rounds)
    runs = []
    for _ in range(rounds):
        runs.append(measure(name, events))
        progress.advance(task)
    return min(runs, key=lambda run: (run.missing > 0, run.cpu_us))


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=10_000, help="publishes a second while latency is measured")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    talk = Console(stderr=True)
    with Progress(console=talk, disable=not talk.is_terminal) as progress:
        runs = [
            best(FLOOR, arguments.events, arguments.rounds, progress),
            best(ROUTER, arguments.events, arguments.rounds, progress),
            best(PEER, arguments.events // PEER_SHARE, arguments.rounds, progress),
        ]
    took = sorted(latencies(arguments.rate, 5.0))
    latency = {f"p{share}": round(took[int(len(took) * share / 100)], 3) for share in (50, 99)}
    file = RESULTS / "pubsub.svg"
    draw(runs, file)
    if arguments.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "latency_ms": latency}))
    else:
        Console().print(table(runs))
        print(f"latency at {arguments.rate:,}/s: p50 {latency['p50']} ms, p99 {latency['p99']} ms")
        print(f"drawn to {file}")


if __name__ == "__main__":
    main()
