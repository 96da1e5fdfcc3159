"""The log sink: chooses the writer for its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from router.api import Event, Result, Sink, SinkContext

from .datagram_writer import DatagramWriter
from .line_writer import LineWriter
from .log_options import LogOptions


class LogSink(Sink):
    """Writes events on this machine: lines to a file or stream, datagrams to journald or syslog."""

    local: ClassVar[bool] = True

    def __init__(self, options: LogOptions) -> None:
        path = options.socket_path
        self._writer: LineWriter | DatagramWriter
        if path is None:
            self._writer = LineWriter(options)
        else:
            self._writer = DatagramWriter(path, is_journal=options.target == "journald")

    async def open(self, context: SinkContext) -> None:
        """Open the file, the stream or the socket. Raises `TransientError` or `SinkError`."""
        await self._writer.open(context)

    async def deliver_batch(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write a batch; return one result for each event."""
        return await self._writer.deliver_batch(batch)

    async def close(self) -> None:
        """Close the file or the socket. There is no buffer to flush."""
        await self._writer.close()
