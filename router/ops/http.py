"""The guarded HTTP client of sinks; floor 4.

All HTTP requests for events use this client. An address is checked when the client connects to it. So a host name that
resolves to a different address a moment later (DNS rebinding) is caught too. Redirects are never followed and cookies
never stored. At most 64 KiB of a response are read. No error contains the URL, because a URL may be a credential.

aiohttp is imported at the first request, so that commands without requests start fast.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from router.core.egress import private_address, private_host
from router.core.recent import Recent
from router.errors import DeliveryError, PermanentError, SinkError, TransientError
from router.ops.http_request import checked, encoded, parsed, through, with_defaults

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import yarl
    from aiohttp.abc import AbstractResolver, ResolveResult
    from multidict import CIMultiDict

CONNECT_TIMEOUT = 5.0
"""Seconds for resolving, connecting and the TLS handshake. The whole attempt has a time limit of its own in the
router."""

MAX_BODY = 64 * 1024
"""The largest number of bytes of a response body that are read."""

REMEMBERED_URLS = 100
"""The largest number of URLs that a client remembers in parsed form."""

_AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
_Result = TypeVar("_Result")


class Answer(msgspec.Struct, frozen=True):
    """The response to one request. Names in `headers` are case-insensitive. `body` holds at most the first 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body. Raises `ValueError` if the body is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise ValueError("the response is not JSON") from None


_imported = threading.Event()


async def import_aiohttp() -> None:
    """Import aiohttp in a thread, because the import takes 0.2 s, too long for the event loop.

    Later calls return at once.
    """
    if not _imported.is_set():
        await _in_thread(partial(importlib.import_module, "aiohttp.web"), "import aiohttp")
        _imported.set()


class GuardedClient:
    """The HTTP client of one sink. Connections stay open between requests, until `close`.

    `proxy` is an `http://` or `https://` URL, with user and password if the proxy needs them; empty means no proxy. A
    proxy resolves host names itself. So with a proxy, the client checks only hosts that are written as IP
    addresses. `connect_timeout` is in seconds. `ssl_context` replaces the system's trust store. `allow_private` permits
    private addresses for every request. `owner` names the owner of the client in messages.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        allow_private: bool = False,
        owner: str = "sink",
    ) -> None:
        self._owner = owner
        self._proxy = proxy or None
        self._connect_timeout = connect_timeout
        self._ssl = ssl_context
        self._allow_private = allow_private
        # One pool for guarded requests, and one pool for all other requests: a guarded request must not reuse a
        # connection to a private address.
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._targets = Recent(REMEMBERED_URLS)
        self._last_headers: tuple[Mapping[str, str], bool, CIMultiDict[str] | None] = {}, False, None

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
    ) -> Answer:
        """Send one request and return the response, whatever its status.

        The URL is sent as written, because a service may have signed it. The body is the encoded `json`, or `data` if
        `json` is None. A cancelled request closes its connection.

        No error contains the URL. The errors are:

        - `TransientError`: no connection, or no complete response
        - `SinkError`: an untrusted certificate, or a proxy that refuses the credentials
        - `PermanentError`: a private address without `allow_private`, an invalid URL, or an invalid header
        """
        failure: DeliveryError
        if not self._sessions:
            await self._load()
        allow_private = allow_private or self._allow_private
        try:
            fields = self._fields(headers, is_json=json is not None)
            body = data if json is None else encoded(json)
            target, authorization, private = self._target(url)
            if private and not allow_private:
                raise _private(target.raw_host or "", self._owner)
            session = self._session(guarded=not (allow_private or self._proxy))
            more: dict[str, Any] = {}
            if authorization or self._proxy:
                fields = with_defaults(fields, authorization)
                more = through(self._proxy, target, fields)
            # `async with` would add two coroutines to each step of the request.
            response = await session.request(method, target, data=body, headers=fields, allow_redirects=False, **more)
            try:
                return Answer(response.status, response.headers, await _read(response))
            finally:
                if not response.closed:
                    response.close()  # the rest of the response was not read
        except DeliveryError:
            raise
        except Exception as error:  # noqa: BLE001  # any error of aiohttp is replaced by one without the URL
            failure = _rebuilt(error, self._connect_timeout, self._owner)
        raise failure  # not in the handler: otherwise its context would be aiohttp's error, which contains the URL

    async def close(self) -> None:
        """Close all connections. A later request opens new connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def _load(self) -> None:
        try:
            await import_aiohttp()
        except Exception as error:
            raise TransientError(f"the HTTP client can't be loaded ({type(error).__name__})") from error

    def _fields(self, headers: Mapping[str, str] | None, *, is_json: bool) -> CIMultiDict[str]:
        """Return the headers to send.

        The last headers are remembered, because many sinks send the same headers every time.
        """
        last, last_is_json, fields = self._last_headers
        if fields is None or last_is_json is not is_json or last != (headers or {}):
            fields = checked(headers, is_json=is_json)
            self._last_headers = dict(headers or {}), is_json, fields
        return fields

    def _target(self, text: str) -> tuple[yarl.URL, dict[str, str], bool]:
        """Return three values: a URL without its credentials, the credentials as a header, and whether the host is
        private.

        The last URLs are remembered, because most sinks have only one URL. The host is checked as it is written,
        without resolving names. Raises `PermanentError` for an invalid URL.
        """
        found: tuple[yarl.URL, dict[str, str], bool] | None = self._targets.get(text)
        if found is None:
            url, authorization = parsed(text, "the URL")
            found = self._targets[text] = url, authorization, private_host(url.raw_host or "")
        return found

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(guarded)
        if session is None:
            session = self._sessions[guarded] = self._new_session(guarded=guarded)
        return session

    def _new_session(self, *, guarded: bool) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415  # see the module's docstring

        connector = aiohttp.TCPConnector(
            limit=0,  # the sink's concurrency is the limit
            resolver=cast("AbstractResolver", _Resolver(guarded=guarded)),
            socket_factory=_guarded_socket if guarded else None,
            ssl=self._ssl or True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            auto_decompress=False,  # a small compressed body could exceed any limit when decompressed
        )


