"""Stand-ins for the service of a sink or the store of a lookup: an interface, and an HTTP server; floor 7."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    import ssl

RETRY_AFTER = 7
"""The delay in seconds that a `busy` stand-in asks for."""

Failure = Literal["unavailable", "refused", "busy", "silent"]
"""The failures that a stand-in can simulate:

- `unavailable`: the service is out of order for now (HTTP 503, SMTP 451);
- `refused`: the service never accepts this message (HTTP 400, SMTP 550);
- `busy`: the service asks the sender to try again in `RETRY_AFTER` seconds (HTTP 429 with Retry-After);
- `silent`: the service reads the message and does not respond.
"""


class Service(Protocol):
    """The interface of a stand-in, which `check_sink` and `check_lookup` make fail.

    Implement this class for a service that does not speak HTTP.
    """

    @property
    def received(self) -> int:
        """The number of messages accepted so far, or of requests with a successful response."""

    def fail(self, failure: Failure, times: int | None = None) -> None:
        """Make the next `times` messages fail in this way. None means all messages until `recover`.

        Raises `NotImplementedError` if this service can't simulate the failure. Then the rules that need the failure
        are not checked.
        """

    def recover(self) -> None:
        """Accept messages again. End the failure `silent` for messages that wait."""


def made_to_fail(service: Service | None, failure: Failure, times: int | None = None) -> bool:
    """Call `Service.fail`. Return False if there is no stand-in, or if it can't simulate the failure."""
    if service is None:
        return False
    try:
        service.fail(failure, times)
    except NotImplementedError:
        return False
    return True


class Request(msgspec.Struct, frozen=True):
    """A request as it arrived. `target` is the path with its query; names in `headers` are case-insensitive."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        """Return the decoded body. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)


_STATUS: Mapping[Failure, int] = {"unavailable": 503, "refused": 400, "busy": 429}


class HttpService:
    """An HTTP server on the loopback interface that stands in for a service. It implements `Service`.

    `with HttpService() as service:` starts and stops the server; `service.url` is its address (http://127.0.0.1:PORT).
    The server runs in its own thread, so a test may be a plain function or a coroutine.

    The server responds with status 200 and the JSON value `answer`. With `records`, it responds like a store: with the
    JSON value of the requested path, or with 404 for any other path. With `tls`, the TLS context of a server, it speaks
    HTTPS.
    """

    def __init__(
        self, answer: Any = None, *, records: Mapping[str, Any] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.url = ""
        self.requests: list[Request] = []
        """All requests, including those that were made to fail."""
        self.received = 0
        """The number of requests that got a successful response."""
        self._answer = {"ok": True} if answer is None else answer
        self._records = records
        self._tls = tls
        self._failure: Failure | None = None
        self._times: int | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spoken = asyncio.Event()  # set when the silence ends
        self._stopped = asyncio.Event()

    def fail(self, failure: Failure, times: int | None = None) -> None:
        """Make the next `times` requests fail in this way. None means all requests until `recover`."""
        self._failure, self._times = failure, times

    def recover(self) -> None:
        """Respond to requests successfully again. Close the connections that still wait for a response."""
        self._failure = None
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._speak)

    def _speak(self) -> None:
        self._spoken.set()
        self._spoken = asyncio.Event()

    def __enter__(self) -> Self:
        """Start the server. Raises `OSError` if it can't listen."""
        started: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="stand-in", daemon=True)
        self._thread.start()
        self.url = started.result()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop the server and close its connections."""
        self.recover()
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()
        self._loop = None

    async def _serve(self, started: Future[str]) -> None:
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        except BaseException as error:  # noqa: BLE001  # it is raised in the thread that waits
            started.set_exception(error)
            return
        self._loop = asyncio.get_running_loop()
        started.set_result(f"http{'s' if self._tls else ''}://127.0.0.1:{runner.addresses[0][1]}")
        await self._stopped.wait()
        await runner.cleanup()

    def _next_failure(self) -> Failure | None:
        failure = self._failure
        if self._times is not None:
            self._times -= 1
            if self._times <= 0:
                self._failure = self._times = None
        return failure

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Request(request.method, request.raw_path, request.headers, await request.read())
        self.requests.append(seen)
        failure = self._next_failure()
        if failure == "silent":
            await self._spoken.wait()
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if failure is not None:
            headers = {"Retry-After": str(RETRY_AFTER)} if failure == "busy" else {}
            return web.json_response({"ok": False, "error": failure}, status=_STATUS[failure], headers=headers)
        self.received += 1
        if self._records is None:
            return web.json_response(self._answer)
        if seen.path not in self._records:
            return web.json_response({"error": "not found"}, status=404)
        return web.json_response(self._records[seen.path])
