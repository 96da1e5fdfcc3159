"""A real HTTP server on loopback that stands in for a service: it records every request and answers by script."""

from __future__ import annotations

import asyncio
import json as jsonlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.support.waiting import moment


@dataclass(frozen=True)
class Seen:
    """One request as it came: `target` is the path with its query, as on the wire."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def json(self) -> Any:
        return jsonlib.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer. `how`: `whole`, `hang` (nothing comes), `drip` (a byte at a time), `cut` (closed in mid-body),
    `reset` (closed instead of an answer)."""

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    how: str = "whole"

    @property
    def content(self) -> bytes:
        return self.body if self.json is None else jsonlib.dumps(self.json).encode()


class StandIn:
    """The server. `replies` are given in order; when they are used up, `rule(request)` or else `default` answers."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Seen] = []
        self.connections: set[Any] = set()
        self.replies: deque[Reply] = deque()
        self.default = Reply(json={"ok": True})
        self.rule: Callable[[Seen], Reply | None] | None = None
        self.arrived = asyncio.Event()

    def script(self, *replies: Reply) -> None:
        self.replies.extend(replies)

    @property
    def last(self) -> Seen:
        return self.requests[-1]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path if hasattr(request, "raw_path") else request.path_qs
        seen = Seen(request.method, target, request.headers, await request.read())
        self.requests.append(seen)
        self.connections.add(request.transport)
        self.arrived.set()
        return await self._give(request, self._choose(seen))

    def _choose(self, seen: Seen) -> Reply:
        if self.replies:
            return self.replies.popleft()
        return (self.rule(seen) if self.rule else None) or self.default

    @staticmethod
    async def _give(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        headers = CIMultiDict(reply.headers)
        match reply.how:
            case "whole":
                return web.Response(status=reply.status, body=reply.content, headers=headers)
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                request.transport.abort()
                return web.Response()
        length = len(reply.content) + (1000 if reply.how == "cut" else 0)
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Length": str(length)})
        await response.prepare(request)
        if reply.how == "cut":
            await response.write(reply.content)
            request.transport.close()
            return response
        for byte in reply.content:
            await response.write(bytes([byte]))
            await moment(0.02)
        return response


@asynccontextmanager
async def stand_in(tls: ssl.SSLContext | None = None, *, port: int = 0) -> AsyncIterator[StandIn]:
    """A stand-in on a port of 127.0.0.1, a free one by default, ended with its handlers when the block is left."""
    server = StandIn()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        port = runner.addresses[0][1]
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A TCP server that speaks as `answer` does; yields its http:// URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports are closed by callbacks


def closed_port() -> str:
    """An http:// URL on loopback at which nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
