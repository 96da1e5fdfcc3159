"""The lines that the sink writes to files and streams: one for each event."""

from __future__ import annotations

from collections.abc import Sequence

from router.api import Event, escape, json_line, json_lines

from .log_options import LogOptions


def encode(batch: Sequence[tuple[Event, LogOptions]]) -> bytes:
    """Return the lines of a batch, each ended by the only newline in it."""
    events: list[Event] = []
    for event, options in batch:
        if options.template is not None:
            return b"".join(_encode_one(event, options) for event, options in batch)
        events.append(event)
    return json_lines(events)


def _encode_one(event: Event, options: LogOptions) -> bytes:
    if options.template is None:
        return json_line(event) + b"\n"
    return escape(options.template).encode("utf-8", "backslashreplace") + b"\n"
