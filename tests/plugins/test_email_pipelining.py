"""The email sink: commands that are sent together (RFC 2920), each judged by its own reply."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.errors import PartialError, PermanentError, TransientError
from tests.support.sinks import make_event, open_sink
from tests.support.smtp import talking_server
from tests.support.waiting import PATIENCE

TEAM = {"host": "127.0.0.1", "tls": "none", "from": "shop@example.org", "text": "Hello\n.\n.."}
THREE = ["a@example.org", "b@example.org", "c@example.org"]
YES, NO, GO = "250 ok", "550 no such user", "354 go ahead"


class Script:
    """A server that answers all commands up to DATA at once, from a list of answers for each mail.

    `heard` has what each connection sent, in the pieces that ended with DATA, the dot or another command. After the
    answers of a mail that end with `"close"` it closes the connection.
    """

    def __init__(self, *mails: list[str], offers: str = "PIPELINING", to_mail: str = "250 queued") -> None:
        self.mails = [list(mail) for mail in mails]
        self.offers = offers
        self.to_mail = to_mail
        self.heard: list[list[bytes]] = []
        self.write_bytes = False
        self.tail = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard: list[bytes] = []
        self.heard.append(heard)
        await self.say(writer, "220 hello")
        heard.append(await reader.readuntil(b"\r\n"))
        await self.say(writer, "250-mail.test", f"250 {self.offers}")
        while True:
            piece = await reader.readuntil(b"\r\n")
            if piece.startswith(b"MAIL"):
                piece += await reader.readuntil(b"DATA\r\n")
                heard.append(piece)
                answers = self.mails.pop(0)
                await self.say(writer, *(answer for answer in answers if answer != "close"))
                if "close" in answers:
                    writer.close()
                    return
                if answers[-1] == GO:
                    heard.append(await self._content(reader))
                    writer.write(f"{self.to_mail}\r\n{self.tail}".encode())
            else:
                heard.append(piece)
                await self.say(writer, "250 ok")

    async def _content(self, reader: asyncio.StreamReader) -> bytes:
        first = await reader.readuntil(b"\r\n")
        return first if first == b".\r\n" else first + await reader.readuntil(b"\r\n.\r\n")

    async def say(self, writer: asyncio.StreamWriter, *answers: str) -> None:
        data = "".join(f"{answer}\r\n" for answer in answers).encode()
        for start in range(0, len(data), 1 if self.write_bytes else len(data)):
            writer.write(data[start : start + (1 if self.write_bytes else len(data))])
            if self.write_bytes:
                await writer.drain()
                await asyncio.sleep(0)


async def deliver(script: Script, *, to: Any = THREE, times: int = 1) -> list[Any]:
    """Deliver events one after another to a server that runs the script; return the answers and the errors."""
    results: list[Any] = []
    async with (
        asyncio.timeout(PATIENCE),
        talking_server(script) as port,
        open_sink("email", TEAM | {"port": port, "to": to}) as sink,
    ):
        for number in range(times):
            try:
                results.append(await sink.deliver(make_event({}, id=f"e-{number}")))
            except (PartialError, PermanentError, TransientError) as error:
                results.append(error)
    return results


async def test_the_commands_of_a_mail_are_sent_together():
    script = Script([YES] * 4 + [GO], [YES] * 4 + [GO])
    assert await deliver(script, times=2) == ["250 queued"] * 2
    ((_, first, content, second, *_),) = script.heard
    assert first.splitlines() == [
        b"MAIL FROM:<shop@example.org>",
        *(f"RCPT TO:<{to}>".encode() for to in THREE),
        b"DATA",
    ]
    assert second == first
    assert content.endswith(b"\r\n\r\nHello\r\n..\r\n...\r\n.\r\n")


async def test_replies_may_come_in_any_pieces():
    script = Script(["250-one\r\n250 two", "550-5.1.1 no\r\n550 5.1.1 such user", YES, YES, GO])
    script.write_bytes = True
    (error,) = await deliver(script)
    assert list(error.failures) == ["a@example.org"]
    assert "550 5.1.1 no 5.1.1 such user" in str(error.failures["a@example.org"])


async def test_each_recipient_has_the_reply_to_its_own_command():
    script = Script([YES, "450 4.2.0 later", YES, NO, GO])
    (error,) = await deliver(script)
    assert isinstance(error, PartialError)
    assert {address: type(failure) for address, failure in error.failures.items()} == {
        "a@example.org": TransientError,
        "c@example.org": PermanentError,
    }


async def test_a_mail_that_no_recipient_gets_ends_with_a_dot_if_the_server_wants_it():
    """RFC 2920, section 3.1."""
    script = Script([YES, NO, NO, NO, GO], [YES, YES, YES, YES, GO], to_mail="554 no valid recipients")
    script.mails.append([])
    first, second = await deliver(script, times=2)
    assert isinstance(first, PartialError | PermanentError)
    assert "550 no such user" in str(first)
    assert "554" in str(second)
    assert [piece[:4] for piece in script.heard[0]] == [
        b"EHLO",
        b"MAIL",
        b".\r\n",
        b"RSET",
        b"MAIL",
        b"To: ",
        b"RSET",
        b"QUIT",
    ]


async def test_a_mail_without_recipients_needs_no_dot_if_the_server_refuses_data():
    script = Script([YES, NO, NO, NO, "554 no valid recipients"], [YES, YES, YES, YES, GO])
    first, second = await deliver(script, times=2)
    assert "550 no such user" in str(first)
    assert second == "250 queued"
    assert [piece[:4] for piece in script.heard[0]] == [b"EHLO", b"MAIL", b"RSET", b"MAIL", b"To: ", b"QUIT"]


@pytest.mark.parametrize("recipients", [YES, NO])
async def test_no_content_follows_a_refused_sender(recipients):
    """The server of the first answers is wrong, but must not send an empty mail to those that it accepted."""
    script = Script(["553 not you", *[recipients] * 3, GO], [YES, YES, YES, YES, GO])
    first, second = await deliver(script, times=2)
    assert isinstance(first, PermanentError)
    assert "553 not you" in str(first)
    assert second == "250 queued"
    assert [piece[:4] for piece in script.heard[0]] == [b"EHLO", b"MAIL"]
    assert len(script.heard) == 2


async def test_a_refused_sender_is_the_error_of_all():
    script = Script(["450 later", *["503 need MAIL"] * 4], [YES, YES, YES, YES, GO])
    first, second = await deliver(script, times=2)
    assert "450 later" in str(first)
    assert second == "250 queued"
    assert len(script.heard) == 1


@pytest.mark.parametrize("answers", [[], [YES], [YES, YES, YES], [YES, YES, NO, YES]])
async def test_a_connection_that_ends_before_the_reply_to_data_costs_no_attempt(answers):
    script = Script([YES, YES, YES, YES, GO], [*answers, "close"], [YES, YES, YES, YES, GO])
    assert await deliver(script, times=2) == ["250 queued"] * 2
    assert len(script.heard) == 2


async def test_a_new_connection_that_ends_before_the_reply_to_data_counts():
    (error,) = await deliver(Script([YES, YES, NO, YES, "close"]))
    assert isinstance(error, TransientError)
    assert "closed the connection before it received the mail" in str(error)


async def test_what_the_server_said_of_every_recipient_counts_although_it_closes():
    (error,) = await deliver(Script([YES, NO, "450 later", NO, "close"]))
    assert {address: type(failure) for address, failure in error.failures.items()} == {
        "a@example.org": PermanentError,
        "b@example.org": TransientError,
        "c@example.org": PermanentError,
    }


async def test_no_reply_is_expected_after_421():
    """A server that says 421 and does not close would hold the delivery until its timeout."""
    script = Script([YES, YES, "421 4.3.0 shutting down"], [YES, YES, YES, YES, GO])
    first, second = await deliver(script, times=2)
    assert isinstance(first, TransientError)
    assert "421 4.3.0 shutting down" in str(first)
    assert second == "250 queued"


@pytest.mark.parametrize("tail", ["421 4.4.2 one mail each\r\n", "250 again\r\n", "25", "250-more\r\n", "\r\n"])
async def test_a_reply_that_nothing_asked_for_ends_the_connection(tail):
    """The beginning of one too: `25` before `550 no` would be a yes."""
    script = Script([YES, YES, YES, YES, GO], [YES, YES, YES, YES, GO])
    script.tail = tail
    assert await deliver(script, times=2) == ["250 queued"] * 2
    assert len(script.heard) == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("hello?", "Malformed"),
        ("2x0 ok", "Malformed"),
        ("250-" + "x" * 40_000, "sent an invalid reply: more than 32 KiB"),
        ("x" * 40_000, "Malformed"),
    ],
)
async def test_a_reply_that_is_none_is_an_error_and_ends_the_connection(answer, told):
    script = Script([YES, answer, YES, YES, GO], [YES, YES, YES, YES, GO])
    first, second = await deliver(script, times=2)
    assert told in str(first)
    assert second == "250 queued"
    assert len(script.heard) == 2


async def test_a_reply_without_end_takes_bounded_memory():
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"250-mail.test\r\n250 PIPELINING\r\n")
        await reader.readline()
        while not writer.is_closing():
            writer.write(b"250-more\r\n" * 100)
            sent += 1000
            await writer.drain()
            await asyncio.sleep(0)

    async with (
        asyncio.timeout(PATIENCE),
        talking_server(endless) as port,
        open_sink("email", TEAM | {"port": port, "to": THREE}) as sink,
    ):
        with pytest.raises(TransientError, match="more than 32 KiB"):
            await sink.deliver(make_event({}))
    assert sent < 10_000_000  # the sockets' buffers hold a part


async def test_a_server_that_does_not_offer_it_gets_one_command_at_a_time():
    pieces: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while piece := await reader.read(65536):
            pieces.append(piece)
            go = piece == b"DATA\r\n"
            writer.write(
                b"250-mail.test\r\n250 SIZE\r\n"
                if piece.startswith(b"EHLO")
                else b"354 go\r\n"
                if go
                else b"250 ok\r\n"
            )

    async with talking_server(script) as port, open_sink("email", TEAM | {"port": port, "to": THREE}) as sink:
        assert await sink.deliver(make_event({})) == "250 ok"
    assert [piece[:4] for piece in pieces] == [b"EHLO", b"MAIL", b"RCPT", b"RCPT", b"RCPT", b"DATA", b"To: ", b"QUIT"]
