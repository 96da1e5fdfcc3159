"""The other end of our output: the journal, a terminal, and whether it wants colours; floor 4.

Apart from the logs, whose library takes longer to import than a configuration to check.
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
    """Return whether to colour what goes to the descriptor: NO_COLOR forbids, FORCE_COLOR demands, else a terminal decides."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal(descriptor) and environ.get("TERM") != "dumb"


def terminal(descriptor: int) -> bool:
    """Return whether somebody watches."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
