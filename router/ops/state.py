"""The state directory, and the lock that keeps two routers of one name apart; floor 4."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from router.errors import ConfigError, Problem
from router.files import distrust


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return where this user's router keeps its state, made (mode 0700) when it isn't there.

    `$STATE_DIRECTORY` (systemd may list several: the first), else `$XDG_STATE_HOME/event-router`, else
    `~/.local/state/event-router`. Raises `ConfigError` when it can't be made or written, and when somebody else owns it
    or may write it: who could would put links in the place of our files, or read what we write.
    """
    path = state_path(environ)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _problem(f"the state directory {path} can't be made: {_why(error)}; set STATE_DIRECTORY") from error
    if (why := distrust(path)) is not None:
        raise _problem(f"the state directory {path} {why}, or set STATE_DIRECTORY")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _problem(f"the state directory {path} can't be written by this user; set STATE_DIRECTORY")
    return path


def state_path(environ: Mapping[str, str]) -> Path:
    """Return where this user's state directory would be; nothing is made. Raises `ConfigError` when nobody says where."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given).absolute()
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG Base Directory Specification: a relative path there is invalid and to be ignored.
    if not Path(home).is_absolute():
        user = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises without a home
        if not Path(user).is_absolute():
            raise _problem("there is no state directory: neither STATE_DIRECTORY nor HOME is set")
        home = os.path.join(user, ".local", "state")  # noqa: PTH118  # text, like the other branch
    return Path(home) / "event-router"


class InstanceLock:
    """Held by a running router: no second one runs under its name on this state directory.

    Taken on entering; the kernel gives it back when the process ends, however it ends.
    """

    def __init__(self, state: Path, instance: str) -> None:
        self.path = state / f"{instance}.lock"
        self._instance = instance
        self._file: int | None = None

    def __enter__(self) -> Self:
        """Raises `ConfigError` when another router runs under the name."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _problem(f"{self.path} can't be opened: {_why(error)}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(file, 32, 0).decode(errors="replace").strip()
            os.close(file)
            who = f"another event-router (process {pid})" if pid else "another event-router"
            cure = "stop it, or give this one a name of its own with --instance NAME"
            raise _problem(f"{who} runs under the name {self._instance!r}; {cure}") from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; the file stays, for its removal would race with the next router."""
        file, self._file = self._file, None
        if file is not None:
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that is just being made holds the open file too, for a moment
            os.close(file)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(message)])
