"""The state directory, and the lock that prevents two routers with the same name; floor 4."""

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
    """Return the state directory of this user's router; create it (mode 0700) if it is missing.

    The directory is `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/event-router`, else `~/.local/state/event-router`. If
    systemd lists several directories in `$STATE_DIRECTORY`, the first one is used. Raises `ConfigError` if the
    directory can't be created or written. Raises `ConfigError` too if another user owns the directory or can write to
    it, because the other user could read the router's files, or replace them with links.
    """
    path = state_path(environ)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _problem(
            f"the state directory {path} can't be created: {_why(error)}; set STATE_DIRECTORY to another directory"
        ) from error
    if (why := distrust(path)) is not None:
        raise _problem(f"the state directory {path} {why}, or set STATE_DIRECTORY")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _problem(
            f"the state directory {path} can't be written by this user; set STATE_DIRECTORY to another directory"
        )
    return path


def state_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the state directory without creating it. Raises `ConfigError` if no variable gives a path."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given).absolute()
    home = environ.get("XDG_STATE_HOME", "")
    # By the XDG Base Directory Specification, a relative path is invalid and must be ignored.
    if not Path(home).is_absolute():
        user = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises without a home
        if not Path(user).is_absolute():
            raise _problem("there is no state directory: neither STATE_DIRECTORY nor HOME is set; set one of them")
        home = os.path.join(user, ".local", "state")  # noqa: PTH118  # text, like the other branch
    return Path(home) / "event-router"


class InstanceLock:
    """The lock of a running router: prevents a second router with the same name and state directory.

    The lock is acquired on entering. The kernel releases the lock when the process ends, even if it was killed.
    """

    def __init__(self, state: Path, instance: str) -> None:
        self.path = state / f"{instance}.lock"
        self._instance = instance
        self._file: int | None = None

    def __enter__(self) -> Self:
        """Acquire the lock. Raises `ConfigError` if another router runs under the same name."""
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
            cure = "stop the other router, or start this router under another name with --instance NAME"
            raise _problem(f"{who} already runs under the name {self._instance!r}; {cure}") from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. The file is not removed, because the removal would race with the next router."""
        file, self._file = self._file, None
        if file is not None:
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that is forked now may still have the file open for a moment
            os.close(file)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(message)])
