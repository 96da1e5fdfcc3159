"""The opening of log files. It is safe in folders where other users can create files, and checks the last line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FILE_MODE = 0o640
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def open_trusted(path: str) -> int:
    """Open a log file and return its descriptor. Follow a link only if root, this user or the folder's owner made it.

    Everybody can create files in a folder such as /tmp. There, another user could create a link at the path to one of
    our files. Raises `OSError`, with `ELOOP` for a link of another user. The setting
    `fs.protected_symlinks` of Linux enforces the same rule, but not every system has it.
    """
    try:
        return os.open(path, _OPEN | os.O_NOFOLLOW, _FILE_MODE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        link = os.lstat(path)
        if link.st_uid not in {0, os.geteuid(), Path(path).parent.stat().st_uid}:
            raise
    fd = os.open(path, _OPEN, _FILE_MODE)
    if not os.path.samestat(link, os.lstat(path)):  # the path was replaced by another link after the check
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return fd


def ends_torn(path: str, size: int) -> bool:
    """Return True if the file's last line is incomplete, for example because a process died or the disk was full."""
    if not size:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # the file is not readable for this user
    try:
        return os.pread(fd, 1, size - 1) not in {b"\n", b""}
    finally:
        os.close(fd)
