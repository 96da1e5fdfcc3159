"""The admin server: liveness, readiness, metrics, status, reload; floor 6.

The server shares the event loop with the router, so it only reads numbers that exist already. The number, lifetime and
header size of connections are bounded. So clients that keep connections open or send slowly do not slow down events.

The socket listens from the start, but aiohttp is imported only when the first connection arrives. That connection waits
in the socket's backlog during the import. A router without clients saves the 9 MB of aiohttp, and a quarter of the CPU
time of a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import structlog

from router.admin.sockets import RELOAD, STATUS, Listener, default_address
from router.config.models import AdminConfig
from router.config.scalars import OFF, Address, address
from router.core.accounts.snapshot import View, document
from router.errors import ConfigError
from router.escaping import escape_json
from router.ops.http import import_aiohttp
from router.ops.metrics import Exposition, Measured

if TYPE_CHECKING:
    from aiohttp import web

    from router.engine.life.watch import Watch

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.stdlib.get_logger(__name__)

MOST_CONNECTIONS = 64
"""The largest number of connections at the same time. Further connections are closed at once."""

PATIENCE = 5.0
"""Seconds allowed for a request, and for an idle connection after a response."""

TURNS_TO_BEGIN = 5
"""The number of turns of the event loop after which an accepted connection has its protocol. asyncio needs three
turns."""

AFTER_FAILURE = 1.0
"""Seconds to wait after a failure to serve. Then the next connection starts another attempt."""

MOST_HEADER = 8_192
"""The largest size of one header line of a request, in bytes."""

MOST_HEADERS = 64
"""The largest number of headers of a request."""

_JSON = "application/json"
_silent = logging.getLogger(f"{__name__}.aiohttp")
_silent.setLevel(logging.CRITICAL + 1)  # malformed requests are the client's fault; `_guard` logs faults of the router


class AdminServer:
    """The HTTP server of a router's state at one address.

    TCP clients must send `token`, unless it is None. Clients of a unix socket send no token, because the file mode
    protects the socket. `reload` loads the configuration again and returns the result, with the key `ok`. If `required`
    is False, a failure to listen is logged, and the router works without the server.
    """

    def __init__(
        self,
        address: Address,
        *,
        token: str | None,
        view: View,
        measured: Measured,
        reload: Callable[[str], Awaitable[Mapping[str, Any]]] | None = None,
        required: bool = True,
    ) -> None:
        self._required = required
        self.address = address
        """The address of the server; after `start` with the real port."""
        self._token = None if token is None or address.path is not None else f"Bearer {token}".encode()
        self._judges_host = address.path is None and token is None
        self._view = view
        self._measured = measured
        self._reload = reload
        self._exposition: Exposition | None = None
        self._held = contextlib.AsyncExitStack()
        self._called: asyncio.Future[None] | None = None
        """A future that is done when the first connection has arrived. It is cancelled if the server closes before."""
        self._serving: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Start listening. Raises `ConfigError` if the server is required and can't listen."""
        try:
            listener = Listener(self.address)
        except ConfigError as error:
            if self._required:
                raise
            log.warning(
                "the admin side can't listen at its socket; the router goes on, but commands may not find the router",
                reason=error.problems[0].message,
            )
            return
        self._held.callback(listener.close)
        self.address = listener.address
        self._serving = asyncio.create_task(self._serve_once_called(listener), name="admin side")
        log.info("the admin side listens", address=str(self.address), token=self._token is not None)

    async def _serve_once_called(self, listener: Listener) -> None:
        """Serve from the first connection on.

        After a failure, close the connections that wait. The next connection starts another attempt.
        """
        logged = ""
        while not self._closing:
            await self._connection_waits(listener.socket)
            try:
                await import_aiohttp()
                await self._serve(listener)
            except Exception as error:
                if logged != (logged := repr(error)):  # else every probe of a monitor would log a traceback
                    log.exception(
                        "the admin side can't serve; the next connection starts another attempt",
                        address=str(self.address),
                    )
            else:
                return
            _close_waiting(listener.socket)
            await asyncio.sleep(AFTER_FAILURE)

    async def _connection_waits(self, listening: socket.socket) -> None:
        """Wait until a connection waits in the backlog of a socket."""
        loop = asyncio.get_running_loop()
        self._called = called = loop.create_future()
        loop.add_reader(listening, _resolve, called)
        try:
            await called
        finally:
            loop.remove_reader(listening)

    async def _serve(self, listener: Listener) -> None:
        from aiohttp import web  # noqa: PLC0415  # see the module's docstring

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=MOST_HEADER)
        for path, handler in self._routes().items():
            app.router.add_get(path, handler)
        if self._reload is not None:
            app.router.add_post(RELOAD, self._reloaded)
        runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_silent,
            keepalive_timeout=PATIENCE,
            lingering_time=1.0,
            max_line_size=MOST_HEADER,
            max_field_size=MOST_HEADER,
            max_headers=MOST_HEADERS,
            shutdown_timeout=1.0,
        )
        loop = asyncio.get_running_loop()
        serve = loop.create_server if self.address.path is None else loop.create_unix_server
        async with contextlib.AsyncExitStack() as made:
            made.push_async_callback(runner.cleanup)
            await runner.setup()
            server = await serve(partial(_connection, runner), sock=listener.socket)
            made.callback(server.close)
            made.push_async_callback(_accept_no_more, listener.socket)
            self._held.push_async_exit(made.pop_all())

    async def close(self) -> None:
        """Stop listening, finish requests under way within a second, remove the socket's file."""
        self._closing = True
        if self._called is not None:
            self._called.cancel()
        if self._serving is not None:
            # Wait for a server that is about to serve, so that it is closed too. An import may hang on a failing disk,
            # so the wait is limited.
            _, late = await asyncio.wait({self._serving}, timeout=PATIENCE)
            for task in late:
                task.cancel()
                await asyncio.wait({task}, timeout=PATIENCE)
        await self._held.aclose()

    def _routes(self) -> dict[str, Handler]:
        return {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            STATUS: self._status,
        }

    # Permissions.

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests without permission, and respond to every error with JSON."""
        from aiohttp import web  # noqa: PLC0415  # see the module's docstring

        if self._judges_host and not _names_this_machine(request.host):
            # DNS rebinding: a web page whose own name resolves to 127.0.0.1 sends that name as Host.
            return _fault(421, f"this address answers to 127.0.0.1, ::1 and localhost, not to {request.host!r}")
        if request.method == "POST" and "Origin" in request.headers:
            # Only browsers send Origin. A web page must not use the permissions of the user who opened the page.
            return _fault(403, "requests from web pages are refused")
        if not self._allowed(request) and request.path not in {"/livez", "/readyz"}:
            answer = _fault(401, "a token is required: Authorization: Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        try:
            response = await handler(request)
        except web.HTTPNotFound:
            return _fault(404, f"unknown path; the paths are {', '.join(self._routes())}, and POST {RELOAD}")
        except web.HTTPMethodNotAllowed as error:
            answer = _fault(
                405, f"{error.method} is not allowed here; use {' or '.join(sorted(error.allowed_methods))}"
            )
            answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except web.HTTPException as error:
            return _fault(error.status, error.reason)
        except Exception:
            log.exception("the admin side failed to respond to a request", path=request.path)
            return _fault(500, "this is a fault of the router; see its log")
        return response

    def _allowed(self, request: web.Request) -> bool:
        """Return whether the request has the token, or no token is configured."""
        if self._token is None:
            return True
        sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(sent, self._token)

    # Responses.

    async def _livez(self, _request: web.Request) -> web.StreamResponse:
        """Respond with 200. The response itself shows that the event loop works."""
        return _answer({"alive": True})

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        """Respond with 200 or 503. The reasons name servers, so only an allowed request gets them."""
        now = self._view.snapshot()
        answer: dict[str, Any] = {"ready": now.ready}
        if self._allowed(request):
            answer |= {"reasons": now.reasons, "warnings": now.warnings}
        return _answer(answer, 200 if now.ready else 503)

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        await self._view.refresh()
        return _answer(document(self._view.snapshot()))

    async def _reloaded(self, _request: web.Request) -> web.StreamResponse:
        """Respond with 200 and the changes, or with 422 and the problems if the configuration was refused."""
        assert self._reload is not None
        result = await self._reload("HTTP")
        return _answer(result, 200 if result["ok"] else 422)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web  # noqa: PLC0415  # see the module's docstring

        await self._view.refresh()
        if self._exposition is None:  # importing prometheus_client takes 0.1 s, too long for the event loop
            self._exposition = await asyncio.to_thread(Exposition, self._measured)
        body, content_type = self._exposition.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _resolve(called: asyncio.Future[None]) -> None:
    """Record that a connection has arrived. The event loop may call this again before the reader is removed."""
    if not called.done():
        called.set_result(None)


def _close_waiting(listening: socket.socket) -> None:
    """Close the connections that wait in the backlog of a socket.

    Otherwise, their clients would wait for a response.
    """
    with contextlib.suppress(OSError):  # no connection is left
        for _ in range(MOST_CONNECTIONS):
            listening.accept()[0].close()


def _connection(runner: web.AppRunner) -> asyncio.BaseProtocol:
    """Return the protocol of a new connection."""
    server = runner.server
    if server is None or len(server.connections) >= MOST_CONNECTIONS:
        return _Refusal()
    return server()


async def _accept_no_more(listening: socket.socket) -> None:
    """Stop accepting connections, and return when each accepted connection has its protocol.

    asyncio makes the transport of an accepted connection in a later turn of the event loop. If the server is closed
    before that turn, asyncio fails and leaves the connection open. The cause is an assertion in `Server._attach` of
    Python 3.11.
    """
    asyncio.get_running_loop().remove_reader(listening)
    for _ in range(TURNS_TO_BEGIN):
        await asyncio.sleep(0)


class _Refusal(asyncio.Protocol):
    """The protocol that closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection: the limit is reached."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _answer(document: Any, status: int = 200) -> web.Response:
    from aiohttp import web  # noqa: PLC0415  # see the module's docstring

    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    body = escape_json(msgspec.json.encode(document))
    return web.Response(body=body, status=status, content_type=_JSON, headers=headers)


