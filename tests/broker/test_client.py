from __future__ import annotations

import asyncio
import os
import socket
import ssl

import pytest
import redis.exceptions as failures
from redis.asyncio import SSLConnection, UnixDomainSocketConnection

from router.broker.server import client
from router.errors import ConfigError, UnavailableError

SECRET = "hunter2"


def test_options_come_from_the_url():
    server = client.server("redis://bob:p%23w@cache:6380/3?socket_timeout=2", client_name="event-router:a b")
    options = server.options
    wanted = {"host": "cache", "port": 6380, "db": 3, "username": "bob", "password": "p#w", "socket_timeout": 2.0}
    assert wanted.items() <= options.items()
    assert server.client_name == "event-router:a-b"
    assert options["protocol"] == 2
    assert options["socket_connect_timeout"] == client.TIMEOUT
    assert options["retry"].get_retries() == 0


def test_each_scheme_has_its_connection():
    assert issubclass(client.server("rediss://cache").connection_class, SSLConnection)
    assert issubclass(client.server("unix:///s").connection_class, UnixDomainSocketConnection)
    assert client.server("unix:///s?db=4").options["db"] == 4
    assert "db" not in client.server("redis://cache/4", database=False).options


def test_unacknowledged_bytes_and_silence_end_a_tcp_connection():
    options = client.server("redis://cache").options["socket_keepalive_options"]
    assert options[socket.TCP_USER_TIMEOUT] == 9000
    assert options[socket.TCP_KEEPIDLE] + options[socket.TCP_KEEPINTVL] * options[socket.TCP_KEEPCNT] <= 9


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"http://{SECRET}", "begin with redis://, rediss:// or unix://"),
        (f"redis://:{SECRET}#x@cache", "`#` in the user name or the password as %23"),
        (f"redis://:{SECRET}@cache?sokcet_timeout=3", "unknown option 'sokcet_timeout'"),
        (f"rediss://:{SECRET}@cache?ssl_password=a&ssl_ca_certs=b&x=c", "unknown option 'x'"),
        (
            f"rediss://:{SECRET}@cache?ssl_ca_certs=/does/not/exist",
            "TLS can't be set up with ssl_ca_certs=/does/not/exist",
        ),
    ],
)
def test_a_faulty_url_is_a_config_error_without_the_password(url, said):
    with pytest.raises(ConfigError) as caught:
        client.server(url)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_certificate_file_that_is_a_pipe_is_not_waited_for(key, tmp_path):
    os.mkfifo(tmp_path / "pem")
    with pytest.raises(ConfigError, match=f"{key}: there is no such file"):
        client.server(f"rediss://cache?{key}={tmp_path / 'pem'}")


def test_a_server_prints_no_credential():
    assert SECRET not in repr(client.server(f"redis://bob:{SECRET}@cache"))


def chained(cause: BaseException, outer: Exception | None = None) -> Exception:
    error = outer or failures.ConnectionError(str(cause))
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            failures.AuthenticationError("invalid username-password pair or user is disabled."),
            ConfigError,
            "refused the login",
        ),
        (failures.AuthenticationError("Authentication required."), ConfigError, "requires a password"),
        (
            failures.AuthenticationError(
                "AUTH <password> called without any password configured for the default user."
            ),
            ConfigError,
            "has no password",
        ),
        (
            failures.NoPermissionError("this user has no permissions to run 'x'"),
            ConfigError,
            "the Redis user lacks the permission",
        ),
        (failures.BusyLoadingError("LOADING"), UnavailableError, "still loading"),
        (failures.TimeoutError("x"), UnavailableError, "no answer in time"),
        (TimeoutError(), UnavailableError, "no answer in time"),
        (
            failures.ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"),
            UnavailableError,
            "read only replica",
        ),
        (
            failures.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.", status_code="OOM"),
            UnavailableError,
            "maxmemory",
        ),
        (failures.ResponseError("MISCONF Errors writing to the AOF file. More."), UnavailableError, "MISCONF"),
        (failures.ResponseError("DB index is out of range"), ConfigError, "DB index is out of range"),
        (failures.InvalidResponse("Protocol Error"), ConfigError, "does not speak the Redis protocol"),
        (chained(ConnectionRefusedError(111, "x")), UnavailableError, "connection refused"),
        (
            chained(OSError("Multiple exceptions: [Errno 111] Connect call failed")),
            UnavailableError,
            "connection refused",
        ),
        (chained(socket.gaierror(-2, "x")), UnavailableError, "can't be resolved"),
        (chained(FileNotFoundError(2, "x")), UnavailableError, "no such socket"),
        (chained(OSError(113, "No route to host")), UnavailableError, "no route to host"),
        (chained(ssl.SSLError("WRONG_VERSION_NUMBER")), UnavailableError, "WRONG_VERSION_NUMBER"),
        (failures.ConnectionError("Connection closed by server."), UnavailableError, "Connection closed by server"),
        (RuntimeError(), UnavailableError, "RuntimeError"),
    ],
)
def test_an_error_is_told_in_plain_words(error, kind, said):
    told = client.explain(error, "redis://cache:6379")
    assert isinstance(told, kind)
    assert str(told).startswith("redis://cache:6379: ")
    assert said in str(told)


def test_delays_are_a_random_part_of_a_bound_that_doubles(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 1.0)
    backoff = client.Backoff(0.1, 2.0)
    assert [backoff.next() for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    backoff.reset()
    assert backoff.next() == 0.1
    monkeypatch.setattr("random.random", lambda: 0.0)
    assert backoff.next() == 0.0


def test_delays_stay_bounded_for_ever():
    backoff = client.Backoff(0.1, 2.0)
    assert max(backoff.next() for _ in range(5000)) <= 2.0


async def test_a_connection_is_dialled_and_named(redis_server):
    connection = await client.dial(client.server(redis_server.url, client_name="event-router:test"))
    assert b"name=event-router:test" in redis_server.do("CLIENT", "LIST")
    await client.close(connection)


async def test_a_user_who_may_not_name_the_connection_is_let_in_without(redis_server):
    redis_server.do("ACL", "SETUSER", "shy", "on", ">pw", "&*", "-@all", "+subscribe")
    connection = await client.dial(client.server(f"redis://shy:pw@127.0.0.1:{redis_server.port}"))
    assert b"user=shy" in redis_server.do("CLIENT", "LIST")
    await client.close(connection)


async def test_a_server_that_is_loading_is_not_there_yet(start_server, kind):
    slow = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024", "save": "3600 1000000"}
    server = start_server(kind, options=slow)
    with server.client() as redis:
        redis.mset({f"key{i}": "x" * 100 for i in range(200)})
        redis.save()
    server.kill()
    server.start(ready=(b"-LOADING",))
    with pytest.raises(failures.BusyLoadingError):
        await client.dial(client.server(server.url))


async def test_what_is_no_redis_is_told_so():
    async def answer(reader, writer):
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(failures.RedisError) as caught:
            await client.dial(client.server(f"redis://127.0.0.1:{port}"))
    assert "does not speak the Redis protocol" in str(client.explain(caught.value, "x"))


@pytest.mark.parametrize("error", [failures.ConnectionError("reset"), OSError(), UnavailableError("redis://h: reset")])
def test_what_is_said_of_the_server_is_no_fault_of_ours_and_needs_no_traceback(error):
    assert client.unexpected(error) is None
    fault = KeyError("a fault of ours")
    assert client.unexpected(fault) is fault
