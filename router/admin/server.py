"""The admin server: is it alive, is it ready, its metrics, its status; floor 6.

It shares the event loop with the router, so it does little: it reads numbers that are there already. Connections are few,
short-lived and bounded, their headers too: who holds some open or trickles bytes costs the events nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import structlog

from router.admin.admin_client import RELOAD, STATUS
from router.admin.sockets import Listener, default_address
from router.config.models import AdminConfig
from router.config.scalars import OFF, Address, address
from router.core.accounts.snapshot import View, document
from router.errors import ConfigError
from router.escaping import escape_json
from router.ops.metrics import Exposition, Measured

if TYPE_CHECKING:
    from aiohttp import web  # takes half a second to import, which only a router that serves has to spend

    from router.engine.life.watch import Watch

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.stdlib.get_logger(__name__)

MOST_CONNECTIONS = 64
"""Connections at the same time; one more is closed unheard."""

PATIENCE = 5.0
"""Seconds that a connection may take for its request, and stay open after an answer."""

MOST_HEADER = 8_192
"""Bytes of a line of a request's head."""

MOST_HEADERS = 64

_JSON = "application/json"
_silent = logging.getLogger(f"{__name__}.aiohttp")
_silent.setLevel(logging.CRITICAL + 1)  # a malformed request is its sender's business; our own faults are logged below


class AdminServer:
    """Serves a router's state at one address.

    `token` is what a TCP client has to show, None for no token; a unix socket is guarded by its mode and asks for none.
    `reload` has the configuration loaded again and says what came of it, with an `ok`. Where it is not `required`, a router that can't listen says so and does
    its work.
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
        """Where it listens; once started, with the real port."""
        self._token = None if token is None or address.path is not None else f"Bearer {token}".encode()
        self._judges_host = address.path is None and token is None
        self._view = view
        self._measured = measured
        self._reload = reload
        self._exposition: Exposition | None = None
        self._held = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Listen. Raises `ConfigError` when it can't and must."""
        try:
            listener = Listener(self.address)
        except ConfigError as error:
            if self._required:
                raise
            log.warning("nobody can watch this router", reason=error.problems[0].message)
            return
        self._held.callback(listener.close)
        self.address = listener.address
        await self._serve(listener)
        log.info("the admin side listens", address=str(self.address), token=self._token is not None)

    async def _serve(self, listener: Listener) -> None:
        from aiohttp import web  # noqa: PLC0415  # see above

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
        self._held.push_async_callback(runner.cleanup)
        await runner.setup()
        loop = asyncio.get_running_loop()
        serve = loop.create_server if self.address.path is None else loop.create_unix_server
        server = await serve(partial(_connection, runner), sock=listener.socket)
        self._held.callback(server.close)

    async def close(self) -> None:
        """Stop listening, finish what is being answered within a second, remove the socket's file."""
        await self._held.aclose()

    def _routes(self) -> dict[str, Handler]:
        return {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            STATUS: self._status,
        }

    # Who may ask.

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may ask, and answer every fault in JSON."""
        from aiohttp import web  # noqa: PLC0415  # see above

        if self._judges_host and not _names_this_machine(request.host):
            # A web page whose name is made to resolve to 127.0.0.1 (DNS rebinding) sends its own name.
            return _fault(421, f"this address answers to 127.0.0.1, ::1 and localhost, not to {request.host!r}")
        if request.method == "POST" and "Origin" in request.headers:
            # Only web pages send one: a page must not do what the user whose browser shows it may.
            return _fault(403, "this is not for web pages")
        if not self._allowed(request) and request.path not in {"/livez", "/readyz"}:
            answer = _fault(401, "a token is needed: Authorization: Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        try:
            response = await handler(request)
        except web.HTTPNotFound:
            return _fault(404, f"there is nothing here; there is {', '.join(self._routes())}, and POST {RELOAD}")
        except web.HTTPMethodNotAllowed as error:
            answer = _fault(
                405, f"{error.method} is not allowed here, {' and '.join(sorted(error.allowed_methods))} is"
            )
            answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except web.HTTPException as error:
            return _fault(error.status, error.reason)
        except Exception:
            log.exception("the admin side failed to answer", path=request.path)
            return _fault(500, "this is a fault of the router; its log says more")
        return response

    def _allowed(self, request: web.Request) -> bool:
        """Return whether the request shows the token, where there is one."""
        if self._token is None:
            return True
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(shown, self._token)

    # What is answered.

    async def _livez(self, _request: web.Request) -> web.StreamResponse:
        """The event loop turns: it has just answered."""
        return _answer({"alive": True})

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        """200 or 503. Why, only to who may know: the reasons name servers."""
        now = self._view.snapshot()
        told: dict[str, Any] = {"ready": now.ready}
        if self._allowed(request):
            told |= {"reasons": now.reasons, "warnings": now.warnings}
        return _answer(told, 200 if now.ready else 503)

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        await self._view.refresh()
        return _answer(document(self._view.snapshot()))

    async def _reloaded(self, _request: web.Request) -> web.StreamResponse:
        """200 with what changed, or 422 with what is wrong with the configuration on disk: then nothing did."""
        assert self._reload is not None
        told = await self._reload("HTTP")
        return _answer(told, 200 if told["ok"] else 422)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web  # noqa: PLC0415  # see above

        await self._view.refresh()
        if self._exposition is None:  # the import behind it takes a tenth of a second: not in the event loop's thread
            self._exposition = await asyncio.to_thread(Exposition, self._measured)
        body, content_type = self._exposition.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _connection(runner: web.AppRunner) -> asyncio.BaseProtocol:
    """Make what speaks on a new connection."""
    server = runner.server
    if server is None or len(server.connections) >= MOST_CONNECTIONS:
        return _Refusal()
    return server()


class _Refusal(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection: the limit is reached."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _answer(told: Any, status: int = 200) -> web.Response:
    from aiohttp import web  # noqa: PLC0415  # see above

    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    body = escape_json(msgspec.json.encode(told))
    return web.Response(body=body, status=status, content_type=_JSON, headers=headers)


def _fault(status: int, why: str) -> web.Response:
    return _answer({"error": why}, status)


def _names_this_machine(host: str) -> bool:
    """Return whether a Host header means this machine: a loopback address or `localhost`, whatever the port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return Address(None, name).local


def admin_side(config: AdminConfig, state: Path, instance: str) -> Callable[[Watch], AdminServer] | None:
    """Return what makes the admin side of a router that was configured so; None where it is off.

    `state` is its state directory, for the socket of a configuration that names none.
    """
    if config.listen == OFF:
        return None
    place = default_address(state, instance) if config.listen is None else address(config.listen)
    token = config.token.get_secret_value() if config.token else None

    def made(watch: Watch) -> AdminServer:
        required = config.listen is not None
        return AdminServer(
            place, token=token, view=watch, measured=watch.measured, reload=watch.reload, required=required
        )

    return made
