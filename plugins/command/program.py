"""The run of a program, from its start to its end.

A run takes place in a thread, because the search for the program may block on a file system that hangs. The methods of
asyncio for processes are not used, because their `wait` also waits until the output is closed. A child of the program
may keep the output open for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from router.api import PermanentError, SinkError, TransientError

from .command_options import program_fault

KEPT = 8192
"""The number of bytes at the end of each output that are kept."""

CHUNK = 65_536

AT_FULL_SPEED = 1024**2
"""The number of bytes of output that are read without pauses. A program that writes more is slowed down, because
reading its output would occupy a whole core."""

PAUSE = 0.005
"""Seconds between reading two chunks of output of a program that is slowed down."""

LOOK_EVERY = 20
"""Milliseconds between two checks whether the program has ended. The checks are needed only on systems that can't
report the end of a process (before Linux 5.3)."""

_BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})


class Ended(NamedTuple):
    """The result of a program that has ended."""

    code: int
    """The exit code; below 0 the number of the signal that killed the program."""
    stdout: bytes
    """The last bytes of the program's output."""
    stderr: bytes
    left_behind: bool
    """True if other processes of the program still ran at its end. These processes have been killed."""


class Run:
    """A run of a program. `run` is called in a thread. While `run` works, `send` may be called in another thread.

    The program gets its own session and process group. After the program has ended, the number of the group stays
    reserved until `run` waits for the process. So a signal to the group can't reach unrelated processes.
    """

    def __init__(self, argv: Sequence[bytes], *, env: Mapping[str, str], cwd: str, line: bytes) -> None:
        self._argv = argv
        self._env = env
        self._cwd = cwd
        self._line = line
        self._lock = threading.Lock()
        self._group: int | None = None  # set while signals may be sent to the process
        self._asked: list[signal.Signals] = []  # all signals asked for, also before the program has started
        self.begun = False
        """True if a thread has begun this run."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the processes of the run. A program that is not started yet will not be started."""
        with self._lock:
            self._asked.append(number)
            if self._group is not None:
                _signal(self._group, number)

    def run(self) -> Ended:
        """Run the program to its end. Raises a delivery error if the program can't be started."""
        self.begun = True
        process = self._start()
        dialogue = _Dialogue(process, self._line)
        with contextlib.closing(dialogue):
            try:
                dialogue.exchange()
            finally:
                left_behind = self._finish(process)
            dialogue.read_rest()
            return Ended(process.returncode, dialogue.stdout.tail, dialogue.stderr.tail, left_behind)

    def _start(self) -> subprocess.Popen[bytes]:
        program = os.fsdecode(self._argv[0])
        # The program is searched for here, in this process. A search by the new process could hang at a file system,
        # and this process would hang with it.
        fault = program_fault(program, self._env["PATH"])
        if fault is None and not Path(self._cwd).is_dir():
            fault = f"the folder of `cwd` does not exist: {self._cwd}"
        if fault is not None:
            raise SinkError(fault)
        if self._asked:
            raise TransientError("stopped before the program was started")
        try:
            process = subprocess.Popen(  # noqa: S603  # the program of the configuration, without a shell
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(error) from None
        with self._lock:
            self._group = process.pid
            if self._asked:
                _signal(process.pid, self._asked[-1])
        return process

    def _finish(self, process: subprocess.Popen[bytes]) -> bool:
        """Kill the processes of the group, and wait for the program.

        Return whether the program left other processes.
        """
        group = process.pid
        with self._lock:
            self._group = None
            _signal(group, signal.SIGKILL)
        if self._asked:
            _kill_session(group)
        if process.returncode is None:
            process.returncode = os.waitstatus_to_exitcode(os.waitpid(group, 0)[1])
        left_behind = _signal(group, 0)
        # As process 1 of a container, this process inherits the program's children and must wait for them too.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-group, 0)
        return left_behind


class _Output:
    """The reading end of a pipe. Only the last bytes that were read are kept."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.fd = pipe.fileno()
        self.tail = b""
        self.ended = False
        os.set_blocking(self.fd, False)

    def read(self) -> int:
        """Read a chunk and return its length; return 0 if there is nothing to read."""
        try:
            chunk = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return 0
        self.ended = not chunk
        self.tail = (self.tail + chunk)[-KEPT:]
        return len(chunk)


class _Dialogue:
    """The exchange with a running program: the event's line is written to stdin, and stdout and stderr are read."""

    def __init__(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._line = memoryview(line)
        self._pipes = (process.stdin, process.stdout, process.stderr)
        self._stdin = process.stdin.fileno()
        self.stdout = _Output(process.stdout)
        self.stderr = _Output(process.stderr)
        self._exit = _exit_watch(process.pid)
        os.set_blocking(self._stdin, False)

    def close(self) -> None:
        """Close the pipes."""
        for pipe in self._pipes:
            pipe.close()
        if self._exit is not None:
            os.close(self._exit)

    def exchange(self) -> None:
        """Write the line and read the output until the program ends.

        The program may end before it has read the line, and a child of the program may keep the output open.
        """
        poll = select.poll()
        if self._exit is not None:
            poll.register(self._exit, select.POLLIN)
        outputs = {output.fd: output for output in (self.stdout, self.stderr)}
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        poll.register(self._stdin, select.POLLOUT)
        total = 0
        while not self._has_ended(ready := dict(poll.poll(None if self._exit is not None else LOOK_EVERY))):
            for fd in ready.keys() & outputs.keys():
                total += outputs[fd].read()
                if outputs[fd].ended:
                    poll.unregister(fd)
            if self._stdin in ready and self._is_written():
                poll.unregister(self._stdin)
                self._pipes[0].close()
                self._stdin = -1
            if total > AT_FULL_SPEED:
                time.sleep(PAUSE)

    def _has_ended(self, ready: Mapping[int, int]) -> bool:
        return self._process.poll() is not None if self._exit is None else self._exit in ready

    def _is_written(self) -> bool:
        """Write the next part of the line.

        Return True if nothing is left to write, or if the program closed its stdin.
        """
        try:
            self._line = self._line[os.write(self._stdin, self._line[:CHUNK]) :]
        except BlockingIOError:
            return False
        except OSError:  # the program closed its stdin; the exit code decides whether the delivery succeeded
            return True
        return not self._line

    def read_rest(self) -> None:
        """Read the output that is left in the pipes, at most `AT_FULL_SPEED` bytes of each.

        A process that could not be killed may go on writing for ever.
        """
        for output in (self.stdout, self.stderr):
            left = AT_FULL_SPEED
            while left > 0 and (length := output.read()):
                left -= length


def _exit_watch(process: int) -> int | None:
    """Return a descriptor that becomes ready when a process has ended; None if the system has no such descriptors."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return None


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether the group exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # processes of another user, or on macOS processes that have ended
        return number == 0
    return True


def _kill_session(session: int) -> None:
    """Kill the processes of the session in other process groups. For example, `timeout` starts another group."""
    for process in _processes_of(session):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _processes_of(session: int) -> Iterator[int]:
    """Yield the processes of a session except its first one. Only Linux provides this list."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # the process has ended since it was listed
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == session != int(folder.name):
                yield int(folder.name)


def _not_started(error: OSError) -> Exception:
    """Return the delivery error for a program that the system could not start."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.E2BIG:
        return PermanentError(
            "the arguments are longer than the system allows: let the program read the values from stdin"
        )
    if error.errno in _BUSY:
        return TransientError(f"the program could not be started: {reason}")
    hint = {
        errno.ENOENT: "; perhaps the program is a script, and the interpreter in its first line (such as `#!/bin/sh`) does not exist",
        errno.ENOEXEC: "; if the program is a script, its first line must name the interpreter, such as `#!/bin/sh`",
    }
    return SinkError(f"the program can't be started: {reason}{hint.get(error.errno or 0, '')}")
