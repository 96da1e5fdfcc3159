"""The lines that the sink writes to files and streams: one for each event."""

from __future__ import annotations

from collections.abc import Sequence

from router.api import Event, batch_json_lines, batch_options, escape, json_line

from .log_options import LogOptions


def encode(batch: Sequence[tuple[Event, LogOptions]]) -> bytes:
    """Return the lines of a batch. Each line has exactly one newline, at its end."""
    if all(options.template is None for options in batch_options(batch)):
        return batch_json_lines(batch)
    return b"".join(_encode_one(event, options) for event, options in batch)


def _encode_one(event: Event, options: LogOptions) -> bytes:
    if options.template is None:
        return json_line(event) + b"\n"
    return escape(options.template).encode("utf-8", "backslashreplace") + b"\n"
