"""The guarded HTTP client against real servers on loopback."""

import asyncio
import gc
import socket
import ssl
import subprocess
import sys
import traceback
from base64 import b64decode
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from router.errors import DeliveryError, PermanentError, SinkError, TransientError
from router.ops import http as subject
from router.ops.http import MAX_BODY, Answer, GuardedClient
from tests.support.http import Reply, closed_port, raw_server, stand_in
from tests.support.waiting import PATIENCE, moment

SECRET = "T0P-S3CRET"


@pytest.fixture
async def server():
    async with stand_in() as server:
        yield server


@pytest.fixture
async def client():
    client = GuardedClient()
    yield client
    await client.close()


@asynccontextmanager
async def using(**options):
    client = GuardedClient(**options)
    try:
        yield client
    finally:
        await client.close()


def names(monkeypatch, **table):
    """Let these host names resolve to these addresses."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in table:
            return real(host, port, *args, **kwargs)
        found = table[host]() if callable(table[host]) else table[host]
        if isinstance(found, Exception):
            raise found
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# --- what is sent and what comes back ---------------------------------------------------------------------------------


async def test_json_is_sent_as_utf8_and_the_answer_comes_back(client, server):
    server.script(Reply(201, json={"id": 7}, headers={"X-Thing": "1"}))
    answer = await client.request("POST", f"{server.url}/a/b?c=d", json={"text": "Grüße"}, allow_private=True)
    assert (answer.status, answer.json(), answer.headers["x-thing"]) == (201, {"id": 7}, "1")
    assert (server.last.method, server.last.target) == ("POST", "/a/b?c=d")
    assert server.last.body == '{"text":"Grüße"}'.encode()
    assert server.last.headers["Content-Type"] == "application/json"
    assert server.last.headers["User-Agent"].startswith("event-router/")


async def test_bytes_are_sent_as_they_are_with_own_headers(client, server):
    headers = {"Content-Type": "text/plain", "Authorization": "Bearer x"}
    await client.request("PUT", server.url, data=b"\x00\xff", headers=headers, allow_private=True)
    assert (server.last.method, server.last.body) == ("PUT", b"\x00\xff")
    assert server.last.headers["Content-Type"] == "text/plain"
    assert server.last.headers["Authorization"] == "Bearer x"


async def test_headers_of_one_request_are_not_sent_with_the_next(client, server):
    headers = {"X-Number": "1"}
    for number in ("1", "1", "2"):
        headers["X-Number"] = number
        await client.request("POST", server.url, json={}, headers=headers, allow_private=True)
        assert (server.last.headers["X-Number"], server.last.headers["Content-Type"]) == (number, "application/json")
    await client.request("POST", server.url, data=b"x", headers=headers, allow_private=True)
    assert server.last.headers["Content-Type"] != "application/json"
    await client.request("POST", server.url.replace("//", "//jo:secret@"), headers=headers, allow_private=True)
    assert "Authorization" in server.last.headers
    await client.request("POST", server.url, headers=headers, allow_private=True)
    assert "Authorization" not in server.last.headers
    await client.request("GET", server.url, allow_private=True)
    assert "X-Number" not in server.last.headers


async def test_a_header_replaces_that_of_the_client_in_any_case(client, server):
    await client.request("GET", server.url, headers={"user-agent": "mine"}, allow_private=True)
    assert [value for name, value in server.last.headers.items() if name.lower() == "user-agent"] == ["mine"]


async def test_an_answer_in_several_pieces_is_read_whole(client):
    async def slowly(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"ab", b"cd", b"ef"):
            writer.write(piece)
            await writer.drain()
            await moment(0.01)  # so that the pieces are sent apart

    async with raw_server(slowly) as url:
        answer = await client.request("GET", url, allow_private=True)
    assert answer.body == b"abcdef"


@pytest.mark.parametrize("status", [204, 301, 400, 401, 404, 429, 500])
async def test_every_status_is_an_answer(client, server, status):
    server.script(Reply(status, headers={"Retry-After": "3"}))
    answer = await client.request("POST", server.url, json={}, allow_private=True)
    assert (answer.status, answer.headers["retry-after"]) == (status, "3")


async def test_a_redirect_is_never_followed(client, server):
    server.script(Reply(302, headers={"Location": f"{server.url}/elsewhere"}))
    answer = await client.request("GET", server.url, allow_private=True)
    assert answer.status == 302
    assert len(server.requests) == 1


async def test_cookies_are_not_kept(client, server, monkeypatch):
    names(monkeypatch, **{"chat.example": ["127.0.0.1"]})
    server.script(Reply(headers={"Set-Cookie": "session=1; Path=/"}))
    for _ in range(2):
        await client.request("GET", server.url.replace("127.0.0.1", "chat.example"), allow_private=True)
    assert "Cookie" not in server.last.headers


async def test_one_connection_serves_many_requests(client, server):
    for _ in range(5):
        await client.request("POST", server.url, json={}, allow_private=True)
    assert len(server.connections) == 1


async def test_a_long_answer_is_cut(client, server):
    server.script(Reply(body=b"x" * (MAX_BODY + 50_000)), Reply(body=b"y" * MAX_BODY))
    for letter in b"xy":
        answer = await client.request("GET", server.url, allow_private=True)
        assert answer.body == bytes([letter]) * MAX_BODY


async def test_an_answer_without_end_is_cut():
    async def forever(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    writer.write(b"z" * 4096)
                    await writer.drain()

    async with raw_server(forever) as url, using() as client:
        answer = await client.request("GET", url, allow_private=True)
    assert answer.body == b"z" * MAX_BODY


async def test_a_compressed_answer_is_not_unpacked(client, server):
    server.script(Reply(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))
    answer = await client.request("GET", server.url, allow_private=True)
    assert answer.body == b"\x1f\x8b"
    assert server.last.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("body", [b"", b"ok", b"{", b"\xff", b"[" * 60_000])
def test_an_answer_that_is_no_json(body):
    with pytest.raises(ValueError, match="not JSON"):
        Answer(200, {}, body).json()


async def test_a_closed_client_starts_anew(client, server):
    await client.request("GET", server.url, allow_private=True)
    await client.close()
    await client.close()
    await client.request("GET", server.url, allow_private=True)
    assert len(server.requests) == 2


# --- private addresses ------------------------------------------------------------------------------------------------

WRITTEN = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost", "a.localhost", "0.0.0.0",
           "10.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1]",
           "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "LOCALHOST"]  # fmt: skip


@pytest.mark.parametrize("host", WRITTEN)
async def test_a_private_address_in_the_url_is_refused(client, server, host):
    url = server.url.replace("127.0.0.1", host)
    with pytest.raises(PermanentError, match=r"is a private address; set `allow_private: true` on the sink"):
        await client.request("POST", url, json={})
    assert server.requests == []


async def test_a_private_address_is_refused_after_a_request_that_was_allowed_to_go_there(client, server):
    for _ in range(2):
        answer = await client.request("GET", server.url, allow_private=True)
        assert answer.status == 200
        with pytest.raises(PermanentError, match="is a private address"):
            await client.request("GET", server.url)


async def test_the_remembered_urls_of_a_client_are_bounded(client, server, monkeypatch):
    monkeypatch.setattr(client._targets, "most", 2)
    for number in (1, 2, 3, 1):
        url = server.url.replace("://", f"://user{number}:secret@")
        await client.request("GET", url, allow_private=True)
        sent = server.last.headers["Authorization"].removeprefix("Basic ")
        assert b64decode(sent) == b"user%d:secret" % number
        assert len(client._targets) <= 2


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])
async def test_a_name_that_stands_for_a_private_address_is_refused(client, server, monkeypatch, address):
    names(monkeypatch, **{"evil.example": [address]})
    with pytest.raises(PermanentError, match=f"^{address} is a private address"):
        await client.request("POST", server.url.replace("127.0.0.1", "evil.example"), json={})
    assert server.requests == []


async def test_one_private_address_among_public_ones_is_refused(client, server, monkeypatch):
    names(monkeypatch, **{"evil.example": ["93.184.216.34", "127.0.0.1"]})
    monkeypatch.setattr(subject, "_guarded_socket", lambda info: pytest.fail(f"dialled {info[4][0]}"))
    with pytest.raises(PermanentError, match=r"^127.0.0.1 is a private address"):
        await client.request("POST", server.url.replace("127.0.0.1", "evil.example"), json={})
    assert server.requests == []


async def test_the_address_is_checked_again_when_it_is_dialled(client, server, monkeypatch):
    """Even if everything before it had been fooled: the socket itself is refused."""
    monkeypatch.setattr(subject, "private_host", lambda _host: False)
    with pytest.raises(PermanentError, match=r"^127.0.0.1 is a private address"):
        await client.request("POST", server.url, json={})
    assert server.requests == []


async def test_a_name_that_changes_its_mind_gains_nothing(server, monkeypatch):
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    names(monkeypatch, **{"evil.example": lambda: next(answers)})
    dialled = []

    def unreachable(info):
        dialled.append(info[4][0])
        raise OSError(113, "No route to host")

    monkeypatch.setattr(subject.socket, "socket", lambda *_args: unreachable(("", "", "", "", ("93.184.216.34",))))
    url = server.url.replace("127.0.0.1", "evil.example")
    async with using() as client:
        with pytest.raises(TransientError, match="no route to host"):
            await client.request("POST", url, json={})
    async with using() as client:
        with pytest.raises(PermanentError, match="private address"):
            await client.request("POST", url, json={})
    assert dialled == ["93.184.216.34"]
    assert server.requests == []


async def test_a_connection_made_with_leave_does_not_serve_a_request_without(client, server, monkeypatch):
    names(monkeypatch, **{"chat.example": ["127.0.0.1"]})
    url = server.url.replace("127.0.0.1", "chat.example")
    assert (await client.request("GET", url, allow_private=True)).status == 200
    with pytest.raises(PermanentError, match="private address"):
        await client.request("GET", url)
    assert len(server.requests) == 1


async def test_names_resolve_where_it_is_allowed(client, server, monkeypatch):
    names(monkeypatch, **{"chat.example": ["127.0.0.1"]})
    await client.request("GET", server.url.replace("127.0.0.1", "chat.example"), allow_private=True)
    assert server.last.headers["Host"].startswith("chat.example:")


# --- what can't be sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/x", "file:///etc/passwd", "example.org", "", "http://", "http://:80/", "http://[::1/",
     "http://example.org:99999/", "javascript:alert(1)", "//example.org/", "http://exa mple.org/"],
)  # fmt: skip
async def test_only_http_urls(client, url):
    with pytest.raises(PermanentError):
        await client.request("POST", url, json={})


@pytest.mark.parametrize("path", ["/a b", "/a\tb", "/a\r\nX: y", "/ü", "/\u200b", "/\x7f"])
async def test_a_url_with_a_space_or_a_letter_outside_ascii_is_refused(client, server, path):
    with pytest.raises(PermanentError, match="has a space, a control character or a letter outside ASCII"):
        await client.request("POST", server.url + path + "x", json={}, allow_private=True)
    assert server.requests == []


@pytest.mark.parametrize("target", ["/T%2FB/%28x%29?a=%7E&b=%20+%2f", "/a/../b//c", "/(x)'?sig=%41b%3D&q=;|"])
async def test_a_url_is_requested_as_it_is_written(client, server, target):
    await client.request("POST", server.url + target, json={}, allow_private=True)
    assert server.last.target == target


async def test_all_requests_of_a_client_may_be_private(server):
    async with using(allow_private=True) as client:
        assert (await client.request("GET", server.url)).status == 200


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"A": "b\r\nC: d"}, r"the header A has a control character in it \(U\+000D\)"),
        ({"A": "\0"}, r"the header A has a control character in it \(U\+0000\)"),
        ({"A": "\x7f"}, r"U\+007F"),
        ({"A\n": "b"}, "not a valid name of a header"),
        ({"A": "\ud800"}, "surrogate"),
        ({"A": "é" * 4097}, "the header A is longer than 8 KiB"),
    ],
)
async def test_a_header_can_not_make_another(client, server, headers, says):
    with pytest.raises(PermanentError, match=says):
        await client.request("POST", server.url, json={}, headers=headers, allow_private=True)
    assert server.requests == []


async def test_a_header_of_any_letters_arrives(client, server):
    value = "\tJané 😀 " + "é" * 4000 + "\u0085"
    await client.request("POST", server.url, json={}, headers={"A": value}, allow_private=True)
    assert server.last.headers["A"] == value.strip("\t")


async def test_a_body_that_is_no_json(client, server):
    with pytest.raises(PermanentError, match="can't be encoded"):
        await client.request("POST", server.url, json={"a": "\ud800"}, allow_private=True)


# --- failures, and what they say --------------------------------------------------------------------------------------


async def failure(url, **options):
    """The error of one request, with the whole of its text: itself, its causes, its traceback."""
    async with using(**options) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.request("POST", url, json={}, headers={"Authorization": SECRET}, allow_private=True)
    error = caught.value
    text = "".join(traceback.format_exception(error, chain=True))
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in text
    return error


async def test_nobody_listens():
    error = await failure(f"{closed_port()}/{SECRET}")
    assert type(error) is TransientError
    assert str(error) == "no connection to the server: connection refused"


async def test_a_name_that_does_not_exist(monkeypatch):
    names(monkeypatch, **{"gone.example": socket.gaierror(-2, "Name or service not known")})
    error = await failure(f"http://gone.example/{SECRET}")
    assert (type(error), str(error)) == (TransientError, "the host name can't be resolved")


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_the_connection_breaks(server, how):
    server.default = Reply(body=b"{", how=how)
    error = await failure(f"{server.url}/{SECRET}")
    assert type(error) is TransientError
    assert str(error) in {
        "the server closed the connection without a response",
        "the connection broke: connection reset by peer",
        "the connection ended before the response was complete",
    }


async def test_an_answer_that_is_not_http():
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()

    async with raw_server(talk) as url:
        error = await failure(f"{url}/{SECRET}")
    assert (type(error), str(error)) == (TransientError, "the response is not HTTP")


async def test_a_server_that_does_not_take_the_connection():
    async def silent(reader, _writer):
        await reader.read()

    async with raw_server(silent) as url:
        error = await failure(f"{url.replace('http', 'https')}/{SECRET}", connect_timeout=0.2)
    assert (type(error), str(error)) == (TransientError, "no connection within 0.2 s")


async def test_a_name_server_that_hangs_holds_nothing_up(monkeypatch):
    import threading

    release = threading.Event()
    names(monkeypatch, **{"slow.example": lambda: release.wait(30) and []})
    error = await failure(f"http://slow.example/{SECRET}", connect_timeout=0.2)
    assert (type(error), str(error)) == (TransientError, "no connection within 0.2 s")
    release.set()


@pytest.mark.parametrize("how", ["hang", "drip"])
async def test_a_cancelled_request_ends_at_once_and_leaves_the_client_whole(client, server, how):
    server.script(Reply(body=b"slow" * 2000, how=how))  # it would drip for minutes
    task = asyncio.create_task(client.request("POST", server.url, json={}, allow_private=True))
    await asyncio.wait_for(server.arrived.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    answer = await client.request("POST", server.url, json={}, allow_private=True)
    assert answer.json() == {"ok": True}
    assert len(server.connections) == 2


async def test_the_hosts_deadline_ends_a_dripping_answer(client, server):
    server.script(Reply(body=b"slow" * 500, how="drip"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.request("POST", server.url, json={}, allow_private=True)


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_tls_with_a_trusted_certificate(authority):
    certificate = serving(authority.issue_cert("127.0.0.1"))
    async with stand_in(certificate) as server, using(ssl_context=trusting(authority)) as client:
        assert (await client.request("GET", server.url, allow_private=True)).status == 200


async def test_a_certificate_of_an_unknown_authority_is_the_sinks_fault(authority):
    async with stand_in(serving(authority.issue_cert("127.0.0.1"))) as server:
        error = await failure(f"{server.url}/{SECRET}")
    assert type(error) is SinkError
    assert str(error).startswith("the server's certificate can't be trusted: ")
    assert server.requests == []


async def test_a_certificate_for_another_host_is_the_sinks_fault(authority):
    async with stand_in(serving(authority.issue_cert("other.example"))) as server:
        error = await failure(f"{server.url}/{SECRET}", ssl_context=trusting(authority))
    assert type(error) is SinkError
    assert "mismatch" in str(error)


async def test_an_expired_certificate_is_the_sinks_fault(authority):
    from datetime import UTC, datetime

    expired = authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    async with stand_in(serving(expired)) as server:
        error = await failure(f"{server.url}/{SECRET}", ssl_context=trusting(authority))
    assert type(error) is SinkError
    assert "expired" in str(error)


async def test_a_server_without_tls_is_a_passing_fault(server):
    error = await failure(f"{server.url.replace('http', 'https')}/{SECRET}")
    assert (type(error), str(error)) == (TransientError, "the TLS handshake failed")


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_a_proxy_dials_for_us(server):
    async with using(proxy=server.url.replace("//", "//user:pass@")) as client:
        await client.request("POST", "http://hooks.example/x", json={"a": 1})
    assert server.last.target == "http://hooks.example/x"
    assert server.last.headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"
    assert server.last.json == {"a": 1}


async def test_a_tunnel_is_asked_for_with_the_proxys_credentials():
    seen = []

    async def refuse(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_server(refuse) as url, using(proxy=url.replace("//", "//user:pass@")) as client:
        with pytest.raises(TransientError):
            await client.request("POST", f"https://hooks.example/{SECRET}", json={}, headers={"Authorization": SECRET})
    assert seen[0].startswith(b"CONNECT hooks.example:443 ")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in seen[0]
    assert SECRET.encode() not in seen[0]


async def test_credentials_in_the_url_become_a_header(client, server):
    await client.request("GET", server.url.replace("//", "//us%40er:p%C3%A4@"), allow_private=True)
    assert server.last.headers["Authorization"] == "Basic dXNAZXI6cMOk"


async def test_an_address_in_the_url_is_refused_with_a_proxy_too(server):
    async with using(proxy=server.url) as client:
        with pytest.raises(PermanentError, match=r"^169.254.169.254 is a private address"):
            await client.request("GET", "http://169.254.169.254/")
    assert server.requests == []


async def test_an_empty_proxy_is_none(server):
    async with using(proxy="") as client:
        assert (await client.request("GET", server.url, allow_private=True)).status == 200


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (b"407 Proxy Authentication Required", SinkError, "the proxy refuses the credentials (HTTP 407)"),
        (b"502 Bad Gateway", TransientError, "the proxy refused with HTTP 502"),
    ],
)
async def test_a_proxy_that_refuses_the_tunnel(status, kind, text):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_server(refuse) as url:
        error = await failure(f"https://hooks.example/{SECRET}", proxy=url.replace("//", f"//u:{SECRET}@"))
    assert (type(error), str(error)) == (kind, text)


async def test_a_proxy_that_is_down():
    error = await failure(f"http://hooks.example/{SECRET}", proxy=closed_port().replace("//", f"//u:{SECRET}@"))
    assert (type(error), str(error)) == (TransientError, "no connection to the proxy: connection refused")


# --- cost -------------------------------------------------------------------------------------------------------------


def test_aiohttp_is_not_imported_before_the_first_request():
    code = (
        "import sys; from router.ops.http import GuardedClient; GuardedClient(); "
        "sys.exit('aiohttp' in sys.modules or 'yarl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_nothing_is_left_open(server):
    async with using() as client:
        answer = await client.request("GET", server.url, allow_private=True)
    assert answer.json() == {"ok": True}
    del client, answer
    gc.collect()  # an unclosed session or socket would warn, and warnings are errors


async def test_a_library_that_can_not_be_loaded_is_a_failure_of_the_delivery(client, monkeypatch):
    async def fails():
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subject, "import_aiohttp", fails)
    with pytest.raises(TransientError, match=r"the HTTP client can't be loaded \(RuntimeError\)"):
        await client.request("GET", "http://127.0.0.1:1/")
