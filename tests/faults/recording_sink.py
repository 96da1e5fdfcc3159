"""The sink of the fault scenarios: a drop-in plugin that reports each delivery to a recorder outside of the daemon."""

from __future__ import annotations

import asyncio
import os
import zlib

from router.api import Addresses, Sink, SinkError, SinkOptions, TransientError, hookimpl


class RecordOptions(SinkOptions):
    """The options of the sink: the port of the recorder, the name of the sink in its reports, and recipients (`to`)."""

    port: int
    to: Addresses = Addresses()
    name: str
    deadly: bool = True


class Record(Sink):
    """A sink that reports each delivery, and succeeds or fails as the recorder responds.

    If `deadly` is true, an event with `n: poison` ends the process.
    """

    def __init__(self, options):
        self.options = options
        self.free = []

    async def deliver(self, event, options):
        number = event.payload["n"]
        if number == "poison":
            if options.deadly:
                os._exit(3)
            return
        connection = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", options.port)
        reader, writer = connection
        try:
            writer.write(b"%b %d %d\n" % (options.name.encode(), number, zlib.crc32(event.raw)))
            answer = (await reader.readline()).strip()
        except BaseException:
            writer.close()
            raise
        if not answer:
            writer.close()
            raise TransientError("the recorder is gone")
        self.free.append(connection)
        if answer.startswith(b"asked "):
            raise TransientError("too many requests", retry_after=float(answer.split()[1]))
        if answer == b"later":
            raise TransientError("not now")
        if answer == b"refused":
            raise SinkError("the token is refused")

    async def close(self):
        for _, writer in self.free:
            writer.close()


@hookimpl
def register_sinks(register):
    register("record", Record, options=RecordOptions, concurrency=8)
