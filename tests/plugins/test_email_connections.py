"""The email sink: connections: secured, authenticated, used again, and given up."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from router.errors import PermanentError, SinkError, TransientError
from tests.support.sinks import make_event, open_sink, plugin_module
from tests.support.smtp import Authority, Postbox, authority, both_dialogues, silence, smtp_server, talking_server  # noqa: F401
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("both_dialogues")

TEAM = {"from": "shop@example.org", "to": "ops@example.org", "text": "Hello"}
LOGIN = {"username": "me", "password": "geheim&lang"}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


def at(box: Postbox, **values: Any) -> dict[str, Any]:
    """The options with this server."""
    return {"host": "127.0.0.1", "port": box.port, "tls": "none", **TEAM, **values}


async def deliver(values: dict[str, Any], times: int = 1) -> None:
    """Open, deliver, close."""
    async with open_sink("email", values) as sink:
        for number in range(times):
            await sink.deliver(make_event({}, id=f"e-{number}"))


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_secured(tls, trusted):
    async with smtp_server(tls=tls, certificate=trusted.certificate()) as box:
        await deliver(at(box, tls=tls, ca_file=str(trusted.file)), times=3)
    assert len(box.taken) == 3
    assert len(box.connections) == 1


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("fault", ["unknown", "expired", "name"])
async def test_a_certificate_that_cannot_be_trusted_is_the_sinks_fault(tls, fault, trusted):
    certificate = {
        "unknown": trusted.certificate(),
        "expired": trusted.certificate(expired=True),
        "name": trusted.certificate("other.example"),
    }[fault]
    values = {} if fault == "unknown" else {"ca_file": str(trusted.file)}
    async with smtp_server(tls=tls, certificate=certificate) as box:
        with pytest.raises(SinkError, match=r"the certificate of 127\.0\.0\.1:\d+ can't be trusted: .+") as caught:
            await deliver(at(box, tls=tls, **values))
    expected = {"unknown": "unable to get local issuer", "expired": "expired", "name": "not valid for"}[fault]
    assert expected in str(caught.value)
    assert box.taken == []


async def test_starttls_that_is_not_offered_is_never_done_without():
    async with smtp_server() as box:
        with pytest.raises(SinkError, match="does not offer STARTTLS"):
            await deliver(at(box, tls="starttls", **LOGIN))
    assert box.commands == []
    assert box.credentials == []


async def test_tls_where_there_is_none():
    async with smtp_server() as box:
        with pytest.raises(SinkError, match="check `tls` and `port`"):
            await deliver(at(box, tls="tls"))


@pytest.mark.parametrize("content", ["", "no certificate"])
async def test_a_ca_file_that_is_none(content, tmp_path):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(SinkError, match="`ca_file`"):
        await deliver(at(Postbox(port=1), tls="tls", ca_file=str(file)))


async def test_a_ca_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ca.pem")
    with pytest.raises(SinkError, match="there is no such file"):
        await deliver(at(Postbox(port=1), tls="tls", ca_file=str(tmp_path / "ca.pem")))


async def test_logs_in():
    async with smtp_server(password=LOGIN["password"]) as box:
        await deliver(at(box, **LOGIN), times=2)
    assert box.credentials == [("me", LOGIN["password"])]
    assert len(box.taken) == 2


async def test_a_refused_password_is_the_sinks_fault_and_never_shown():
    async with smtp_server(password="another") as box:
        with pytest.raises(SinkError, match="535") as caught:
            await deliver(at(box, **LOGIN))
    assert "is not the password" in str(caught.value)
    assert LOGIN["password"] not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_server_that_wants_a_password_and_gets_none():
    async with smtp_server(password="any") as box:
        with pytest.raises(SinkError, match="530"):
            await deliver(at(box))


async def test_a_password_for_a_server_that_knows_none():
    async with smtp_server() as box:
        with pytest.raises(SinkError, match="AUTH"):
            await deliver(at(box, **LOGIN))


async def test_a_server_that_repeats_the_credential_does_not_get_it_into_the_error():
    async def script(reader, writer):
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line.startswith(b"EHLO"):
                writer.write(b"250-mail.test\r\n250 AUTH PLAIN\r\n")
            else:
                writer.write(b"500 what is " + line.strip() + b"?\r\n")

    async with talking_server(script) as port:
        with pytest.raises(SinkError, match="500") as caught:
            await deliver(at(Postbox(port=port), **LOGIN))
    assert "*** ?" in str(caught.value).replace("***?", "*** ?")


async def test_a_server_of_old_that_knows_only_helo():
    seen: list[bytes] = []

    async def script(reader, writer):
        writer.write(b"220 hello\r\n")
        in_data = False
        while line := (await reader.readline()).strip():
            if in_data:
                seen.append(line)
                in_data = line != b"."
                writer.write(b"" if in_data else b"250 ok\r\n")
                while in_data and (line := await reader.readline()):
                    if line == b".\r\n":
                        in_data = False
                        writer.write(b"250 ok\r\n")
                continue
            in_data = line == b"DATA"
            writer.write(b"354 go\r\n" if in_data else b"502 what?\r\n" if line.startswith(b"EHLO") else b"250 ok\r\n")
            seen.append(line)

    async with talking_server(script) as port, open_sink("email", at(Postbox(port=port))) as sink:
        await sink.deliver(make_event({}))
    assert [line.split()[0] for line in seen[:5]] == [b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA"]
    assert seen[2] == b"MAIL FROM:<shop@example.org>"


async def test_one_connection_serves_many_mails_and_ends_with_quit():
    async with smtp_server() as box:
        await deliver(at(box), times=20)
        assert (len(box.connections), len(box.taken), box.goodbyes) == (1, 20, 1)


async def test_as_many_connections_as_deliveries_at_a_time():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        for _ in range(5):
            await asyncio.gather(*(sink.deliver(make_event({}, id=f"e-{n}")) for n in range(4)))
        assert len(box.connections) == 4
        assert len(box.taken) == 20


async def test_a_connection_that_died_unseen_costs_no_attempt():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.mail = [box.drop_connections]  # the server closes while our MAIL is under way
        await sink.deliver(make_event({}, id="e-2"))
        assert (len(box.taken), len(box.connections)) == (2, 2)


async def test_a_connection_that_the_server_closed_is_replaced():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.drop_connections()
        await sink.deliver(make_event({}, id="e-2"))
        assert (len(box.taken), len(box.connections)) == (2, 2)


async def test_a_server_that_always_closes_is_asked_twice_at_most():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.mail = ["421 closing"] * 10
        with pytest.raises(TransientError, match="421 closing"):
            await sink.deliver(make_event({}, id="e-2"))
        assert len(box.mail) == 8


@pytest.mark.parametrize("answer", ["550 no", "451 later"])
async def test_a_refusal_keeps_the_connection_usable(answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        box.recipients = {"ops@example.org": [answer]}
        with pytest.raises((PermanentError, TransientError)):
            await sink.deliver(make_event({}))
        await sink.deliver(make_event({}, id="e-2"))
        assert len(box.connections) == 1
        assert "RSET" in box.commands


async def test_a_cancelled_delivery_leaves_no_connection_behind():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        forever = asyncio.Event()
        for place in ("mail", "data"):
            reached = asyncio.Event()

            async def hold(reached=reached):
                reached.set()
                await forever.wait()

            setattr(box, place, [hold])
            delivering = asyncio.create_task(sink.deliver(make_event({})))
            await reached.wait()
            delivering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivering
        taken = len(box.taken)
        await sink.deliver(make_event({}, id="e-2"))
        assert box.taken[taken].message["Message-ID"].startswith("<e-2/")
        assert len(box.connections) == 3
        forever.set()


async def test_an_idle_connection_is_closed_with_quit(monkeypatch):
    module = plugin_module("email", "connections")
    monkeypatch.setattr(module.Connections, "IDLE", 0.05)
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        await until(lambda: box.goodbyes == 1)
        await sink.deliver(make_event({}, id="e-2"))
        assert len(box.connections) == 2


async def test_closing_does_not_wait_for_a_server_that_hangs(monkeypatch):
    module = plugin_module("email", "connections")
    monkeypatch.setattr(module.Connections, "QUIT", 0.1)

    async def script(reader, writer):
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line.startswith(b"QUIT"):
                await silence(reader, writer)
            if line == b"DATA\r\n":
                writer.write(b"354 go\r\n")
                while await reader.readline() != b".\r\n":
                    pass
            writer.write(b"250 ok\r\n")

    async with talking_server(script) as port, asyncio.timeout(PATIENCE):
        await deliver(at(Postbox(port=port)))
