"""The admin server by itself: what it answers, whom it lets in, and what it does not let happen to it."""

import asyncio
import contextlib
import json
import logging
import socket

import aiohttp
import pytest
from msgspec.structs import replace

from router.admin.admin_client import Client
from router.admin.server import MOST_CONNECTIONS, AdminServer, admin_side
from router.config.models import AdminConfig
from router.config.scalars import Address
from router.core.accounts.books import Books
from router.errors import ConfigError, RouterError, UnavailableError
from router.ops.metrics import Measured
from tests.support.status import SINK, SNAPSHOT, SOURCE
from tests.support.waiting import PATIENCE, moment

TOKEN = "word-of-admin"
LOOPBACK = Address(None, "127.0.0.1", 0)


class Router:
    """Stands for the running router."""

    def __init__(self):
        self.now = SNAPSHOT
        self.refreshed = 0
        self.comes = {"ok": True, "changed": {"sinks": {"added": ["a"]}}, "problems": [], "waiting": {"gone": 3}}

    def snapshot(self):
        return self.now

    async def refresh(self):
        self.refreshed += 1

    async def reload(self, why):
        self.asked_by = why
        return self.comes

    @property
    def measured(self):
        return Measured(Books({}, {}), {}, self.snapshot)


@pytest.fixture
def router():
    return Router()


@pytest.fixture
async def serve(router):
    """Serve the router at an address; closed after the test."""
    async with contextlib.AsyncExitStack() as servers:

        async def serving(address=LOOPBACK, token=None):
            server = AdminServer(address, token=token, view=router, measured=router.measured, reload=router.reload)
            await server.start()
            servers.push_async_callback(server.close)
            return server

        yield serving


@contextlib.asynccontextmanager
async def session(server):
    """A client of the server; its URLs are relative."""
    at = server.address
    connector = aiohttp.UnixConnector(at.path) if at.path else None
    base = "http://localhost" if at.path else f"http://{at}"
    async with aiohttp.ClientSession(base, connector=connector) as client:
        yield client


async def answer(server, path, method="GET", **options):
    """Status, headers and body of one request."""
    async with session(server) as client, client.request(method, path, **options) as response:
        return response.status, response.headers, await response.read()


async def test_alive(serve):
    status, headers, body = await answer(await serve(), "/livez")
    assert (status, json.loads(body)) == (200, {"alive": True})
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Cache-Control"] == "no-store"


async def test_ready_and_why_not(serve, router):
    server = await serve()
    status, _, body = await answer(server, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": [], "warnings": []})
    router.now = replace(SNAPSHOT, sources={"web": replace(SOURCE, up=False, reason="deaf")}, notices=("no AOF",))
    status, _, body = await answer(server, "/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "reasons": ["source web: deaf"], "warnings": ["no AOF"]}
    assert router.refreshed == 0  # readiness waits for nobody


async def test_status(serve, router):
    _, _, body = await answer(await serve(), "/api/status")
    told = json.loads(body)
    assert told["books"]["sinks"]["audit"]["accepted"] == SINK.accepted
    assert told["balanced"] is True
    assert router.refreshed == 1


async def test_metrics(serve, router):
    server = await serve()
    status, headers, body = await answer(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'event_router_queue_events{sink="audit"} 6.0' in body
    asked = {"Accept": "application/openmetrics-text;version=1.0.0"}
    _, headers, body = await answer(server, "/metrics", headers=asked)
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert router.refreshed == 2


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "the paths are /livez, /readyz, /metrics, /api/status"),
        ("GET", "/metrics/../../etc/passwd", 404, "unknown path"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "unknown path"),
        ("POST", "/api/status", 405, "POST is not allowed here; use GET or HEAD"),
        ("DELETE", "/metrics", 405, "DELETE is not allowed"),
        ("POST", "/nowhere", 404, "unknown path"),
    ],
)
async def test_what_is_not_there(serve, method, path, status, said):
    found, _, body = await answer(await serve(), path, method)
    assert found == status
    assert said in json.loads(body)["error"]


async def test_a_reload_says_what_changed(serve, router):
    status, _, body = await answer(await serve(), "/api/reload", "POST")
    assert status == 200
    assert json.loads(body) == router.comes
    assert router.asked_by == "HTTP"


async def test_a_reload_that_was_refused_says_why(serve, router):
    router.comes = {"ok": False, "changed": None, "problems": [{"message": "no"}], "waiting": {}}
    status, _, body = await answer(await serve(), "/api/reload", "POST")
    assert (status, json.loads(body)) == (422, router.comes)


async def test_a_web_page_reloads_nothing(serve, router):
    headers = {"Origin": "http://127.0.0.1:9464"}
    status, _, body = await answer(await serve(), "/api/reload", "POST", headers=headers)
    assert (status, json.loads(body)) == (403, {"error": "requests from web pages are refused"})
    assert not hasattr(router, "asked_by")


