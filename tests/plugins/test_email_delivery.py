"""The email sink: what each answer of a server means, recipient by recipient."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from router.errors import PartialError, PermanentError, SinkError, TransientError
from tests.support.sinks import make_event, open_sink
from tests.support.smtp import Postbox, both_dialogues, greeting, silence, smtp_server, talking_server  # noqa: F401
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("both_dialogues")

A, B, C = "a@example.org", "b@example.org", "c@example.org"
TEAM = {"from": "shop@example.org", "to": [A, B, C], "text": "Hello"}
USERS = {"from": "shop@example.org", "to": "{{ payload.to }}", "text": "Hello"}
EVENT = make_event({"to": [A, B, C]})


def at(box: Postbox, values: dict[str, Any]) -> dict[str, Any]:
    """The options with this server."""
    return {"host": "127.0.0.1", "port": box.port, "tls": "none", **values}


async def failure(values, box: Postbox, event=EVENT) -> Exception | None:
    """What the sink raises for one event."""
    async with open_sink("email", at(box, values)) as sink:
        try:
            await sink.deliver(event)
        except (TransientError, PermanentError, SinkError, PartialError) as error:
            return error
    return None


def described(error: Exception | None) -> Any:
    """An error as a short value: its class, or one class for each address."""
    if isinstance(error, PartialError):
        return {address: type(each) for address, each in error.failures.items()}
    return None if error is None else type(error)


async def test_a_list_shares_one_mail():
    async with smtp_server() as box:
        assert await failure(TEAM, box) is None
    assert [mail.recipients for mail in box.taken] == [[A, B, C]]


@pytest.mark.parametrize(("values", "replies"), [(TEAM, "250 OK: queued"), (USERS, ", ".join(["250 OK: queued"] * 3))])
async def test_what_the_server_said_when_it_took_the_mail_is_the_answer(values, replies):
    async with smtp_server() as box, open_sink("email", at(box, values)) as sink:
        assert await sink.deliver(EVENT) == replies


async def test_a_reply_of_several_lines_is_one_line():
    async with smtp_server() as box, open_sink("email", at(box, TEAM)) as sink:
        box.data.append("250-2.0.0 Ok\r\n250 queued as 4711")
        assert await sink.deliver(EVENT) == "250 2.0.0 Ok queued as 4711"


async def test_templated_recipients_get_a_mail_each_on_one_connection():
    async with smtp_server() as box:
        assert await failure(USERS, box) is None
    assert [mail.recipients for mail in box.taken] == [[A], [B], [C]]
    assert [str(mail.message["To"]) for mail in box.taken] == [A, B, C]
    assert len({mail.message["Message-ID"] for mail in box.taken}) == 1
    assert len(box.connections) == 1


ANSWERS = [
    ("550 5.1.1 no such user", PermanentError),
    ("552 mailbox full", PermanentError),
    ("450 4.2.0 greylisted", TransientError),
    ("451 local error", TransientError),
    ("452 4.5.3 too many recipients", TransientError),
]


@pytest.mark.parametrize(("answer", "kind"), ANSWERS)
async def test_one_of_three_refused_is_split_off(answer, kind):
    async with smtp_server() as box:
        box.recipients = {B: [answer]}
        error = await failure(TEAM, box)
    assert described(error) == {B: kind}
    assert answer in str(error.failures[B])
    assert [mail.recipients for mail in box.taken] == [[A, C]]


@pytest.mark.parametrize(("answer", "kind"), ANSWERS)
async def test_one_of_three_refused_with_a_mail_each(answer, kind):
    async with smtp_server() as box:
        box.recipients = {A: [answer]}
        error = await failure(USERS, box)
    assert described(error) == {A: kind}
    assert [mail.recipients for mail in box.taken] == [[B], [C]]
    assert len(box.connections) == 1


@pytest.mark.parametrize(("answer", "kind"), ANSWERS)
async def test_the_only_recipient_refused_is_the_error_itself(answer, kind):
    async with smtp_server() as box:
        box.recipients = {A: [answer]}
        assert described(await failure(USERS, box, make_event({"to": A}))) is kind
    assert box.taken == []


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("450 4.2.0 Greylisted for 300 seconds (see http://example.org/)", 300),
        ("451 4.7.1 Please try again in 5 minutes", 300),
        ("451 4.7.1 Greylisting in action, please come back in 00:05:30", 330),
        ("450 4.7.1 try after 90s", 90),
        ("450 4.2.0 mailbox full for 7 users", None),
        ("451 4.3.0 in trouble, 30 seconds", None),
        ("450 4.2.0 greylisted", None),
    ],
)
async def test_a_server_may_say_when_to_come_again(answer, seconds):
    async with smtp_server() as box:
        box.recipients = {B: [answer]}
        error = await failure(TEAM, box)
    assert described(error) == {B: TransientError}
    assert error.failures[B].retry_after == seconds


async def test_all_refused_are_named_one_by_one():
    async with smtp_server() as box:
        box.recipients = {A: ["550 no"], B: ["451 later"], C: ["550 no"]}
        error = await failure(TEAM, box)
    assert described(error) == {A: PermanentError, B: TransientError, C: PermanentError}
    assert "DATA" not in box.commands


async def test_an_address_is_named_as_it_stood_in_the_options():
    async with smtp_server() as box:
        box.recipients = {A: ["550 no"]}
        error = await failure(TEAM | {"to": [f"Anna <{A}>", B]}, box)
    assert described(error) == {f"Anna <{A}>": PermanentError}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("452 insufficient storage", TransientError),
        ("421 shutting down", TransientError),
        ("554 spam", PermanentError),
        ("552 too big", PermanentError),
        ("530 authentication required", SinkError),
    ],
)
async def test_a_refused_mail_is_one_error_for_all_its_recipients(answer, kind):
    async with smtp_server() as box:
        box.data = [answer]
        assert described(await failure(TEAM, box)) is kind


async def test_a_refused_mail_keeps_apart_who_was_refused_before():
    async with smtp_server() as box:
        box.recipients = {B: ["550 no"]}
        box.data = ["452 later"]
        error = await failure(TEAM, box)
    assert described(error) == {A: TransientError, B: PermanentError, C: TransientError}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("451 later", TransientError),
        ("421 too many connections", TransientError),
        ("550 sender refused", PermanentError),
        ("530 5.7.0 authentication required", SinkError),
        ("535 5.7.8 bad credential", SinkError),
    ],
)
async def test_a_refused_sender(answer, kind):
    async with smtp_server() as box:
        box.mail = [answer] * 3
        error = await failure(TEAM, box)
    assert described(error) is kind
    assert answer in str(error)


async def test_421_at_a_recipient_ends_the_mail_for_all():
    async with smtp_server() as box:
        box.recipients = {B: ["421 closing"]}
        assert described(await failure(TEAM, box)) is TransientError
    assert box.taken == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("421 4.3.2 try later", TransientError),
        ("450 busy", TransientError),
        ("554 5.3.2 no service here", SinkError),
        ("HTTP/1.1 400 Bad Request", TransientError),
    ],
)
@pytest.mark.parametrize("values", [TEAM, USERS])
async def test_refused_at_connect(line, kind, values):
    async with talking_server(greeting(line)) as port:
        error = await failure(values, Postbox(port=port))
    assert described(error) is kind
    assert line.split(" ", 1)[1] in str(error)


async def test_nobody_there():
    async with smtp_server() as box:
        port = box.port
    error = await failure(TEAM, Postbox(port=port))
    assert described(error) is TransientError
    assert f"no connection to 127.0.0.1:{port}" in str(error)


async def test_no_such_host():
    error = await failure({"host": "no-such-host.invalid", **TEAM, "port": 25}, Postbox())
    assert error is None or isinstance(error, TransientError)


async def test_dropped_after_data_is_transient_and_the_repeat_has_the_same_message_id():
    async with smtp_server() as box, open_sink("email", at(box, TEAM)) as sink:
        drop = box.drop_connections
        real = box.handle_DATA

        async def cut(server, session, envelope):
            answer = await real(server, session, envelope)
            drop()
            return answer

        box.handle_DATA = cut
        with pytest.raises(TransientError, match="before it confirmed the mail"):
            await sink.deliver(EVENT)
        box.handle_DATA = real
        await sink.deliver(EVENT)
    assert [mail.recipients for mail in box.taken] == [[A, B, C]] * 2
    assert len({mail.message["Message-ID"] for mail in box.taken}) == 1


async def test_with_a_mail_each_a_cut_costs_only_its_own_address():
    async with smtp_server() as box:
        box.recipients = {B: [box.drop_connections] * 2}  # the first is on a used connection, and costs nothing
        error = await failure(USERS, box)
    assert described(error) == {B: TransientError}
    assert box.reached == [A, C]
    assert len(box.connections) == 3


async def test_over_the_servers_size():
    async with smtp_server(size=1000) as box:
        assert await failure(TEAM, box) is None
        error = await failure(TEAM | {"text": "x" * 2000}, box)
    assert described(error) is PermanentError
    assert "the server accepts at most 1000" in str(error)
    assert len(box.taken) == 1


async def test_the_size_is_announced():
    async with smtp_server(size=1000) as box:
        await failure(TEAM, box)
    (mail,) = box.taken
    assert mail.options[0] == f"SIZE={len(mail.content)}"


async def test_a_recipient_without_smtputf8_is_refused_alone():
    async with smtp_server() as box:
        error = await failure(TEAM | {"to": [A, "jürgen@example.org"]}, box)
    assert described(error) == {"jürgen@example.org": PermanentError}
    assert box.reached == [A]
    assert box.taken[0].content.isascii()


async def test_a_hanging_server_leaves_the_time_to_the_host():
    async with talking_server(silence) as port, open_sink("email", at(Postbox(port=port), TEAM)) as sink:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sink.deliver(EVENT)


async def test_an_attempt_cut_off_between_two_mails_repeats_none():
    async with smtp_server() as box, open_sink("email", at(box, USERS)) as sink:
        reached, forever = asyncio.Event(), asyncio.Event()

        async def hold():
            reached.set()
            await forever.wait()

        box.recipients = {B: [hold]}
        delivering = asyncio.create_task(sink.deliver(EVENT))
        await reached.wait()
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
        assert box.reached == [A]
        box.recipients = {}
        await sink.deliver(EVENT)
        forever.set()
    assert Counter(box.reached) == {A: 1, B: 1, C: 1}


async def test_one_delivery_split_off_for_an_address_reaches_it_alone():
    async with smtp_server() as box, open_sink("email", at(box, TEAM)) as sink:
        await sink.deliver(make_event({}, address=B))
    assert box.reached == [B]


async def test_a_thousand_mails_with_every_fault_reach_everyone_once():
    """What a host does with the errors, in short: each address not reached is tried again alone."""
    async with smtp_server() as box, open_sink("email", at(box, TEAM)) as sink:
        plan = dict(enumerate(["451 later", "452 full", None, "550 no", None]))
        dead: list[str] = []

        async def settle(number: int) -> None:
            to = [f"{name}{number}@example.org" for name in "abc"]
            fault = plan[number % 5]
            if fault:
                box.recipients[to[1]] = [fault]
            waiting = [None]
            while waiting:
                address = waiting.pop()
                event = make_event({}, id=f"e-{number}", address=address)
                options = sink.render(make_event({})).model_copy(update={"to": [address] if address else to})
                try:
                    await sink.sink.deliver(event, options)
                except PartialError as error:
                    for refused, why in error.failures.items():
                        (waiting if isinstance(why, TransientError) else dead).append(refused)

        numbers = iter(range(200))

        async def worker() -> None:
            for number in numbers:
                await settle(number)

        await asyncio.gather(*(worker() for _ in range(4)))
        await until(lambda: len(box.reached) + len(dead) == 600)
    assert len(dead) == 40
    assert set(Counter(box.reached).values()) == {1}
    assert len(box.connections) == 4
