"""Access to a Redis server: options from a URL, redis-py connections and clients, errors in plain words; floor 4.

The retries of redis-py are switched off everywhere. If the answer to a command was lost, the server may have run the
command. So the caller must decide whether the command can be sent again safely.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import redis.exceptions as failures
from redis.asyncio import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.broker.server import answers
from router.config import redis_url
from router.config.redis_url import shown
from router.errors import ConfigError, Problem, RouterError, UnavailableError

TIMEOUT = 5.0
"""Seconds allowed for connecting, and for the answer to one command."""

SILENCE = 9.0
"""Seconds without a byte after which the other side counts as dead. The limit also applies to sent bytes that TCP has
not acknowledged."""

_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_NAMED_TLS_OPTIONS = frozenset(redis_url.TLS_OPTIONS) - {"ssl_password"}


class Server(msgspec.Struct, frozen=True):
    """A Redis server and the options for connecting to it. Its `repr` shows no credentials."""

    shown: str
    """The address without credentials."""
    client_name: str
    """The name of the router's connections in `CLIENT LIST`."""
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Server({self.shown!r}, {self.client_name!r})"

    def connection(self) -> AbstractConnection:
        """Return a redis-py connection that is not open yet. The connection uses RESP2."""
        return self.connection_class(**self.options)

    def client(self) -> Redis:
        """Return a redis-py client with its own pool; the caller closes the client."""
        return Redis.from_pool(ConnectionPool(connection_class=self.connection_class, **self.options))


def server(url: str, *, client_name: str = "event-router", database: bool = True) -> Server:
    """Check a `redis://`, `rediss://` or `unix://` URL with all its options; return the server that the URL names.

    `client_name` is the name of the connections in `CLIENT LIST`. If `database` is False, the database number is
    ignored, because pub/sub does not use a database. Raises `ConfigError` for an invalid URL; the text of the error
    never contains a credential.
    """
    address = shown(url)
    options: dict[str, Any] = {**_parsed(url, address)}
    connection_class = options.pop("connection_class", Connection)
    if not database:
        options.pop("db", None)
    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, **options}
    options |= {"client_name": None, "driver_info": None, "protocol": 2}
    options["retry"] = Retry(NoBackoff(), 0)
    if not issubclass(connection_class, UnixDomainSocketConnection):
        options["socket_keepalive_options"] = _keepalive()
    _check_tls(connection_class, options, address)
    return Server(address, _client_name(client_name), connection_class, options)


def explain(error: BaseException, address: str) -> RouterError:
    """Return the router's error for a failed connection or command.

    The result is a `ConfigError` if an operator must act, or an `UnavailableError` if the failure is temporary.
    """
    text = answers.error_text(error).rstrip(".")
    match error:
        case RouterError():
            return error
        case failures.AuthenticationError() | failures.AuthorizationError():
            return _config(f"{address}: {_login(text)}")
        case failures.NoPermissionError():
            return _config(f"{address}: Redis refuses the command, because the Redis user lacks the permission: {text}")
        case failures.BusyLoadingError():
            return UnavailableError(f"{address}: Redis is still loading its data")
        case failures.InvalidResponse():
            return _config(f"{address}: the server does not speak the Redis protocol, or it requires TLS (rediss://)")
        case failures.TimeoutError() | TimeoutError():
            hint = " (if the server does not speak TLS, write redis://)" if address.startswith("rediss:") else ""
            return UnavailableError(f"{address}: no answer in time{hint}")
        case failures.ResponseError():
            make = UnavailableError if answers.is_temporary(error) else _config
            return make(f"{address}: {_first_sentence(text)}")
    return _network(error, address, text)


def unexpected(error: BaseException) -> BaseException | None:
    """Return the error if it is a fault of the router, else None.

    Errors of redis-py and of the network, and every `RouterError`, are not faults of the router.
    """
    return None if isinstance(error, failures.RedisError | OSError | TimeoutError | RouterError) else error


def _network(error: BaseException, address: str, text: str) -> RouterError:
    """Do the work of `explain` for errors of the network and of TLS.

    redis-py raises an error of its own. The original error is its cause.
    """
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    match cause:
        case ssl.SSLCertVerificationError():
            why = f"its certificate can't be trusted: {cause.verify_message}"
            return _config(f"{address}: {why}; give the certificate of its authority with ?ssl_ca_certs=FILE")
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return _config(f"{address}: the server does not speak TLS; try redis://")
        case socket.gaierror():
            return UnavailableError(f"{address}: the host name can't be resolved")
        case ConnectionRefusedError():
            return UnavailableError(f"{address}: connection refused")
        case FileNotFoundError():
            return UnavailableError(f"{address}: there is no such socket")
        case OSError() if cause.strerror and cause.errno:
            return UnavailableError(f"{address}: {cause.strerror.lower()}")
    if "Errno 111" in text or "Connect call failed" in text:
        return UnavailableError(f"{address}: connection refused")
    return UnavailableError(f"{address}: {_first_sentence(text) or type(error).__name__}")


