"""The email sink: what a server says about one connection, about our name, and every way to say yes."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import PermanentError, SinkError, TransientError
from tests.support.sinks import make_event, open_sink, plugin_module, validate
from tests.support.smtp import Postbox, both_dialogues, smtp_server, talking_server  # noqa: F401

pytestmark = pytest.mark.usefixtures("both_dialogues")

OPS = "ops@example.org"
TEAM = {"from": "shop@example.org", "to": OPS, "text": "Hello"}
SESSION = [
    "452 4.5.3 too many mails",
    "454 4.7.0 enough",
    "421 4.7.0 too many mails",
    "421 4.4.2 idle",
    "451 4.4.2 timeout",
]
NEED_FULL_NAME = "504 5.5.2 <3f2a9c>: Helo command rejected: need fully-qualified hostname"


def at(box: Postbox, **values: Any) -> dict[str, Any]:
    """The options with this server."""
    return {"host": "127.0.0.1", "port": box.port, "tls": "none", **TEAM, **values}


@pytest.mark.parametrize(
    "full", ["452 4.5.3 too many mails", "454 4.7.0 enough", "421 4.7.0 too many mails", "452 enough"]
)
async def test_the_sink_learns_how_many_mails_a_connection_takes(full):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        box.most, box.full = 3, full
        for number in range(12):
            await sink.deliver(make_event({}, id=f"e-{number}"))
        assert len(box.taken) == 12
        assert list(box.mails.values()) == [4, 3, 3, 3]  # refused once, and never again


async def test_one_delivery_to_many_goes_over_as_many_connections_as_it_needs():
    async with smtp_server() as box, open_sink("email", at(box, to="{{ payload.to }}")) as sink:
        box.most = 2
        await sink.deliver(make_event({"to": [f"a{number}@example.org" for number in range(7)]}))
        assert sorted(box.reached) == [f"a{number}@example.org" for number in range(7)]
        assert list(box.mails.values()) == [3, 2, 2, 1]


@pytest.mark.parametrize("answer", SESSION)
async def test_a_refusal_at_mail_on_a_used_connection_costs_no_attempt(answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.mail = [answer]
        await sink.deliver(make_event({}, id="e-2"))
        assert (len(box.taken), len(box.connections)) == (2, 2)


@pytest.mark.parametrize("answer", ["451 4.4.2 timeout", "421 idle for too long"])
async def test_a_pause_that_was_too_long_says_nothing_of_a_number_of_mails(answer, monkeypatch):
    monkeypatch.setattr(plugin_module("email", "connections").Connections, "PAUSE", 0.0)
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.mail = [answer]
        for number in range(5):
            await sink.deliver(make_event({}, id=f"e-{number}"))
        assert len(box.connections) == 2


@pytest.mark.parametrize("cut", ["mail", "recipients"])
async def test_a_connection_that_breaks_says_nothing_of_a_number_of_mails(cut):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        setattr(box, cut, [box.drop_connections] if cut == "mail" else {OPS: [box.drop_connections]})
        for number in range(5):
            await sink.deliver(make_event({}, id=f"e-{number}"))
        assert (len(box.taken), len(box.connections)) == (6, 2)


async def test_a_mail_that_the_fresh_connection_refuses_too_says_nothing_of_a_number_of_mails():
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.mail = ["452 not now", "550 no such sender"]
        with pytest.raises(PermanentError, match="550 no such sender"):
            await sink.deliver(make_event({}))
        for number in range(5):
            await sink.deliver(make_event({}, id=f"e-{number}"))
        assert (len(box.taken), len(box.connections)) == (6, 2)


@pytest.mark.parametrize("answer", SESSION)
async def test_on_a_fresh_connection_it_is_about_the_server(answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        box.mail = [answer]
        with pytest.raises(TransientError, match=answer):
            await sink.deliver(make_event({}))
        assert box.commands == ["MAIL shop@example.org"]
        await sink.deliver(make_event({}))
        box.mail = [answer] * 2
        with pytest.raises(TransientError, match=answer):
            await sink.deliver(make_event({}))
        for number in range(5):  # a server that took none for a while has said nothing of connections
            await sink.deliver(make_event({}, id=f"e-{number}"))
        assert len(box.connections) == 4


@pytest.mark.parametrize("answer", [*SESSION, "450 4.2.0 greylisted"])
@pytest.mark.parametrize("stage", ["recipients", "data"])
async def test_after_mail_an_answer_is_about_the_mail(stage, answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        await sink.deliver(make_event({}))
        box.commands.clear()
        if stage == "data":
            box.data = [answer]
        else:
            box.recipients = {OPS: [answer]}
        with pytest.raises(TransientError, match=answer):
            await sink.deliver(make_event({}, id="e-2"))
        assert box.commands.count("MAIL shop@example.org") == 1


@pytest.mark.parametrize("answer", [*SESSION, "450 no", "500 what?"])
async def test_a_refused_rset_costs_no_mail(answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        box.recipients = {OPS: ["450 later"]}
        box.rset = [answer]
        with pytest.raises(TransientError, match="450 later"):
            await sink.deliver(make_event({}))
        await sink.deliver(make_event({}, id="e-2"))
        assert (len(box.taken), len(box.connections)) == (1, 2)


@pytest.mark.parametrize("yes", ["251 will forward", "252 can't verify", "200 fine"])
async def test_every_2xx_is_a_yes(yes):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        box.ehlo, box.mail, box.recipients, box.data = [yes], [yes], {OPS: [yes]}, [yes]
        await sink.deliver(make_event({}))
        assert box.reached == [OPS]
        box.recipients, box.rset = {OPS: ["550 no"]}, [yes]
        with pytest.raises(PermanentError, match="550 no"):
            await sink.deliver(make_event({}))
        await sink.deliver(make_event({}))
        assert (len(box.taken), len(box.connections)) == (2, 1)


async def test_every_2xx_is_a_yes_to_the_login():
    async def script(reader, writer):
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            writer.write(b"250-mail.test\r\n250 AUTH PLAIN\r\n" if line.startswith(b"EHLO") else b"250 fine\r\n")
            if line == b"DATA\r\n":
                break

    async with talking_server(script) as port:
        values = at(Postbox(port=port), username="me", password="geheim")
        async with open_sink("email", values) as sink:
            # A yes to DATA itself is no mail taken: nothing of it was sent.
            with pytest.raises(TransientError, match="250 fine"):
                await sink.deliver(make_event({}))


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("mail.example.org", None, "mail.example.org"),
        ("3f2a9c", None, "[127.0.0.1]"),
        ("localhost", None, "[127.0.0.1]"),
        ("grün.example.org", None, "[127.0.0.1]"),
        ("3f2a9c", "router.example.org", "router.example.org"),
        ("mail.example.org", "[192.0.2.1]", "[192.0.2.1]"),
    ],
)
async def test_our_name_is_a_full_one_or_an_address(name, option, said, monkeypatch):
    monkeypatch.setattr("socket.getfqdn", lambda: name)
    async with smtp_server() as box, open_sink("email", at(box, helo=option)) as sink:
        await sink.deliver(make_event({}))
        assert box.names == [said]


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL", "größe.example.org", "[127.0.0.1", "x" * 256])
def test_a_name_that_can_not_be_said_is_refused(name):
    with pytest.raises(ValueError, match="helo"):
        validate("email", TEAM | {"helo": name})


@pytest.mark.parametrize("answer", ["504 5.5.2 need a full name", "550 who?", NEED_FULL_NAME])
async def test_a_server_that_refuses_our_name_at_once_is_the_sinks_fault(answer):
    async def script(reader, writer):
        writer.write(b"220 hello\r\n")
        while await reader.readline():
            writer.write(answer.encode() + b"\r\n")

    async with talking_server(script) as port, open_sink("email", at(Postbox(port=port))) as sink:
        with pytest.raises(SinkError, match=r"set `helo` to a full name"):
            await sink.deliver(make_event({}))


@pytest.mark.parametrize("stage", ["mail", "recipients"])
@pytest.mark.parametrize(
    "answer",
    [
        NEED_FULL_NAME,
        "450 4.7.1 <3f2a9c>: Helo command rejected: Host not found",
        "550 5.7.1 invalid EHLO name",
        "504 5.5.2 need fully-qualified hostname",
    ],
)
async def test_a_server_that_refuses_our_name_later_is_the_sinks_fault(stage, answer):
    async with smtp_server() as box, open_sink("email", at(box)) as sink:
        if stage == "mail":
            box.mail = [answer]
        else:
            box.recipients = {OPS: [answer]}
        with pytest.raises(SinkError, match=r"set `helo` to a full name"):
            await sink.deliver(make_event({}))


@pytest.mark.parametrize(
    ("to", "answer"),
    [
        ("root@localhost", "504 5.5.2 <root@localhost>: Recipient address rejected: need fully-qualified address"),
        ("helo@example.org", "550 5.1.1 <helo@example.org>: no such user"),
        ('"Helo command rejected"@example.org', "550 5.1.1 Helo command rejected: no such user"),
        ("a@ehlo.example.org", "550 5.1.2 host ehlo.example.org not found"),
        ("othello@example.org", "550 5.1.1 othello is unknown, and chelo too"),
    ],
)
async def test_no_address_makes_it_look_like_our_name(to, answer):
    async with smtp_server() as box, open_sink("email", at(box, to="{{ payload.to }}")) as sink:
        box.recipients = {to: [answer]}
        with pytest.raises(PermanentError, match="answered: 5"):
            await sink.deliver(make_event({"to": to}))
