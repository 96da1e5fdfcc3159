"""The email sink: headers that machines read keep the form that they are read by."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from router.errors import PermanentError
from tests.support.sinks import make_event, open_sink, validate
from tests.support.smtp import Received, smtp_server

BASE = {"from": "shop@example.org", "to": "jane@example.org", "text": "x"}
NAME = "Größe <s@example.org>"


async def one(name: str, value: str, payload: Any = None) -> Received:
    """The mail with one more header."""
    async with smtp_server() as box:
        values = BASE | {"host": "127.0.0.1", "port": box.port, "tls": "none", "headers": {name: value}}
        async with open_sink("email", values) as sink:
            await sink.deliver(make_event(payload))
        (mail,) = box.taken
    assert max(len(line) for line in mail.content.split(b"\r\n")) <= 998
    return mail


def raw(mail: Received, name: str) -> str:
    """A header as it went over the wire, unfolded."""
    block = mail.content.partition(b"\r\n\r\n")[0].decode("ascii").replace("\r\n ", " ")
    (line,) = [line for line in block.split("\r\n") if line.startswith(f"{name}: ")]
    return line.removeprefix(f"{name}: ")


@pytest.mark.parametrize("name", ["Sender", "Disposition-Notification-To", "Errors-To", "return-receipt-to"])
@pytest.mark.parametrize("value", [NAME, "{{ payload.name }} <s@example.org>"])
async def test_only_the_name_of_an_address_is_encoded(name, value):
    mail = await one(name, value, {"name": "Größe"})
    assert raw(mail, name) == "=?utf-8?b?R3LDtsOfZQ==?= <s@example.org>"
    if name == "Sender":
        assert str(mail.message["Sender"]) == NAME


async def test_each_name_of_a_list_is_encoded():
    mail = await one("Disposition-Notification-To", f'{NAME}, "Doe, Jäne" <j@größe.example>')
    assert raw(mail, "Disposition-Notification-To") == (
        "=?utf-8?b?R3LDtsOfZQ==?= <s@example.org>, =?utf-8?b?RG9lLCBKw6RuZQ==?= <j@xn--gre-6ka8i.example>"
    )


@pytest.mark.parametrize("value", ["Größe <größe.example.org>", "Größe", "Größe <a.example.org> x"])
async def test_a_list_id_that_can_not_be_written(value):
    with pytest.raises(PermanentError, match=r"^`headers\.List-Id`: "):
        await one("List-Id", "{{ payload.x }}", {"x": value})


async def test_the_name_of_a_list_is_encoded():
    mail = await one("List-Id", "Größe <news.example.org>")
    assert raw(mail, "List-Id") == "=?utf-8?b?R3LDtsOfZQ==?= <news.example.org>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sender", "Größe"),
        ("Sender", f"{NAME}, {NAME}"),
        ("Sender", "größe@example.org"),
        ("Disposition-Notification-To", "Größe"),
        ("List-Unsubscribe", "<https://example.org/größe>"),
        ("List-Unsubscribe", "<mailto:größe@example.org>, <https://example.org>"),
        ("List-Post", "<mailto:größe@example.org>"),
        ("List-Unsubscribe-Post", "größe"),
        ("In-Reply-To", "<größe@example.org>"),
        ("References", "<a@example.org> <größe@example.org>"),
        ("Auto-Submitted", "größe"),
        ("List-Unsubscribe", "<https://example.org/" + "x" * 1000 + ">"),
    ],
)
async def test_what_can_not_be_encoded_is_refused(name, value):
    with pytest.raises(PermanentError, match=f"^`headers.{name}`: "):
        await one(name, "{{ payload.x }}", {"x": value})
    with pytest.raises(ValidationError, match="headers"):
        validate("email", BASE | {"headers": {name: value}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("List-Unsubscribe", "<https://example.org/?a=?b&c=?utf-8?q?d?=>"),
        ("List-Unsubscribe", ", ".join(f"<https://example.org/{number}/{'x' * 200}>" for number in range(9))),
        ("References", " ".join(f"<{number}@example.org>" for number in range(200))),
        ("Sender", '"Doe, Jane" <j@example.org>'),
        ("Sender", "J. Doe (of the shop) <j@example.org>"),
        ("List-Id", "news.example.org"),
    ],
)
async def test_ascii_stands_as_it_is_written(name, value):
    assert raw(await one(name, value), name) == value


async def test_a_name_that_only_looks_encoded_is_shown_as_it_is():
    value = "=?utf-8?q?evil?= <s@example.org>"
    mail = await one("Sender", value)
    assert str(mail.message["Sender"]) == value


@pytest.mark.parametrize("name", ["X-Note", "Comments", "Organization", "Thread-Topic", "X-" + "n" * 70])
@pytest.mark.parametrize("value", ["Größe", "ü" * 500, "😀" * 300, "x" * 2000, "=?utf-8?q?x?=", "e\u0301" * 99])
async def test_free_text_is_encoded(name, value):
    mail = await one(name, "{{ payload.x }}", {"x": value})
    assert str(mail.message[name]) == value
    assert mail.content.isascii()
    lines = mail.content.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert all(len(line) <= 76 for line in lines if line.startswith(b" ="))


async def test_an_international_reply_to_needs_a_server_that_takes_it():
    values = BASE | {"host": "127.0.0.1", "tls": "none", "reply_to": "größe@example.org"}
    for utf8 in (True, False):
        async with smtp_server(utf8=utf8) as box, open_sink("email", values | {"port": box.port}) as sink:
            if utf8:
                await sink.deliver(make_event({}))
                assert "SMTPUTF8" in box.taken[0].options
            else:
                with pytest.raises(PermanentError, match=r"'größe@example\.org' needs SMTPUTF8"):
                    await sink.deliver(make_event({}))
