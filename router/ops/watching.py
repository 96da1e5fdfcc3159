"""The watch for changed files; floor 4. Watching needs the extra `event-router[watch]` (watchfiles)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

from router.files import UnreadableError, read_file

PATIENCE = 1000
"""Milliseconds after which `possible_changes` yields even without a change, because the set of files may have grown."""

QUIET = 100
"""Milliseconds without a further change before `possible_changes` yields, so that a program can finish writing several
files."""

State = tuple[int, int, int] | None
"""The state of a file, by which a change is noticed: modification time, size and inode; None if the file is missing."""


def available() -> bool:
    """Return whether files can be watched here."""
    return importlib.util.find_spec("watchfiles") is not None


def states(files: Iterable[Path]) -> Mapping[Path, State]:
    """Return the present state of each file or folder.

    Links are followed. The state of a folder changes with the names in the folder.
    """
    return {file: _state(file) for file in files}


def digests(files: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of each file, or an empty string for a folder and for a file that can't be read."""
    found: dict[Path, str] = {}
    for file in files:
        try:
            found[file] = hashlib.sha256(read_file(file)).hexdigest()
        except UnreadableError:
            found[file] = ""
    return found


def _state(file: Path) -> State:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def possible_changes(files: Callable[[], Iterable[Path]]) -> AsyncIterator[None]:
    """Yield when a file may have changed, and every `PATIENCE` milliseconds. `files` is called again for each yield."""
    from watchfiles import awatch  # noqa: PLC0415  # an extra

    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    while True:
        folders = _folders(files())
        async for _ in awatch(
            *folders,
            watch_filter=None,
            debounce=10 * QUIET,
            step=QUIET,
            rust_timeout=PATIENCE,
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
            raise_interrupt=False,
        ):
            yield
            if _folders(files()) != folders:
                break


def _folders(files: Iterable[Path]) -> list[Path]:
    """Return the folders to watch: the folder of each file, and the folder of the target if the file is a link."""
    found: set[Path] = set()
    for file in files:
        really = Path(os.path.realpath(file))
        found.update(folder for folder in (file.parent, really.parent) if folder.is_dir())
        if file.is_dir():
            found.add(file)
    return sorted(found)
