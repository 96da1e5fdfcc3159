"""The simple programs of the trickle benchmark: `python trickle_parts.py log|durable REDIS_PORT SCHEMA OUT`.

These programs do the jobs of the router without configuration, retries, metrics or shutdown. `log` validates each
published message and writes a line for the message. `durable` also validates and writes each message, but first stores
the message in a Redis stream, until the line is written.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import hiredis
import jsonschema_rs
import msgspec

CHANNEL, QUEUE, GROUP = "bench", "bench-queue", "bench-group"
APPENDED, READ = 5_000, 500
"""The largest number of entries that one command appends and reads, as in the router."""

APPEND = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'd', ARGV[i]) end return #ARGV"


class Line(msgspec.Struct, gc=False):
    """A line of the log."""

    id: str
    source: str
    channel: str
    pattern: str | None
    received_at: datetime
    route: str
    payload: msgspec.Raw


class Entry(msgspec.Struct, array_like=True, gc=False):
    """An event in the stream."""

    id: str
    received_at: float
    raw: bytes


decode = msgspec.json.Decoder().decode
lines = msgspec.json.Encoder().encode_lines
pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(Entry).decode


class Connection:
    """A connection to Redis. Replies come in the order of the commands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = hiredis.Reader()

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Connect to the Redis on this port of the machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, *commands: Sequence[str | bytes | int]) -> None:
        """Send commands together."""
        self._writer.write(b"".join([hiredis.pack_command(tuple(command)) for command in commands]))  # type: ignore[arg-type]

    async def answers(self) -> list[Any]:
        """Wait for the next replies, and return all replies that came together."""
        found: list[Any] = []
        while not found:
            self._parser.feed(await self._reader.read(65536))
            while (answer := self._parser.gets()) is not False:
                found.append(answer)
        return found


def line(id_: str, at: datetime, raw: bytes) -> Line:
    """Return the line of an event."""
    return Line(id_, "bench", CHANNEL, None, at, "everything", msgspec.Raw(raw))


async def published(port: int, is_valid: Callable[[Any], bool]) -> AsyncIterator[list[bytes]]:
    """Yield the valid payloads of each chunk."""
    connection = await Connection.to(port)
    connection.send(("SUBSCRIBE", CHANNEL))
    while True:
        messages = await connection.answers()
        yield [raw for kind, _, raw in messages if kind == b"message" and is_valid(decode(raw))]


async def log(port: int, is_valid: Callable[[Any], bool], out: BinaryIO) -> None:
    """Write a line for each event, with one write for a chunk."""
    number = 0
    async for payloads in published(port, is_valid):
        now, batch = datetime.now(UTC), []
        for raw in payloads:
            number += 1
            batch.append(line(f"line-{number}", now, raw))
        if batch:
            out.write(lines(batch))


async def durable(port: int, is_valid: Callable[[Any], bool], out: BinaryIO) -> None:
    """Append each event to a stream. Read the stream as a consumer, write a line for each entry, remove the entry."""
    writing = await Connection.to(port)
    writing.send(("XGROUP", "CREATE", QUEUE, GROUP, "0", "MKSTREAM"), ("SCRIPT", "LOAD", APPEND))
    await writing.answers()
    digest = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()
    waiting: list[bytes] = []
    wake = asyncio.Event()

    async def append() -> None:
        nonlocal waiting
        while await wake.wait():
            wake.clear()
            while waiting:
                batch, waiting = waiting[:APPENDED], waiting[APPENDED:]
                writing.send(("EVALSHA", digest, 1, QUEUE, *batch))
                await writing.answers()

    async def deliver() -> None:
        reading = await Connection.to(port)
        more = ("XREADGROUP", "GROUP", GROUP, "one", "COUNT", READ, "BLOCK", 0, "STREAMS", QUEUE, ">")
        reading.send(more)
        while True:
            entries = [
                entry for answer in await reading.answers() if isinstance(answer, list) for entry in answer[0][1]
            ]
            if entries:
                events = [unpack(fields[1]) for _, fields in entries]
                out.write(lines([line(e.id, datetime.fromtimestamp(e.received_at, UTC), e.raw) for e in events]))
                ids = [id_ for id_, _ in entries]
                reading.send(("XACK", QUEUE, GROUP, *ids), ("XDEL", QUEUE, *ids), more)

    tasks, number = [asyncio.create_task(append()), asyncio.create_task(deliver())], 0
    async for payloads in published(port, is_valid):
        now = time.time()
        for raw in payloads:
            number += 1
            waiting.append(pack(Entry(f"line-{number}", now, raw)))
        wake.set()
    await asyncio.gather(*tasks)


def main(job: str, port: str, schema: str, out: str) -> None:
    """Do a job until the process is killed."""
    is_valid = jsonschema_rs.validator_for(Path(schema).read_text()).is_valid
    gc.collect()
    gc.freeze()
    with Path(out).open("wb", buffering=0) as file:
        asyncio.run({"log": log, "durable": durable}[job](int(port), is_valid, file))


if __name__ == "__main__":
    main(*sys.argv[1:])
