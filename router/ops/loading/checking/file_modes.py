"""Who else may change the files that decide what the router does; floor 4.

Only code is refused for that (`ownership`): whoever changes a configuration can send events elsewhere, which is
worth a warning. On a read-only mount the modes say nothing: a container's often show 0777.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from router.files import UnreadableError, resolve_path
from router.ops.loading.reading.nodes import Mark
from router.ops.loading.reading.problems import Problems
from router.ownership import others_may_write


def check_file_modes(files: Iterable[Path], problems: Problems, mark: Mark) -> None:
    """Warn at the mark of files that others can write, and of folders in which others can put another file there."""
    folders: dict[Path, Path] = {}
    for file in sorted(files):
        _look(file, problems, mark)
        with contextlib.suppress(UnreadableError):  # which is a fault that is told where the file is read
            folders.setdefault(resolve_path(file).parent, file)
            folders.setdefault(file.parent, file)
    for folder, file in folders.items():
        _look(folder, problems, mark, f", which holds {file.name},")


def _look(path: Path, problems: Problems, mark: Mark, what: str = "") -> None:
    try:
        info = path.stat()
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return
    except (OSError, ValueError):
        return
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        why = others_may_write(path, info, sticky=True)
        if why:
            problems.warn(f"{path}{what} {why}", mark)
