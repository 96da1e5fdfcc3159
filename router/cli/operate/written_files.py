"""Checks whether this user may write to the files and local sockets of the configured sinks; floor 7."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from router.config.redis_url import nameable
from router.errors import Problem

if TYPE_CHECKING:
    from router.ops.loading import Loaded


def written_file(loaded: Loaded, name: str) -> Path | None:
    """Return the file that a sink writes to, or None."""
    path = getattr(loaded.config.sinks[name].options, "path", None) if loaded.types[name].local else None
    return loaded.write_base / path if isinstance(path, str) else None


def written_socket(loaded: Loaded, name: str) -> Path | None:
    """Return the local socket of another service that a sink writes to, or None."""
    path = getattr(loaded.config.sinks[name].options, "socket_path", None) if loaded.types[name].local else None
    return Path(path) if isinstance(path, str) else None


class Verdict(NamedTuple):
    """The result of the check whether a file or socket can be written.

    `why` is the message of a problem, with its `severity`. `reason` is the short reason why a file or socket can't be
    written, as the end of the text "NAME, but …". All three are empty if there is no problem.
    """

    writable: bool
    severity: str = ""
    why: str = ""
    reason: str = ""


def problems(loaded: Loaded) -> list[Problem]:
    """Return a warning for each file or socket that can't be written, and a note for each missing folder or socket.

    A missing folder or socket is only a note, because `check` may run on another machine than the router.
    """
    found = []
    for name in loaded.config.sinks:
        file, socket = written_file(loaded, name), written_socket(loaded, name)
        verdict = judge(file) if file else judge_socket(socket) if socket else Verdict(writable=True)
        if verdict.why:
            found.append(replace(loaded.placed(verdict.why, "sinks", name), severity=verdict.severity))
    return found


def judge(file: Path) -> Verdict:
    """Return whether the log sink can write a file. The sink creates the file, and the last folder of the path."""
    folder = file.parent
    if not nameable(str(file)):
        return _not("the name can't be used in this locale", "the name of its file can't be used in this locale")
    if _is_folder(file):
        return _not("that is a folder", f"the sink can't write {file}, which is a folder")
    if _is_there(file):
        if os.access(file, os.W_OK):
            return Verdict(writable=True)
        return _not(
            "this user has no permission to write it", f"this user has no permission to write {file}; {_see(file)}"
        )
    if _is_there(folder) and not _is_folder(folder):
        return _not(f"{folder} is not a folder", f"{folder} is not a folder, so no file can be created in it")
    if _is_there(folder):
        if _may_add(folder):
            return Verdict(writable=True)
        return _not(
            "this user has no permission to create it",
            f"this user has no permission to create files in {folder}; {_see(folder)}",
        )
    gap = f"there is no folder {folder} that this user can see"
    if not _is_there(folder.parent):
        make = shlex.quote(str(folder))
        return _not(
            gap, f"{gap}, and the router creates only the last folder of a path; run: mkdir -p {make}", severity="note"
        )
    if _may_add(folder.parent):
        return Verdict(
            writable=True, severity="note", why=f"{gap}; the router creates it when it writes the first line"
        )
    return _not(gap, f"{gap}, and this user has no permission to create it; {_see(folder.parent)}")


def judge_socket(path: Path) -> Verdict:
    """Return whether a local socket can be written to."""
    if not _is_there(path):
        gap = f"there is no socket {path} that this user can see"
        why = f"{gap}, so deliveries would wait until a service listens there"
        return _not("there is no such socket that this user can see", why, severity="note")
    if not path.is_socket():
        return _not("that is not a socket", f"{path} is not a socket")
    if os.access(path, os.W_OK):
        return Verdict(writable=True)
    return _not(
        "this user has no permission to write to it",
        f"this user has no permission to write to the socket {path}; {_see(path)}",
    )


def _not(reason: str, why: str, *, severity: str = "warning") -> Verdict:
    return Verdict(writable=False, severity=severity, why=why, reason=reason)


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a folder above it is not readable for this user
        return path.exists()
    return False


def _is_folder(path: Path) -> bool:
    return _is_there(path) and path.is_dir()


def _may_add(folder: Path) -> bool:
    return _is_folder(folder) and os.access(folder, os.W_OK | os.X_OK)


def _see(path: Path) -> str:
    return f"to see who has permission, run: ls -ld {shlex.quote(str(path))}"
