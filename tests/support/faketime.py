"""Processes whose wall clock a test sets, by libfaketime; the monotonic clock stays true."""

from __future__ import annotations

from pathlib import Path


def library() -> Path | None:
    """The library that sets a process's clock, None where the machine has none. Source: faketime(1)."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def lacking() -> str | None:
    """Why no clock can be set here; None where one can."""
    return None if library() else "libfaketime is not installed"


class Clock:
    """The wall clock of the processes that are started with `env`, as a file says. Source: libfaketime's README."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")
        self.env = {
            # Before jemalloc, which Debian's redis-server has, for that asks for the time before the library is ready.
            "LD_PRELOAD": f"{library()}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """Set it so far from the true time: `+1h`."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.replace(self._file)
