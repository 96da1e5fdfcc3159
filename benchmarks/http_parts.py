"""The programs around the webhook benchmark: `python http_parts.py endpoint PORT SECONDS OUT`, `… bare REDIS_PORT URL WORKERS`.

`endpoint` answers each request after a delay in seconds, and then writes a line for the request. `bare` is a minimal
program that posts the published messages: a bare subscriber, a queue, and workers with one aiohttp session.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import hiredis
from aiohttp import web


async def endpoint(port: int, seconds: float, out: Path) -> None:
    """Answer requests until the process is killed."""
    with out.open("wb", buffering=0) as file:

        async def handle(request: web.BaseRequest) -> web.Response:
            await request.read()
            await asyncio.sleep(seconds)
            file.write(b"\n")
            return web.Response(status=202)

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


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
        asyncio.run(endpoint(int(words[0]), float(words[1]), Path(words[2])))
    else:
        asyncio.run(bare(int(words[0]), words[1], int(words[2])))
