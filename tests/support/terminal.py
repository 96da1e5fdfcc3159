"""The command on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import termios
from collections.abc import Mapping
from pathlib import Path

from tests.support.process import environment, launch
from tests.support.waiting import wait_until


class Terminal:
    """A command that runs on a terminal of its own: all it shows, and what is typed."""

    def __init__(self, *words: str, cwd: Path, columns: int = 120, env: Mapping[str, str] | None = None) -> None:
        self.shown = b""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, columns))
        variables = {**environment(cwd), "TERM": "xterm", **(env or {})}
        self._process = launch(words, cwd, variables, (slave, slave, slave))
        os.close(slave)

    def until(self, text: str) -> None:
        """Wait until this is shown."""
        while text.encode() not in self.shown:
            self._read()

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Send what Ctrl-C sends, once the process waits for input; the terminal of a test controls no process.

        Python loses a signal that comes just before it begins to read.
        """
        status = Path(f"/proc/{self._process.pid}/status")
        wait_until(lambda: "\nState:\tS" in status.read_text(), "the process to wait for input")
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        with contextlib.suppress(OSError):
            while True:
                self._read()
        os.close(self._master)
        return self._process.wait(30)

    def _read(self) -> None:
        ready, _, _ = select.select([self._master], [], [], 30)
        assert ready, self.shown
        data = os.read(self._master, 65536)
        if not data:
            raise OSError
        self.shown += data
