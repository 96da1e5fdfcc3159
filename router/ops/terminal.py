"""The kind of a file descriptor: the journal, or a terminal, with or without colours; floor 4.

The module is separate from `logs`, because `logs` imports structlog. This import takes longer than `check` needs for a
whole configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """Return whether the descriptor is the journal: `$JOURNAL_STREAM` names its device and inode (systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


def colours(environ: Mapping[str, str], descriptor: int) -> bool:
    """Return whether to use colours: never with NO_COLOR, always with FORCE_COLOR, else on a terminal."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal(descriptor) and environ.get("TERM") != "dumb"


def terminal(descriptor: int) -> bool:
    """Return whether the descriptor is a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
