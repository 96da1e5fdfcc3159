"""The programs around the mixed load: `python mixed_parts.py endpoint PORT`, `… load REDIS_PORT RATE SECONDS`.

`endpoint` responds to `/ok` with 204 and to `/busy` with 429, and never responds to `/hang`. `load` sends events to
all four sources at a steady rate. Two fifths of the events contain the time of sending.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator

from aiohttp import web

POSTS = 100
"""One out of this number of events is posted."""


async def endpoint(port: int) -> None:
    """Answer requests until the process is killed."""

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        if request.path == "/hang":
            await asyncio.Event().wait()
        if request.path == "/busy":
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


def command(number: int) -> bytes:
    """Return the Redis command of one event.

    Of ten events, four contain the time of sending, four are published on other channels, one is added to a stream,
    and one is pushed to a list.
    """
    told = {"event": "tick", "message": f"{time.time():.6f}", "user_id": number + 1, "severity": "low"}
    body, place = json.dumps(told).encode(), number % 10
    if number % POSTS == POSTS - 5:
        return _wire(b"PUBLISH", b"bench.posts", body)
    if place < 4:
        return _wire(b"PUBLISH", b"bench", body)
    if place == 8:
        return _wire(b"XADD", b"bench-stream", b"*", b"payload", body)
    if place == 9:
        return _wire(b"LPUSH", b"bench-list", body)
    return _wire(b"PUBLISH", b"bench.other", body)


def timed(total: int) -> int:
    """Return how many of the first `total` events are published on the channel `bench`, with the time of sending."""
    return sum(number % 10 < 4 for number in range(total % 10)) + total // 10 * 4


def _wire(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _paced(rate: int, seconds: float) -> Iterator[range]:
    """Yield the numbers of the events that are due, every few milliseconds."""
    began, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        due = min(int((time.monotonic() - began) * rate), total)
        yield range(sent, due)
        sent = due
        time.sleep(0.002)


def load(port: int, rate: int, seconds: float) -> None:
    """Send events at a steady rate, without waiting for answers."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"CLIENT REPLY OFF\r\n")
        for numbers in _paced(rate, seconds):
            if numbers:
                connection.sendall(b"".join(map(command, numbers)))
        connection.sendall(b"CLIENT REPLY ON\r\n")
        connection.recv(100)


if __name__ == "__main__":
    which, *words = sys.argv[1:]
    if which == "endpoint":
        asyncio.run(endpoint(int(words[0])))
    else:
        load(int(words[0]), int(words[1]), float(words[2]))
