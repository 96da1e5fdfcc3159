"""Runs the real command as a process: its output with deadlines, its signals, and a stand-in for the service manager."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.forked import Forked, usual
from tests.support.waiting import PATIENCE, Told, wait_until

COMMAND = (sys.executable, "-m", "router.cli.main")
ROOT = Path(__file__).resolve().parents[2]

AT_START = ("LANG", "LC_", "LD_", "PYTHON", "SSL_")
"""How the names of variables begin which Python or the system reads when a process starts, and a fork can't read again."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment: nothing of the caller's but the path, and its state and home under `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return (
        kept | {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONPATH": str(ROOT)} | dict(extra or {})
    )


Running = subprocess.Popen[bytes] | Forked


def launch(
    words: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    streams: Sequence[int],
    *,
    session: bool = False,
    fresh: bool = False,
) -> Running:
    """Start a command with these `streams`: its stdin, stdout and stderr.

    It is forked from a warm interpreter, unless a variable or `fresh` asks for one of its own. `session` gives it a session.
    """
    variables = {name for name, value in env.items() if name.startswith(AT_START) and value != usual().get(name)}
    if not (fresh or variables):
        return Forked(words, cwd, env, streams, session=session)
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        [*COMMAND, *words], cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=session
    )


def run(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = PATIENCE,
    fresh: bool = False,
) -> Finished:
    """Run the command to its end in the folder `cwd`, which is its home too; `fresh` is that of `launch`."""
    pipes = [os.pipe() for _ in range(3)]
    (read, write), (out, out_end), (err, err_end) = pipes
    words = [*map(str, arguments)]
    try:
        process = launch(words, cwd, environment(cwd, env), (read, out_end, err_end), fresh=fresh)
    finally:
        for end in (read, out_end, err_end):
            os.close(end)
    with ThreadPoolExecutor(3) as threads:
        threads.submit(_fed, write, stdin)
        outputs = [threads.submit(_output, end) for end in (out, err)]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    done = Finished(code, *(each.result() for each in outputs))
    assert "Traceback (most recent call last)" not in done.err, done.err
    return done


def _fed(descriptor: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError), open(descriptor, "w", encoding="utf-8") as stream:  # a pipe
        stream.write(text)


def _output(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as stream:  # a pipe
        return stream.read()


class NotifySocket:
    """The service manager's end of `$NOTIFY_SOCKET`: keeps every datagram.

    `address` is a path, or a name of the abstract namespace after an `@`, which no temporary folder makes too long.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[str] = []
        self.times: list[float] = []
        """When each came, by the monotonic clock."""
        self._marks: set[str] = set()
        self._name = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            if data.startswith(b"MARK="):
                self._marks.add(data.decode())
                continue
            self.times.append(time.monotonic())
            self.messages.append(data.decode())

    def catch_up(self) -> None:
        """Return when everything sent so far has come: what is sent to a socket comes in order."""
        mark = f"MARK={time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(mark.encode(), self._name)
        wait_until(lambda: mark in self._marks, "the manager to read on")

    def seen(self, assignment: str) -> bool:
        """Whether a datagram with this line has come."""
        return any(assignment in message.splitlines() for message in self.messages)

    def wait(self, assignment: str) -> None:
        """Return when it has come."""
        wait_until(lambda: self.seen(assignment), Told(lambda: f"{assignment} among {self.messages}"))

    def wait_part(self, text: str) -> None:
        """Return when a datagram with this text in it has come."""
        wait_until(
            lambda: any(text in message for message in self.messages), Told(lambda: f"{text} in {self.messages}")
        )

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._name)
        self._thread.join(PATIENCE)
        self._socket.close()


class Process:
    """The command while it runs. A context manager: at the end it is stopped, by force if need be.

    With `notify` it runs as under a service manager, whose end is `self.notify`.
    """

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        notify: bool = False,
        fresh: bool = False,
    ) -> None:
        self.arguments: Sequence[str] = [*COMMAND, *map(str, arguments)]
        self.notify: NotifySocket | None = None
        variables = environment(cwd, env)
        if notify:
            self.notify = NotifySocket(f"@event-router-test-{os.getpid()}-{time.monotonic_ns()}")
            variables["NOTIFY_SOCKET"] = self.notify.address
        self._out: list[str] = []
        self._err: list[str] = []
        (out, out_end), (err, err_end), stdin = os.pipe(), os.pipe(), os.open(os.devnull, os.O_RDONLY)
        streams = (stdin, out_end, err_end)
        try:
            self._process = launch(self.arguments[len(COMMAND) :], cwd, variables, streams, session=True, fresh=fresh)
        finally:
            for end in streams:
                os.close(end)
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((out, self._out), (err, self._err))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(descriptor: int, lines: list[str]) -> None:
        with open(descriptor, encoding="utf-8") as stream:  # a pipe
            lines.extend(stream)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        """What came on stdout so far."""
        return "".join(self._out)

    @property
    def err(self) -> str:
        """What came on stderr so far."""
        return "".join(self._err)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, pattern: str, *, stream: str = "err") -> re.Match[str]:
        """Wait for what the pattern matches in `err` or `out`, and return the match."""

        def found() -> re.Match[str] | None:
            ended = not self.running
            if ended:
                self._drained()
            match = re.search(pattern, getattr(self, stream))
            assert match or not ended, f"ended with {self._process.returncode} before {pattern!r}{self._story()}"
            return match

        match = wait_until(found, Told(lambda: f"{pattern!r}{self._story()}"))
        assert match
        return match

    def _story(self) -> str:
        return f"\n--- out\n{self.out}\n--- err\n{self.err}"

    def _drained(self) -> None:
        for reader in self._readers:
            reader.join(PATIENCE)

    def wait_ready(self) -> None:
        """Wait until the daemon has told the service manager that it is ready; only with `notify`."""
        notify = self.notify
        assert notify

        def ready() -> bool:
            running, seen = self.running, notify.seen("READY=1")
            assert running or seen, f"ended with {self._process.returncode} before READY\n{self.err}"
            return seen

        wait_until(ready, Told(lambda: f"READY\n{self.err}"))

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and return the exit code (negative: a signal's number)."""
        code = self._process.wait(timeout)
        self._drained()
        return code

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, then `wait`."""
        self.signal()
        return self.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._drained()
        if self.notify:
            self.notify.close()
