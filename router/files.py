"""Functions that read files named in a configuration safely, and check whether other users can write them; floor 1.

Opening a named pipe blocks until the pipe has a writer, and a device may return bytes forever. So the kind of a file is
checked before the file is read. Then the daemon never hangs.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import select
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

LARGEST = 16 * 1024**2
"""The default limit for the size of a file, in bytes."""

PATIENCE = 5.0
"""Seconds allowed for the writer of a pipe to close it."""

STDIN = Path("-")
"""The name of standard input."""

_CHUNK = 64 * 1024


class UnreadableError(ValueError):
    """A file can't be read. The text gives the reason without the file's name."""


def read_file(path: Path, *, most: int = LARGEST, pipes: bool = False) -> bytes:
    """Return the content of a regular file. Raises `UnreadableError` if it can't be read or has more than `most` bytes.

    If `pipes` is True, a pipe or `STDIN` may be read too, within `PATIENCE` seconds. Only commands set `pipes`, because they
    read a file only once. The daemon reads its files again at each reload.
    """
    is_stdin = pipes and path == STDIN
    with _explained():
        # Without O_NONBLOCK, opening a named pipe blocks until it has a writer.
        file = os.dup(0) if is_stdin else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(file).st_mode
            if stat.S_ISREG(mode):
                data = _whole(file, most)
            elif is_stdin or (pipes and stat.S_ISFIFO(mode)):
                data = _piped(file, most)
            else:
                raise UnreadableError("this is a pipe, not a file" if stat.S_ISFIFO(mode) else "this is not a file")
        finally:
            os.close(file)
    if len(data) > most:
        raise UnreadableError(f"this file is larger than {most // 1024**2} MiB")
    return data


def resolve_path(path: Path) -> Path:
    """Return the path without links and `..`. Raises `UnreadableError` for a path that can't exist."""
    with _explained():
        return path.resolve()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Translate errors of the system and of its encoding of file names to `UnreadableError`."""
    try:
        yield
    except UnreadableError:
        raise
    except UnicodeEncodeError as error:
        reason = f"the encoding of file names ({error.encoding}) does not have all characters of the path; set LC_ALL=C.UTF-8"
        raise UnreadableError(reason) from None
    except (ValueError, RuntimeError):  # the path contains a NUL, or its links form a cycle
        raise UnreadableError("there is no such file") from None
    except OSError as error:
        ours = {errno.ENOENT: "there is no such file", errno.ENXIO: "this is not a file"}  # ENXIO: a socket
        raise UnreadableError(ours.get(error.errno or 0) or error.strerror or str(error)) from None


def _whole(file: int, most: int) -> bytes:
    """Return the content of a regular file, or its first `most + 1` bytes if it is larger than `most`."""
    data = bytearray()
    while len(data) <= most and (chunk := os.read(file, most + 1 - len(data))):
        data += chunk
    return bytes(data)


def _piped(file: int, most: int) -> bytes:
    """Return the content of a pipe, limited as in `_whole`. Raises `UnreadableError` if the writer does not close it in time."""
    data = bytearray()
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while len(data) <= most:
        if not waiting.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise UnreadableError(f"this is a pipe, and its writer did not close it within {PATIENCE:g} s")
        chunk = os.read(file, _CHUNK)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def distrust(path: Path, *, regular: bool = False, sticky: bool = False) -> str | None:
    """Return the reason why a file or folder is not trusted, and the cure; None if it is trusted.

    A file or folder is not trusted if another user owns it or can write it. If `regular` is True, only a regular file is
    trusted. If `sticky` is True, a folder that others can write is trusted if it has the sticky bit, because then other
    users can't replace files of this user in it.
    """
    try:
        info = path.stat()
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if regular and not stat.S_ISREG(info.st_mode):
        return "is not a regular file"
    if info.st_uid not in {0, os.geteuid()}:
        return (
            f"belongs to {_user(info.st_uid)}, who could change it: run `chown {_user(os.geteuid())} {_quoted(path)}`"
        )
    return others_may_write(path, info, sticky=sticky)


def others_may_write(path: Path, info: os.stat_result, *, sticky: bool = False) -> str | None:
    """Return the reason why other users can write a file or folder, and the cure; None if they can't.

    `sticky` has the meaning described at `distrust`.
    """
    if sticky and info.st_mode & stat.S_ISVTX:
        return None
    if info.st_mode & stat.S_IWOTH:
        return f"can be written by every user: run `chmod o-w {_quoted(path)}`"
    if info.st_mode & stat.S_IWGRP and not _alone_in_group(info.st_gid, info.st_uid):
        return f"can be written by other users of the group {_group(info.st_gid)}: run `chmod g-w {_quoted(path)}`"
    return None


def _alone_in_group(gid: int, owner: int) -> bool:
    """Return whether the group has no members except the owner, root and the user of this process."""
    trusted = {_user(uid) for uid in (0, owner, os.geteuid())}
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members.update(entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid)
    return members <= trusted


def _quoted(path: Path) -> str:
    """Return the path as one word of a shell command."""
    return shlex.quote(str(path))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
