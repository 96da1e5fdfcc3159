"""The embedded server: a real `valkey-server` of our own for machines without a Redis; floor 4.

It runs as a process of its own on 127.0.0.1, its data in an append-only file under the state directory. It outlives a
router that is killed; the next one finds it by `embedded.json` and takes it over. Two locks keep that safe:

- the server process holds `embedded/server.lock` for as long as it lives (it inherits the open file from us), so no two
  servers ever write the same data, whoever started them and however their starters ended;
- each router that uses the server shares `embedded/users.lock`; the one that leaves last stops the server.

Everything here blocks for moments (a start takes about 0.1 s): call it before the event loop runs, or in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from router.broker.server.embedded_process import (
    HOST,
    PORT,
    RunningServer,
    arguments,
    binary,
    explained,
    find,
    free_port,
    info_of,
    noted,
    problem,
    rotated,
    sync_always,
)
from router.errors import ConfigError, UnavailableError

log = structlog.stdlib.get_logger(__name__)

START = 30.0
"""Seconds that a start may take, loading the data not included."""

LOADING = 120.0
"""Seconds that loading the data may take before a start returns all the same (the server answers LOADING then)."""

STOP = 15.0
"""Seconds that the server has to write its data and end."""

POLL = 0.02


class Embedded:
    """The embedded server as one router uses it, from `ensure` to `stop`.

    `state` is the state directory; `port` the port that is tried first; `appendfsync` is Redis's, `everysec` or `always`.
    """

    def __init__(self, state: Path, *, port: int = PORT, appendfsync: str = "everysec") -> None:
        self.running: RunningServer | None = None
        self.adopted = False
        """Whether it ran already when `ensure` came."""
        self._state = state
        self._folder = state / "embedded"
        self._port = port
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[bytes] | None = None
        self._users: int | None = None
        self._busy = threading.Lock()

    def ensure(self) -> RunningServer:
        """Take over the server that runs, or start one on its data.

        Raises `ConfigError` when it is not installed or can't read its data, `UnavailableError` when it does not answer.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._join()
        except OSError as error:
            raise problem(f"{self._folder} can't be used: {error.strerror or error}") from error
        try:
            self.running = self._found_or_started([self._port, *[0] * 9])
        except BaseException:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()  # interrupted while it started
                self._process.wait(STOP)
            self._leave()
            raise
        return self.running

    def restart(self) -> None:
        """Start the server again on the same port, after it died; does nothing while it lives, or after `stop`."""
        with self._busy:
            if self._users is not None and self.running is not None:
                self.running = self._found_or_started([self.running.port])

    def stop(self) -> None:
        """Stop the server, unless another router of this state directory uses it."""
        with self._busy:
            if self._users is None:
                return
            if _locked(self._users):
                self._end()
            else:
                self._forget()
            self._leave()

    async def supervise(self, every: float = 1.0) -> None:
        """Start the server again whenever it dies; runs until it is cancelled."""
        failures = 0
        while True:
            await asyncio.sleep(every * min(2**failures, 30))
            if await asyncio.to_thread(self._alive):
                failures = 0
                continue
            log.error("the embedded server has died; starting it again", folder=str(self._folder))
            try:
                await asyncio.to_thread(self.restart)
            except (ConfigError, UnavailableError) as error:
                failures = min(failures + 1, 5)
                log.error("the embedded server does not start", reason=str(error))  # noqa: TRY400  # no traceback for this
            else:
                log.warning("the embedded server runs again")

    def _alive(self) -> bool:
        """Return whether the server process lives: it holds its lock. (A server that is busy lives too.)"""
        if self._process is not None:
            self._process.poll()
        with _opened(self._folder / "server.lock") as lock:
            if not _locked(lock):
                return True
            _unlock(lock)
            return False

    def _found_or_started(self, ports: list[int]) -> RunningServer:
        """The running server, else a new one on the first of `ports` (0: any) that can be had."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if (found := find(self._state)) is not None:
                self.adopted = self._process is None
                if self.adopted and self._appendfsync == "always":
                    sync_always(found)
                return found
            with _opened(self._folder / "server.lock") as lock:
                if not _locked(lock):
                    time.sleep(POLL)  # another router is just starting it, or one that does not answer holds the data
                    continue
                if not ports:
                    raise UnavailableError("the embedded server finds no free port")
                if (started := self._try(ports.pop(0) or free_port(), lock)) is not None:
                    return started
        raise UnavailableError(
            f"a server process holds {self._folder} but does not answer; end it (see `pid` in {self._state}/embedded.json)"
        )

    def _try(self, port: int, lock: int) -> RunningServer | None:
        """Start the server on one port; None when the port is taken.

        The password of a server that died stays: routers that used it connect with it again.
        """
        if self._process is not None:
            self._process.wait(STOP)  # it has ended, else `lock` were not ours
        known = noted(self._state)
        password = (known and known.password) or secrets.token_urlsafe(32)
        output = self._folder / "valkey.log"
        begin = rotated(output)
        with _opened(output, os.O_APPEND) as file:
            self._process = subprocess.Popen(  # noqa: S603  # our own server, fixed arguments
                [binary(), *arguments(self._folder, port, password, self._appendfsync)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=[lock],
                umask=0o077,
            )
        # Noted before it answers: a router that is killed now leaves it to the next one all the same.
        self._note(RunningServer(HOST, port, self._process.pid, "", password))
        info = self._ready(port)
        if info is None:
            said = output.read_bytes()[begin:].decode(errors="replace")
            if "Address already in use" in said:
                return None
            raise problem(explained(said, self._folder))
        running = RunningServer(HOST, port, self._process.pid, info["run_id"], password)
        self._note(running)
        self.adopted = False
        return running

    def _note(self, running: RunningServer) -> None:
        _write(self._state / "embedded.json", msgspec.json.encode(running) + b"\n")

    def _ready(self, port: int) -> dict[str, str] | None:
        """Return what our new server tells of itself once it has loaded its data; None when it ended instead."""
        assert self._process is not None
        end, info = time.monotonic() + START, dict[str, str]()
        while True:
            time.sleep(POLL)  # a server that can't have its port ends at once, while asking that port may take long
            if self._process.poll() is not None:
                return None
            answer = info_of(port)
            if answer.get("process_id") == str(self._process.pid):
                end += LOADING if not info else 0
                info = answer
                if info.get("loading") == "0":
                    return info
            if time.monotonic() > end:
                if info:
                    return info
                self._process.kill()

    def _join(self) -> None:
        """Become one of the server's users; waits while the last one is just stopping it."""
        if self._users is None:
            self._users = os.open(
                self._folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            _unlock(users)
            os.close(users)

    def _end(self) -> None:
        """End the server and wait until its data is written; one that does not end by itself is killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._send(number)
            end = time.monotonic() + STOP
            while self._alive():
                if time.monotonic() > end:
                    break
                time.sleep(POLL)
            else:
                if self._process is not None and self._process.returncode is None:
                    self._process.wait(STOP)  # it gives its lock back a moment before its parent is told
                (self._state / "embedded.json").unlink(missing_ok=True)
                return
            log.warning("the embedded server does not end", seconds=STOP, signal=number.name)

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the server, whether it answers or not."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            return
        known = noted(self._state)
        if known is not None and (find(self._state) is not None or _works_in(known.pid, self._folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(known.pid, number)

    def _forget(self) -> None:
        """Leave our child running: another router uses it."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # it is not ours to wait for any more


def _works_in(pid: int, folder: Path) -> bool:
    """Return whether a process has this working directory, as our server has; False where the system can't say."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False


@contextlib.contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A file of ours, made when it isn't there, that nobody else may read."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Lock an open file; False when somebody else holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    """Give a lock back now: a child that is just being made would hold it for a moment longer than we do."""
    fcntl.flock(file, fcntl.LOCK_UN)


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old or the new one."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)