class _PrivateAddressError(OSError):
    """The error for a private address that must not be used.

    It is an OSError, because aiohttp lets an OSError through.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class _Resolver:
    """The resolver of host names: uses a daemon thread for each lookup, and checks every address.

    The executor of the event loop has few threads, which all sinks share. There, a name server that hangs would block
    the other sinks and the exit of the process. aiohttp makes one lookup per name at a time, and caches the result for
    10 s.
    """

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises OSError if the name has no address, or if an address is private and must not be used.
        """
        found = await _in_thread(partial(_addresses, host, port, family), "resolve")
        if self._guarded:
            for *_, address in found:
                _refuse_private(address[0])
        return [
            {"hostname": host, "host": _scoped(address), "port": port, "family": kind, "proto": proto, "flags": 0}
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing, because the resolver has no resources to release."""


def _addresses(host: str, port: int, family: int) -> list[_AddressInfo]:
    """Return the addresses from the system's resolver. Raises OSError, also for a string that is not a host name."""
    try:
        found: list[Any] = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:
        raise OSError("not a host name") from None
    return found


async def _in_thread(work: Callable[[], _Result], name: str) -> _Result:
    """Run a function in its own daemon thread, and return the result.

    The exit of the process does not wait for the thread.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()  # otherwise `set_result` would raise if the waiting task was cancelled

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001  # raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)


def _scoped(address: tuple[Any, ...]) -> str:
    """Return the address as text, with its zone if it has one (IPv6 link-local)."""
    has_zone = len(address) == 4 and address[3]
    return f"{address[0]}%{address[3]}" if has_zone else str(address[0])


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """Check an address and return a socket for it. This is the only check for an address that is written in the URL."""
    family, kind, proto, _, address = info
    _refuse_private(address[0])
    return socket.socket(family, kind, proto)


def _refuse_private(address: Any) -> None:
    if private_address(str(address)):
        raise _PrivateAddressError(str(address))


def _private(address: str, owner: str) -> PermanentError:
    return PermanentError(f"{address} is a private address; set `allow_private: true` on the {owner}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body up to `MAX_BODY` bytes. The rest of a longer body is not read."""
    content = response.content
    body = content.read_nowait(MAX_BODY) if content.is_eof() else await content.read(MAX_BODY)
    if content.at_eof() or not body:
        return body  # a small body, which arrives in one piece
    whole = bytearray(body)
    while len(whole) < MAX_BODY:
        chunk = await content.read(MAX_BODY - len(whole))
        if not chunk:
            break
        whole += chunk
    return bytes(whole)


def _rebuilt(error: Exception, connect_timeout: float, owner: str) -> DeliveryError:
    """Return the router's error for an error of aiohttp. The text of aiohttp's error may contain the URL."""
    import aiohttp  # noqa: PLC0415  # see the module's docstring

    refused = _find(error, _PrivateAddressError)
    if refused is not None:
        return _private(refused.address, owner)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return SinkError(f"the server's certificate can't be trusted: {_certificate_fault(error)}")
        case aiohttp.ClientConnectorDNSError():
            return TransientError("the host name can't be resolved")
        case aiohttp.ClientProxyConnectionError():
            return TransientError(f"no connection to the proxy: {_cause(error)}")
        case aiohttp.ClientConnectorSSLError():
            return TransientError("the TLS handshake failed")
        case aiohttp.ClientConnectorError():
            return TransientError(f"no connection to the server: {_cause(error)}")
        case aiohttp.ClientHttpProxyError(status=407):
            return SinkError("the proxy refuses the credentials (HTTP 407)")
        case aiohttp.ClientHttpProxyError():
            return TransientError(f"the proxy refused with HTTP {error.status}")
        case aiohttp.InvalidURL():
            return PermanentError("the URL is not valid")
        case TimeoutError():
            return TransientError(f"no connection within {connect_timeout:g} s")
        case aiohttp.ServerDisconnectedError():
            return TransientError("the server closed the connection without a response")
        case aiohttp.ClientPayloadError():
            return TransientError("the connection ended before the response was complete")
        case aiohttp.ClientResponseError():
            return TransientError("the response is not HTTP")
        case OSError():
            return TransientError(f"the connection broke: {_cause(error)}")
    return TransientError(f"the request failed ({type(error).__name__})")


def _cause(error: BaseException) -> str:
    """Return the system's text for an error, such as `connection refused`, without the address that asyncio adds."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else "unknown cause"


def _certificate_fault(error: Exception) -> str:
    message = getattr(getattr(error, "certificate_error", None), "verify_message", "")
    return str(message).rstrip(".") or "the check failed"


def _find(error: BaseException | None, kind: type[_PrivateAddressError]) -> _PrivateAddressError | None:
    """Return an error of this kind among the causes, else None.

    The number of steps is bounded, because the chain may be cyclic.
    """
    for _ in range(10):
        if error is None or isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None
