"""The email sink: what an event brings costs little, and what can't be read is the message's fault alone."""

from __future__ import annotations

from contextlib import suppress
from time import process_time
from typing import Any

import pytest

from router.errors import AddressError, PermanentError
from tests.support.cost import mebibyte
from tests.support.sinks import OpenSink, make_event, open_sink
from tests.support.smtp import smtp_server, talking_server

BASE = {"host": "127.0.0.1", "tls": "none", "from": "shop@example.org", "to": "jane@example.org", "text": "x"}
VALUE = "{{ payload.x }}"
OPTIONS: dict[str, dict[str, Any]] = {
    "from": {"from": f"{VALUE} <shop@example.org>"},
    "from, whole": {"from": VALUE},
    "to": {"to": VALUE},
    "to, name": {"to": f"{VALUE} <jane@example.org>"},
    "cc": {"cc": VALUE},
    "bcc": {"bcc": VALUE},
    "reply_to": {"reply_to": VALUE},
    "subject": {"subject": VALUE},
    "text": {"text": VALUE},
    "html": {"html": VALUE},
    "text and html": {"text": VALUE, "html": VALUE},
    "X-Value": {"headers": {"X-Value": VALUE}},
    "Sender": {"headers": {"Sender": f"{VALUE} <s@example.org>"}},
    "Errors-To": {"headers": {"Errors-To": VALUE}},
    "List-Id": {"headers": {"List-Id": f"{VALUE} <list.example.org>"}},
    "List-Unsubscribe": {"headers": {"List-Unsubscribe": f"<https://example.org/?{VALUE}>"}},
    "References": {"headers": {"References": VALUE}},
}
PATTERNS = [
    "a ", "a", " ", "(", "((a) ", "[", "]", "<", ">", '"', '""', '"a" ', '\\"', "\\", "@", "a@", "a@b.example,", ",", ";", ":",
    ".", "a.", ".\n", "=", "=?", "=?utf-8?q?a?= ", "?=", "ü", "üa ", "😀", "\uff41", "e\u0301", "\0", "\0a", "\r", "\n", "\r\n",
    "\u2028", "\x85", "\t", " \n", "From \n", "xn--", "&", "<b>",
]  # fmt: skip


async def swallow(reader: Any, writer: Any) -> None:
    """A mail server that costs next to nothing: mail comes in pieces, of which it looks at the ends alone."""
    writer.write(b"220 hello\r\n")
    data, last = False, b""
    while piece := await reader.read(1 << 20):
        last = (last + piece)[-64:]
        if data:
            if last.endswith(b"\r\n.\r\n"):
                data = False
                writer.write(b"250 ok\r\n")
        elif last.endswith(b"DATA\r\n"):
            data, last = True, b""
            writer.write(b"354 go\r\n")
        else:
            writer.write(b"250 ok\r\n")


async def seconds(sink: OpenSink, value: str) -> float:
    """The CPU that a delivery takes, at best: from the event's bytes to the server's answer, or to the refusal."""
    took = []
    for number in range(2):
        event = make_event({"x": value}, id=f"e-{number}")
        began = process_time()
        with suppress(AddressError, PermanentError):
            await sink.deliver(event)
        took.append(process_time() - began)
    return min(took)


@pytest.mark.parametrize("option", OPTIONS)
async def test_a_mebibyte_of_any_pattern_costs_little_more_than_plain_text(option):
    plain = mebibyte("plain words of a text ")
    async with talking_server(swallow) as port:
        async with open_sink("email", BASE | {"port": port, "text": VALUE}) as sink:
            usual = await seconds(sink, plain)
        async with open_sink("email", BASE | {"port": port} | OPTIONS[option]) as sink:
            usual = max(usual, await seconds(sink, plain))
            costs = {pattern: await seconds(sink, mebibyte(pattern)) / usual for pattern in PATTERNS}
    assert {pattern: round(ratio, 1) for pattern, ratio in costs.items() if ratio > 10} == {}


@pytest.mark.parametrize(
    "name",
    ["(" * 400, "[", "[a", "a " * 600, '"', "\\", "a <", "a@", "a,", "a;", "\0", "a\u2028b", "a\r\nBcc: b@example.org"],
)
@pytest.mark.parametrize(
    "option",
    [{"from": f"{VALUE} <shop@example.org>"}, {"from": VALUE}, {"headers": {"Sender": f"ü{VALUE} <s@x.example>"}}],
)
async def test_what_can_not_be_read_as_an_address_is_for_good(option, name):
    async with smtp_server() as box, open_sink("email", BASE | {"port": box.port} | option) as sink:
        event = make_event({"x": name})
        if "headers" in option and name in {"\0", "a\u2028b"}:
            await sink.deliver(event)  # a space in a header
        else:
            with pytest.raises(PermanentError, match=r"^`(from|headers\.Sender)`: "):
                await sink.deliver(event)
        assert box.commands == [] or len(box.taken) == 1
        await sink.deliver(make_event({"x": "shop@example.org" if option == {"from": VALUE} else "Shop"}, id="e-2"))
        assert box.taken[-1].message["Message-ID"].startswith("<e-2/")


async def test_a_thousand_recipients_cost_a_thousand_times_one():
    """Where all share a mail and the server refuses each of them."""
    many = [f"a{number}@example.org" for number in range(1000)]
    async with talking_server(swallow) as port:
        values = BASE | {"port": port, "to": VALUE, "separate": False}
        async with open_sink("email", values) as sink:

            async def cost(to: list[str]) -> float:
                took = []
                for _ in range(3):
                    event = make_event({"x": to})
                    began = process_time()
                    await sink.deliver(event)
                    took.append(process_time() - began)
                return min(took)

            assert await cost(many) < 20 * await cost(many[:100])


async def test_a_long_header_is_cut_and_a_structured_one_refused():
    async with smtp_server() as box:
        values = BASE | {"port": box.port, "headers": {"X-Note": VALUE}}
        async with open_sink("email", values) as sink:
            await sink.deliver(make_event({"x": "ü" * 10_000}))
            await sink.deliver(make_event({"x": "x" * 10_000}))
        assert [len(mail.message["X-Note"]) for mail in box.taken] == [8192, 8192]
        assert all(mail.message["X-Note"].endswith("…") for mail in box.taken)
        assert max(len(line) for mail in box.taken for line in mail.content.split(b"\r\n")) <= 998
        for name in ("List-Unsubscribe", "References", "Sender"):
            async with open_sink("email", BASE | {"port": box.port, "headers": {name: VALUE}}) as sink:
                with pytest.raises(PermanentError, match=f"^`headers.{name}`: it has more than 8192 characters$"):
                    await sink.deliver(make_event({"x": "<x@example.org> " * 1000}))
