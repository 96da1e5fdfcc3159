"""Commands of event-router as processes, forked from a warm interpreter where that makes no difference to them."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A process that the fork server started; what it has of `subprocess.Popen` behaves as there."""

    def __init__(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int], *, session: bool
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._connection, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._told = b""
        with theirs:
            socket.send_fds(_server(), [b"+"], [theirs.fileno(), *streams])
        asked = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "session": session}
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        self.pid = int(self._line(None) or b"")

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(9)

    def _ended(self, timeout: float | None) -> int | None:
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return self.returncode  # another thread waits
        try:
            if self.returncode is None and (line := self._line(timeout)) is not None:
                self.returncode = int(line)
                self._connection.close()
        finally:
            self._lock.release()
        return self.returncode

    def _line(self, timeout: float | None) -> bytes | None:
        """The next number from the server, None if it does not come in time."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._told:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            if not poll.poll(None if end is None else max(0, end - time.monotonic()) * 1000):
                return None
            data = self._connection.recv(64)
            if not data:
                raise RuntimeError("the fork server has ended")
            self._told += data
        line, _, self._told = self._told.partition(b"\n")
        return line


def usual() -> dict[str, str]:
    """Return the variables of the fork server, whatever a test sets."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT)}


@cache
def _server() -> socket.socket:
    """The connection to the fork server of this process, which is started at the first use."""
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"], cwd=ROOT, env=usual(), stdin=theirs.fileno()
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