def _fault(status: int, why: str) -> web.Response:
    return _answer({"error": why}, status)


def _names_this_machine(host: str) -> bool:
    """Return whether a Host header names this machine: a loopback address or `localhost`, with any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return Address(None, name).local


class AdminSide:
    """The admin servers of one router, each at an address of its own."""

    def __init__(self, servers: Sequence[AdminServer]) -> None:
        self._servers = servers

    async def start(self) -> None:
        """Start all servers. Raises `ConfigError` if a required server can't listen."""
        for server in self._servers:
            await server.start()

    async def close(self) -> None:
        """Close all servers."""
        for server in self._servers:
            await server.close()


def admin_side(config: AdminConfig, state: Path, instance: str) -> Callable[[Watch], AdminSide] | None:
    """Return the function that makes the admin servers; None if they are off.

    One server listens at the configured address, another server at the socket in the state directory `state`. Commands
    use the socket if the address in the configuration file can't be read, or was changed after the start of the router.
    """
    if config.listen == OFF:
        return None
    local = default_address(state, instance)
    named = None if config.listen is None else address(config.listen)
    token = config.token.get_secret_value() if config.token else None

    def made(watch: Watch) -> AdminSide:
        return AdminSide(
            [
                AdminServer(
                    each,
                    token=token,
                    view=watch,
                    measured=watch.measured,
                    reload=watch.reload,
                    required=each == named,
                )
                for each in dict.fromkeys((local,) if named is None else (named, local))
            ]
        )

    return made
