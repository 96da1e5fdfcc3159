"""The embedded server: a real `valkey-server`, started by the router, for machines without a Redis; floor 4.

The server is a separate process on 127.0.0.1. Its data is an append-only file under the state directory. If the router
is killed, the server continues to run. The next router finds the server by the file `embedded.json`, and adopts the
server. Two locks make this safe:

- The server process holds the lock on `embedded/server.lock` as long as it lives, because it inherits the open file
  from the router. So two servers never write the same data, even if the router that started a server was killed.
- Each router that uses the server holds a shared lock on `embedded/users.lock`. The last router to leave stops
  the server.

All functions here except `supervise` block. For example, a start takes about 0.1 s. Call these functions before the
event loop runs, or in a thread.
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

from router.broker.embedded_server.embedded_process import (
    HOST,
    PORT,
    RunningServer,
    arguments,
    binary,
    explained,
    find,
    free_port,
    info_of,
    problem,
    recorded_server,
    rotated,
    sync_always,
)
from router.errors import ConfigError, UnavailableError

log = structlog.stdlib.get_logger(__name__)

START = 30.0
"""Seconds allowed for a start, without the time for loading the data."""

LOADING = 120.0
"""Seconds allowed for loading the data. After this time, a start returns although the server still answers LOADING."""

STOP = 15.0
"""Seconds allowed for the server to write its data and exit."""

POLL = 0.02
"""Seconds between two checks while waiting for the server."""


class Embedded:
    """The use of the embedded server by one router, from `ensure` to `stop`.

    `state` is the state directory and `port` the port to try first. `appendfsync` is the Redis setting, `everysec` or
    `always`.
    """

    def __init__(self, state: Path, *, port: int = PORT, appendfsync: str = "everysec") -> None:
        self.running: RunningServer | None = None
        self.adopted = False
        """True if the server was already running when `ensure` was called."""
        self._state = state
        self._folder = state / "embedded"
        self._port = port
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[bytes] | None = None
        self._users: int | None = None
        self._busy = threading.Lock()

    def ensure(self) -> RunningServer:
        """Adopt the running server, or start one on the existing data.

        Raises `ConfigError` if the server is not installed or can't read its data, and `UnavailableError` if the server
        does not answer.
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
        """Start a dead server again on the same port. Do nothing while the server lives, or after `stop`."""
        with self._busy:
            if self._users is not None and self.running is not None:
                self.running = self._found_or_started([self.running.port])

    def stop(self) -> None:
        """Stop the server if no other router with this state directory uses the server."""
        with self._busy:
            if self._users is None:
                return
            if _locked(self._users):
                self._end()
            else:
                self._forget()
            self._leave()

    async def supervise(self, every: float = 1.0) -> None:
        """Start the server again whenever it dies, until this coroutine is cancelled.

        `every` is the number of seconds between two checks. Each failed start doubles the pause, up to 30 times
        `every`.
        """
        failures = 0
        while True:
            await asyncio.sleep(every * min(2**failures, 30))
            if await asyncio.to_thread(self._alive):
                failures = 0
                continue
            log.error("the embedded server has died; the router starts it again", folder=str(self._folder))
            try:
                await asyncio.to_thread(self.restart)
            except (ConfigError, UnavailableError) as error:
                failures = min(failures + 1, 5)
                message = "the embedded server does not start; the router tries again"
                log.error(message, reason=str(error))  # noqa: TRY400  # a traceback would not help the operator
            else:
                log.warning("the embedded server is running again")

    def _alive(self) -> bool:
        """Return whether the server process is alive: whether it holds its lock.

        So a busy server that does not answer counts as alive.
        """
        if self._process is not None:
            self._process.poll()
        with _opened(self._folder / "server.lock") as lock:
            if not _locked(lock):
                return True
            _unlock(lock)
            return False

    def _found_or_started(self, ports: list[int]) -> RunningServer:
        """Return the running server, or start one on the first free port of `ports` (0 means any)."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if (found := find(self._state)) is not None:
                self.adopted = self._process is None
                if self.adopted and self._appendfsync == "always":
                    sync_always(found)
                return found
            with _opened(self._folder / "server.lock") as lock:
                if not _locked(lock):
                    time.sleep(POLL)  # another router is starting the server, or the server hangs
                    continue
                if not ports:
                    raise UnavailableError("no free port was found for the embedded server")
                if (started := self._try(ports.pop(0) or free_port(), lock)) is not None:
                    return started
        raise UnavailableError(
            f"a server process uses {self._folder} but does not answer; stop this process (its id is `pid` in {self._state}/embedded.json)"
        )

    def _try(self, port: int, lock: int) -> RunningServer | None:
        """Start the server on one port; return None if the port is taken.

        The password of a server that died is used again, so that routers which used the old server can connect to the
        new one.
        """
        if self._process is not None:
            self._process.wait(STOP)  # returns at once: this router holds `lock`, so the old process has ended
        known = recorded_server(self._state)
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
        # Write embedded.json before the server answers. If this router is killed now, the next router can adopt the
        # server.
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
        """Return the answer of the new server to INFO, as soon as its data is loaded; None if the process has ended."""
        assert self._process is not None
        end, info = time.monotonic() + START, dict[str, str]()
        while True:
            # First give the server time to end. If its port is taken, the server ends at once, but the other program at
            # this port may take long to answer.
            time.sleep(POLL)
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
        """Acquire the shared lock of the server's users; wait while the last user is stopping the server."""
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
        """End the server and wait until its data is written.

        If the server ignores SIGTERM for `STOP` seconds, kill it.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._send(number)
            end = time.monotonic() + STOP
            while self._alive():
                if time.monotonic() > end:
                    break
                time.sleep(POLL)
            else:
                if self._process is not None and self._process.returncode is None:
                    self._process.wait(STOP)  # the kernel releases the lock shortly before it reports the exit
                (self._state / "embedded.json").unlink(missing_ok=True)
                return
            log.warning(
                "the embedded server has not exited after the signal; the router sends a stronger signal",
                seconds=STOP,
                signal=number.name,
            )

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the server, even if the server does not answer."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            return
        known = recorded_server(self._state)
        if known is not None and (find(self._state) is not None or _works_in(known.pid, self._folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(known.pid, number)

    def _forget(self) -> None:
        """Leave the child process running, because another router uses it."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # otherwise `Popen` warns that the child still runs


def _works_in(pid: int, folder: Path) -> bool:
    """Return whether `folder` is the working directory of a process, as it is for the server process.

    Returns False on a system without /proc.
    """
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False


@contextlib.contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file; yield its descriptor.

    A missing file is created so that only the user of this process can read it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Lock an open file; return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    """Release a lock.

    Closing the file is not enough: a child process that is forked at this moment has the file open too.
    """
    fcntl.flock(file, fcntl.LOCK_UN)


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a reader sees either the old content or the new content."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)