async def test_a_reload_needs_the_token(serve, router):
    status, _, _ = await answer(await serve(token=TOKEN), "/api/reload", "POST")
    assert status == 401
    assert not hasattr(router, "asked_by")


async def test_head_has_no_body(serve):
    status, _, body = await answer(await serve(), "/livez", "HEAD")
    assert (status, body) == (200, b"")


async def test_a_fault_of_ours_is_500_and_logged(serve, router, monkeypatch):
    said = []
    monkeypatch.setattr("router.admin.server.log.exception", lambda message, **about: said.append((message, about)))
    router.now = None
    status, _, body = await answer(await serve(), "/api/status")
    assert status == 500
    assert "fault of the router" in json.loads(body)["error"]
    assert said == [("the admin side failed to respond to a request", {"path": "/api/status"})]


# Who may ask.


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer wörd-öf-ädmin", 401),
    ],
)
@pytest.mark.parametrize("path", ["/api/status", "/metrics", "/nowhere"])
async def test_the_token(serve, shown, status, path):
    headers = {} if shown is None else {"Authorization": shown}
    found, told, _ = await answer(await serve(token=TOKEN), path, headers=headers)
    assert found == (404 if status == 200 and path == "/nowhere" else status)
    assert told.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


async def test_without_the_token_a_probe_learns_yes_or_no(serve, router):
    server = await serve(token=TOKEN)
    router.now = replace(SNAPSHOT, phase="draining")
    status, _, body = await answer(server, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False})
    _, _, body = await answer(server, "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    assert json.loads(body)["reasons"] == ["the router is draining"]
    assert (await answer(server, "/livez"))[0] == 200


async def test_a_unix_socket_asks_for_no_token(serve, tmp_path):
    server = await serve(Address(str(tmp_path / "a.sock")), token=TOKEN)
    assert (await answer(server, "/api/status"))[0] == 200
    await server.close()
    assert not (tmp_path / "a.sock").exists()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("127.0.0.2", 200),
        ("localhost", 200),
        ("[::1]:9464", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("evil.example.org:9464", 421),
        ("[::", 421),
    ],
)
async def test_a_web_page_that_resolves_to_us_is_told_nothing(serve, host, status):
    found, _, _ = await answer(await serve(), "/livez", headers={"Host": host})
    assert found == status
    assert (await answer(await serve(token=TOKEN), "/livez", headers={"Host": host}))[0] == 200


# What it does not let happen to it.