def _parsed(url: str, address: str) -> Mapping[str, Any]:
    """Return the options that redis-py reads from the URL.

    The error text of redis-py may contain the password, so this text is never shown.
    """
    wrong = redis_url.fault(url)
    if wrong:
        raise _config(f"{address}: {wrong}")
    try:
        options: Mapping[str, Any] = parse_url(url)
    except ValueError as error:
        raise _config(f"{address}: this URL can't be read{redis_url.ENCODED}") from error
    return options


def _check_tls(kind: type[AbstractConnection], options: Mapping[str, Any], address: str) -> None:
    """Build the TLS context once, as a check. Raises `ConfigError` if a file is missing.

    Without this check, a missing certificate file would later be reported as an unreachable server.
    """
    if not issubclass(kind, SSLConnection):
        return
    try:
        for key in sorted(_TLS_FILES & options.keys()):
            if not Path(options[key]).is_file():  # reading a named pipe would wait for its writer
                raise ValueError(f"{key}: there is no such file")
        kind(**options).ssl_context.get()
    except (OSError, ValueError, failures.RedisError) as error:
        names = ", ".join(f"{key}={options[key]}" for key in sorted(options) if key in _NAMED_TLS_OPTIONS)
        raise _config(f"{address}: TLS can't be set up with {names}: {error}") from error


def _keepalive() -> dict[int, int]:
    """Return the TCP options that detect that the other side is dead.

    On an idle connection, keepalive detects a dead other side. On a busy connection, a time limit for unacknowledged
    bytes does. Linux has all of these options; other systems have only some of the options.
    """
    wanted = {
        "TCP_KEEPIDLE": 5,
        "TCP_KEEPINTVL": 2,
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": int(SILENCE * 1000),
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _client_name(name: str) -> str:
    """Return `name` with `-` in place of each character that CLIENT SETNAME refuses. It allows only visible ASCII."""
    return re.sub(r"[^!-~]", "-", name)


def _login(text: str) -> str:
    if "required" in text.lower() or text.startswith("NOAUTH"):
        return "Redis requires a password: put it into the URL, redis://:PASSWORD@host (or redis://USER:PASSWORD@host)"
    if "without any password configured" in text or "no password is set" in text:
        return "Redis has no password, but the URL contains one: remove the password from the URL"
    return f"Redis refused the login: {_first_sentence(text)}"


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0][:300]


def _config(message: str) -> ConfigError:
    return ConfigError([Problem(message)])


async def dial(server: Server) -> AbstractConnection:
    """Open a connection, log in, set the connection's name, and wait for the answer to one PING; return the connection.

    Raises redis-py's errors, also while the server loads its data. Error answers to CLIENT SETNAME and PING, except
    MASTERDOWN, are ignored, because they show that the server is reachable. For example, pub/sub works even if the user
    has no permission for PING, or if the disk is full.
    """
    connection = server.connection()
    try:
        with broken():
            await connection.connect()  # type: ignore[no-untyped-call]
            for words in (("CLIENT", "SETNAME", server.client_name), ("PING",)):
                await connection.send_command(*words)
        for _ in range(2):
            try:
                await connection.read_response()
            except failures.MasterDownError:
                raise
            except failures.ResponseError:
                pass
    except BaseException:
        await close(connection)
        raise
    return connection


class Backoff:
    """Exponential delays with full jitter, so that many routers do not retry at the same moment. Times are seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.tries = 0
        """The number of delays returned since the last `reset`."""

    def next(self) -> float:
        """Return the seconds until the next attempt: a random time below a limit that doubles with each call."""
        bound = min(self._longest, self._first * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return random.random() * bound  # noqa: S311  # spreads load, keeps no secret

    def reset(self) -> None:
        """Start again with the limit of the first delay, because an attempt has succeeded."""
        self.tries = 0


def take_over(connection: AbstractConnection, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
    """Let the transport of an open connection call `protocol` from now on; return the transport.

    redis-py must have read all answers so far. Raises redis-py's `ConnectionError` if the connection has ended.
    """
    writer, reader = connection._writer, connection._reader  # noqa: SLF001  # redis-py has no public access to these
    if writer is None or reader is None or reader.at_eof() or writer.transport.is_closing():
        raise failures.ConnectionError("Connection closed by server.")
    transport = writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]  # uvloop uses the protocol that is set when reading begins
    transport.set_protocol(protocol)
    transport.resume_reading()  # type: ignore[attr-defined]
    return transport  # type: ignore[return-value]


@contextlib.contextmanager
def broken() -> Iterator[None]:
    """Raise redis-py's `ConnectionError` for a connection that ends during a write.

    uvloop raises a plain `RuntimeError` for a write in the short time after the end of the transport, before the reader
    is informed of the end. redis-py does not translate this error.
    """
    try:
        yield
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        raise failures.ConnectionError("the connection was closed") from error


async def close(connection: AbstractConnection) -> None:
    """Close a connection without waiting for the other side."""
    with contextlib.suppress(failures.RedisError, OSError):
        await connection.disconnect(nowait=True)
