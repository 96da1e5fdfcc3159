"""The search for the place of an unexpected error in a plugin's code: file, line and traceback; floor 5.

The plugin's frames in a traceback are found by their package. The first frame outside the router and the standard
library belongs to the plugin. All frames of the same top-level package also belong to the plugin. Each drop-in has a
top-level package of its own.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from router.core.accounts.records import LONGEST_ERROR
from router.errors import RouterError, class_and_text, text_of
from router.escaping import cut

_LONGEST_NAME = 300  # bytes
_OURS = __name__.partition(".")[0]


class RemoteError(Exception):
    """An unexpected error in a sink's process.

    The process sends only the text, the place and the traceback of the error, as strings.
    """

    def __init__(self, text: str, place: str | None, trace: str) -> None:
        super().__init__(text)
        self.place = place
        self.trace = trace


def described(error: BaseException) -> tuple[str, str]:
    """Return two texts about an unexpected error: its class and text, and its place as ` (file, line)`.

    The second text is empty if the place is unknown.
    """
    text = text_of(error) if isinstance(error, RemoteError) else class_and_text(error)
    place = place_of(error)
    return text, f" ({place})" if place else ""


def error_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """Return the text of a failure, without secrets and cut to `LONGEST_ERROR` bytes.

    For an unexpected error, the text also contains the class and the place of the error. `redact` removes secrets,
    because a text from a plugin or a service may contain a credential. The text is cut because it is stored with a
    waiting delivery.
    """
    if isinstance(error, RouterError):
        return cut(redact(text_of(error)), LONGEST_ERROR) or type(error).__name__
    text, place = described(error)
    # Only the text is cut, because the place is the most useful part.
    return cut(redact(text), LONGEST_ERROR - len(place.encode("utf-8", "backslashreplace"))) + place


def place_of(error: BaseException) -> str | None:
    """Return the file and line of the innermost frame of the plugin; None if the traceback has no frame of the plugin.

    The file is shown with its folder, as in `plugins/pager.py, line 12`.
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
    """Return the traceback from the plugin's first frame on.

    Return None for a `RouterError`, or if the traceback has no frame of the plugin.
    """
    if isinstance(error, RemoteError):
        return error.trace
    if isinstance(error, RouterError):
        return None
    raised = _raised(error)
    own = next(_plugin_frames(raised), None)
    return None if own is None else "".join(traceback.format_exception(type(raised), raised, own)).rstrip()


def _raised(error: BaseException) -> BaseException:
    """Return the error that the plugin raised, even if the router has replaced it.

    The router replaces `SystemExit`, for example.
    """
    cause = error.__cause__
    return error if cause is None or any(_plugin_frames(error)) else cause


def _plugin_frames(error: BaseException) -> Iterator[TracebackType]:
    """Yield the frames of the plugin's own modules, the outermost first."""
    package: str | None = None
    at = error.__traceback__
    while at is not None:
        name = str(at.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package is None and name != _OURS and name not in sys.stdlib_module_names:
            package = name
        if name == package:
            yield at
        at = at.tb_next