async def raw(server, sent):
    """What comes back for these bytes until the server closes."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(1000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["header", "headers", "line", "tls", "garbage", "length"],
)
async def test_bad_requests_are_4xx_or_closed_and_not_logged(serve, sent, caplog):
    server = await serve()
    with caplog.at_level(logging.DEBUG):
        told = await raw(server, sent)
    assert told == b"" or told.split(b" ")[1].startswith(b"4")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (await answer(server, "/livez"))[0] == 200


async def test_more_connections_than_allowed_are_closed_at_once(serve, monkeypatch):
    monkeypatch.setattr("router.admin.server.PATIENCE", 1000.0)  # nobody is cut off for being slow
    server = await serve()
    at = server.address
    held = [await asyncio.open_connection(at.host, at.port) for _ in range(MOST_CONNECTIONS)]
    for _, writer in held:
        writer.write(b"GET /livez HTTP/1.1\r\n")  # and never the rest
    assert await raw(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(PATIENCE):
        while (await raw(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[:12] != (
            b"HTTP/1.1 200"
        ):
            await moment(0.01)


async def test_who_trickles_bytes_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr("router.admin.server.PATIENCE", 0.3)
    server = await serve()
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(b"GET /livez HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        while not reader.at_eof():
            writer.write(b"X: a\r\n")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read()
    assert loop.time() - began >= 0.25
    writer.close()


async def test_closing_waits_for_no_idle_connection(serve, monkeypatch):
    monkeypatch.setattr("router.admin.server.PATIENCE", 1000.0)
    server = await serve()
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    async with asyncio.timeout(PATIENCE):
        await server.close()
        assert await reader.read() == b""
    writer.close()
    await server.close()  # twice does no harm


# Where it is configured, and its client.


async def test_off(tmp_path):
    assert admin_side(AdminConfig(listen="off"), tmp_path, "default") is None


async def test_the_socket_of_a_configuration_that_says_nothing(tmp_path, router):
    server = admin_side(AdminConfig(), tmp_path, "orders")(router)
    await server.start()
    told = await asyncio.to_thread(Client(Address(str(tmp_path / "orders.sock"))).get, "/api/status")
    assert told["pid"] == SNAPSHOT.pid
    await server.close()


async def test_a_router_with_an_address_has_that_socket_too(tmp_path, router):
    named = Address(str(tmp_path / "named.sock"))
    server = admin_side(AdminConfig(listen=str(named)), tmp_path, "orders")(router)
    await server.start()
    for address in (named, Address(str(tmp_path / "orders.sock"))):
        assert (await asyncio.to_thread(Client(address).get, "/api/status"))["pid"] == SNAPSHOT.pid
    await server.close()
    assert list(tmp_path.iterdir()) == []
    local = Address(str(tmp_path / "orders.sock"))
    server = admin_side(AdminConfig(listen=str(local)), tmp_path, "orders")(router)
    await server.start()
    assert await asyncio.to_thread(Client(local).answers)
    await server.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_while_it_closes_is_closed(tmp_path, router, turns):
    local = Address(str(tmp_path / "orders.sock"))
    server = admin_side(AdminConfig(listen=str(local)), tmp_path, "orders")(router)
    await server.start()
    await asyncio.to_thread(Client(local).get, "/api/status")  # a server that nobody has asked accepts nothing itself
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(local.path)
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.close()
        client.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_a_failed_import_closes_its_connection_and_the_next_one_is_served(serve, monkeypatch):
    said = []
    failures = [MemoryError("none left"), MemoryError("none left"), OSError("too many open files")]

    async def failing():
        if failures:
            raise failures.pop(0)

    monkeypatch.setattr("router.admin.server.log.exception", lambda message, **_about: said.append(message))
    monkeypatch.setattr("router.admin.server.import_aiohttp", failing)
    monkeypatch.setattr("router.admin.server.AFTER_FAILURE", 0.0)
    server = await serve()
    while failures:
        client = socket.create_connection((server.address.host, server.address.port), PATIENCE)
        with client, contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(client.recv, 1) == b""
    status, _, _ = await answer(server, "/livez")
    assert status == 200
    assert said == ["the admin side can't serve; the next connection starts another attempt"] * 2, (
        "one line for each reason"
    )


async def test_closing_waits_for_no_import_that_hangs(router, monkeypatch):
    begun = asyncio.Event()

    async def hanging():
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("router.admin.server.import_aiohttp", hanging)
    monkeypatch.setattr("router.admin.server.PATIENCE", 0.05)
    server = AdminServer(LOOPBACK, token=None, view=router, measured=router.measured)
    await server.start()
    with socket.create_connection((server.address.host, server.address.port), PATIENCE) as client:
        await begun.wait()
        async with asyncio.timeout(PATIENCE):
            await server.close()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(client.recv, 1) == b""


async def test_that_socket_is_not_worth_a_router_that_does_not_start(tmp_path, router, monkeypatch):
    said = []
    monkeypatch.setattr("router.admin.server.log.warning", lambda message, **about: said.append((message, about)))
    (tmp_path / "orders.sock").write_text("in the way")
    server = admin_side(AdminConfig(), tmp_path, "orders")(router)
    await server.start()
    await server.close()
    assert "the router goes on, but commands may not find" in said[0][0]
    assert "is not a socket" in said[0][1]["reason"]


async def test_a_configured_one_is(tmp_path, router):
    (tmp_path / "a.sock").write_text("in the way")
    server = admin_side(AdminConfig(listen=f"unix:{tmp_path}/a.sock"), tmp_path, "default")(router)
    with pytest.raises(ConfigError, match="not a socket"):
        await server.start()
    await server.close()


async def test_the_client_shows_the_token(serve):
    server = await serve(token=TOKEN)
    told = await asyncio.to_thread(Client(server.address, TOKEN).get, "/api/status")
    assert told["balanced"] is True
    with pytest.raises(RouterError, match="refuses the token"):
        await asyncio.to_thread(Client(server.address, "wrong").get, "/api/status")
    with pytest.raises(RouterError, match="answers 404: unknown path"):
        await asyncio.to_thread(Client(server.address, TOKEN).get, "/nowhere")


async def test_the_client_of_nobody(tmp_path):
    with pytest.raises(UnavailableError, match=r"no router answers at unix:.*: no such file"):
        Client(Address(str(tmp_path / "a.sock"))).get("/api/status")
    assert not Client(Address(str(tmp_path / "a.sock"))).answers()


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"])
async def test_the_client_of_something_else(said):
    async def speak(reader, writer):
        writer.write(said)
        await reader.read(1000)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(RouterError, match=r"no router answers|not event-router"):
            await asyncio.to_thread(Client(Address(None, "127.0.0.1", port)).get, "/api/status")


def test_the_client_of_a_router_that_hangs(monkeypatch):
    monkeypatch.setattr("router.admin.admin_client.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # the kernel connects, nobody reads
        at = Address(None, *hangs.getsockname())
        with pytest.raises(UnavailableError, match=r"does not answer within 0\.2 s"):
            Client(at).get("/api/status")
