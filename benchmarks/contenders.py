"""The programs with which the router is compared: `python contenders.py NAME PORT SCHEMA OUT` runs one of them.

`floor` only reads the published messages in a bare loop of sockets and hiredis: this is the minimum cost of any Python
program. `redis-py` is a simple program: `get_message`, `json`, `jsonschema`, and a line in a file. `asyncio` is the
same program with `listen()`. `list` does the minimum work of a list consumer that loses nothing: it moves an item,
writes the item, and removes the item. `fan-out` is a simple program that writes each event to several files. The
number of files is a further argument.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hiredis
import jsonschema
import jsonschema_rs
import msgspec
import redis

CHANNEL = "bench"


def floor(port: int, _schema: Path, out: Path) -> None:
    """Count the published messages, and write the count to the file."""
    count = 0
    with socket.create_connection(("127.0.0.1", port)) as connection, out.open("wb", buffering=0) as file:
        connection.sendall(b"SUBSCRIBE bench\r\n")
        reader = hiredis.Reader()
        while chunk := connection.recv(65536):
            reader.feed(chunk)
            while (message := reader.gets()) is not False:
                count += message[0] == b"message"
            file.seek(0)
            file.write(b"%d" % count)


def redis_py(port: int, schema: Path, out: Path) -> None:
    """Validate the published messages and write each as a line."""
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    client = redis.Redis(port=port)
    subscriber = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    subscriber.subscribe(CHANNEL)
    with out.open("w", buffering=1) as file:
        while True:
            message = subscriber.get_message(timeout=1.0)
            if message is None:
                continue
            payload = json.loads(message["data"])
            if validator.is_valid(payload):
                at = datetime.now(UTC).isoformat(timespec="microseconds")
                file.write(json.dumps({"channel": CHANNEL, "received_at": at, "payload": payload}) + "\n")


async def hand_written(port: int, schema: Any, out: Path) -> None:
    """Validate the published messages and write each as a line, in an asyncio loop."""
    from redis.asyncio import Redis  # takes as long to import as all other modules together

    validator = jsonschema.Draft202012Validator(schema)
    subscriber = Redis(port=port).pubsub(ignore_subscribe_messages=True)
    await subscriber.subscribe(CHANNEL)
    with out.open("w", buffering=1) as file:
        async for message in subscriber.listen():
            payload = json.loads(message["data"])
            if validator.is_valid(payload):
                at = datetime.now(UTC).isoformat(timespec="microseconds")
                file.write(json.dumps({"channel": CHANNEL, "received_at": at, "payload": payload}) + "\n")


def bare_list(port: int, _schema: Path, out: Path) -> None:
    """Move one item at a time to a second list, write its line, and remove the item."""
    with socket.create_connection(("127.0.0.1", port)) as connection, out.open("wb", buffering=0) as file:
        reader = hiredis.Reader()

        def call(*parts: bytes) -> bytes | int:
            connection.sendall(hiredis.pack_command(parts))  # type: ignore[arg-type]
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(65536))
            return reply  # type: ignore[no-any-return]

        while True:
            item = call(b"BLMOVE", b"bench", b"bench-held", b"RIGHT", b"LEFT", b"0")
            assert isinstance(item, bytes)
            file.write(item + b"\n")
            call(b"LREM", b"bench-held", b"1", item)


class Line(msgspec.Struct, gc=False):
    """The line of an event; `payload` is embedded as it was published."""

    id: str
    source: str
    channel: str
    pattern: str | None
    received_at: datetime
    route: str
    payload: msgspec.Raw


def fan_out(port: int, schema: Path, out: Path, files: str) -> None:
    """Validate the published messages, and write a line for each event to each file, in one batch for each read."""
    is_valid = jsonschema_rs.validator_for(schema.read_text()).is_valid
    decode, encode_lines = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode_lines
    outs = [Path(f"{out}{number}").open("wb", buffering=0) for number in range(int(files))]  # noqa: SIM115  # until killed
    count = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"SUBSCRIBE bench\r\n")
        reader = hiredis.Reader()
        while chunk := connection.recv(65536):
            reader.feed(chunk)
            now, good = datetime.now(UTC), []
            while (message := reader.gets()) is not False:
                if message[0] == b"message" and is_valid(decode(message[2])):
                    good.append(message[2])
            for file in outs:
                lines = [
                    Line(f"s-{number}", "bench", CHANNEL, None, now, "everything", msgspec.Raw(raw))
                    for number, raw in enumerate(good, count)
                ]
                file.write(encode_lines(lines))
            count += len(good)


if __name__ == "__main__":
    name, port, schema, out, *more = sys.argv[1:]
    contenders: dict[str, Callable[..., None]] = {
        "floor": floor,
        "redis-py": redis_py,
        "asyncio": lambda port, schema, out: asyncio.run(hand_written(port, json.loads(schema.read_text()), out)),
        "list": bare_list,
        "fan-out": fan_out,
    }
    contenders[name](int(port), Path(schema), Path(out), *more)
