"""Programs for tests of the sink `command`: scripts of the shell, and which processes are there."""

from __future__ import annotations

import os
from pathlib import Path


def script(folder: Path, text: str, name: str = "program") -> str:
    """The path of a new program in the language of the shell."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def state_of(process: int) -> str:
    """The state of a process in a letter, as in `ps`; empty if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def is_alive(process: int) -> bool:
    """Whether a process runs. One that has ended and is not waited for by its new parent does not."""
    return state_of(process) not in {"", "Z", "X"}


def zombies() -> set[int]:
    """The children of this process that have ended and are not waited for."""
    return {child for child, state in children().items() if state == "Z"}


def children() -> dict[int, str]:
    """The children of this process, with the letter of each one's state."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found[int(folder.name)] = fields[0]
    return found


def numbers(file: Path) -> list[int]:
    """The numbers of processes that programs have written into a file, one a line."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []
