"""Where the code of a plugin failed: file and line for every reader, the traceback for the log at debug; floor 5.

A plugin's module tells its frames from ours and from those of libraries: the first frame that is neither ours nor the
standard library's is the plugin's, and so are all others of the same top-level package. Drop-ins have such a package each.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from router.errors import RouterError, text_of
from router.escaping import cut

_LONGEST_NAME = 300  # bytes
_OURS = __name__.partition(".")[0]


class RemoteError(Exception):
    """An accident in the process of a sink: nothing but texts comes from there."""

    def __init__(self, text: str, place: str | None, trace: str) -> None:
        super().__init__(text)
        self.place = place
        self.trace = trace


def described(error: BaseException) -> tuple[str, str]:
    """Return the class and text of an accident, and ` (file, line)` or nothing: where the plugin's code failed."""
    text = text_of(error)
    if not isinstance(error, RemoteError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = place_of(error)
    return text, f" ({place})" if place else ""


def place_of(error: BaseException) -> str | None:
    """Return the innermost file and line of the plugin's own code, None where none of it was under way.

    The file is named with its folder: `plugins/pager.py, line 12`.
    """
    if isinstance(error, RemoteError):
        return error.place
    own = list(_plugin_frames(_raised(error)))
    if not own:
        return None
    file = Path(own[-1].tb_frame.f_code.co_filename)
    name = cut("/".join(file.parts[-2:]), _LONGEST_NAME)
    return f"{name}, line {own[-1].tb_lineno}"


def trace_of(error: BaseException) -> str | None:
    """Return the traceback from the plugin's first frame on; None for what a sink raises on purpose, or never raised."""
    if isinstance(error, RemoteError):
        return error.trace
    if isinstance(error, RouterError):
        return None
    raised = _raised(error)
    own = next(_plugin_frames(raised), None)
    return None if own is None else "".join(traceback.format_exception(type(raised), raised, own)).rstrip()


def _raised(error: BaseException) -> BaseException:
    """Return what the plugin raised, where the host raised another error in its place (of `SystemExit`)."""
    cause = error.__cause__
    return error if cause is None or any(_plugin_frames(error)) else cause


def _plugin_frames(error: BaseException) -> Iterator[TracebackType]:
    """The frames of the plugin's own modules, from the outermost on."""
    package: str | None = None
    at = error.__traceback__
    while at is not None:
        name = str(at.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package is None and name != _OURS and name not in sys.stdlib_module_names:
            package = name
        if name == package:
            yield at
        at = at.tb_next
