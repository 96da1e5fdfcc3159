"""The programs around the webhook benchmark: `python http_parts.py endpoint PORT SECONDS OUT`, `… bare REDIS_PORT URL WORKERS`.

`endpoint` responds to each request after a delay in seconds, and then writes a line for the request. `bare` is a
minimal program that posts the published messages. It consists of a bare subscriber, a queue, and workers with one
aiohttp session.
"""

from __future__ import annotations

import asyncio
import io
import re
import selectors
import sys
from pathlib import Path
from typing import cast

import aiohttp
import hiredis

ANSWER = (
    b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nContent-Type: application/octet-stream\r\n"
    b"Date: Tue, 01 Dec 2026 00:00:00 GMT\r\nServer: benchmark\r\n\r\n"
)
CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Endpoint(asyncio.Protocol):
    """One connection to an endpoint, which answers each request `seconds` after its last byte has come.

    For each answer it writes a line to `out`. It parses only what it needs to find the end of a request, so that it
    takes little CPU time from the measured program. Each request must have a `Content-Length`.
    """

    def __init__(self, seconds: float, out: io.FileIO) -> None:
        self._seconds = seconds
        self._out = out
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for the answers."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Schedule an answer for each complete request."""
        self._received += data
        while (size := _size(self._received)) and len(self._received) >= size:
            self._received = self._received[size:]
            asyncio.get_running_loop().call_later(self._seconds, self._answer)

    def _answer(self) -> None:
        self._transport.write(ANSWER)
        self._out.write(b"\n")


def _size(received: bytes) -> int:
    """Return the length of the first request in bytes, or 0 if its headers are incomplete."""
    head, end, _ = received.partition(b"\r\n\r\n")
    length = CONTENT_LENGTH.search(head)
    return len(head) + len(end) + int(length[1]) if end and length else 0


async def endpoint(port: int, seconds: float, out: Path) -> None:
    """Answer requests until the process is killed."""
    with out.open("wb", buffering=0) as file:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Endpoint(seconds, file), "127.0.0.1", port, backlog=1024)
        await server.serve_forever()


def exact_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with exact timers. With epoll, asyncio rounds each timer up to the next millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def bare(port: int, url: str, workers: int) -> None:
    """Post the published messages. Each worker posts one message at a time."""
    waiting: asyncio.Queue[bytes] = asyncio.Queue()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"SUBSCRIBE bench\r\n")
    parser = hiredis.Reader()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            while True:
                body = await waiting.get()
                async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                    await response.read()

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
            while chunk := await reader.read(65536):
                parser.feed(chunk)
                while (message := parser.gets()) is not False:
                    if message[0] == b"message":
                        waiting.put_nowait(message[2])


if __name__ == "__main__":
    which, *words = sys.argv[1:]
    if which == "endpoint":
        with asyncio.Runner(loop_factory=exact_loop) as runner:
            runner.run(endpoint(int(words[0]), float(words[1]), Path(words[2])))
    else:
        asyncio.run(bare(int(words[0]), words[1], int(words[2])))
