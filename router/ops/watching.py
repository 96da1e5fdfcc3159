"""Notices that a file has changed; floor 4. The library behind it is an extra (`event-router[watch]`)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

from router.files import UnreadableError, read_file

PATIENCE = 1000
"""Milliseconds after which one is told to look though nothing was heard: what is to be looked at may be more by then."""

QUIET = 100
"""Milliseconds without a further change before one is told: who writes several files is let finish."""

State = tuple[int, int, int] | None
"""What tells one content of a file from another: time, size, inode; None where it is not there."""


def available() -> bool:
    """Return whether files can be watched here."""
    return importlib.util.find_spec("watchfiles") is not None


def states(files: Iterable[Path]) -> Mapping[Path, State]:
    """Return how these files, and folders, are now. A link is what it leads to; a folder changes with the names in it."""
    return {file: _state(file) for file in files}


def digests(files: Iterable[Path]) -> dict[Path, str]:
    """Return the digest of each file; empty for one that is gone meanwhile, and for a folder."""
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


async def stirred(files: Callable[[], Iterable[Path]]) -> AsyncIterator[None]:
    """Yield each time some of these files may have changed, and now and then; what `files` gives may be others each time."""
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
    """The folders to listen in: of each file where its name stands, and where it really is."""
    found: set[Path] = set()
    for file in files:
        really = Path(os.path.realpath(file))
        found.update(folder for folder in (file.parent, really.parent) if folder.is_dir())
        if file.is_dir():
            found.add(file)
    return sorted(found)
