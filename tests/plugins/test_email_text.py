"""The email sink: what the mail looks like on the wire, and that no event can write a header."""

from __future__ import annotations

import re

import pytest

from router.errors import AddressError, PermanentError
from tests.support.sinks import make_event, open_sink
from tests.support.smtp import Received, smtp_server

USER = {
    "from": "Shop <shop@example.org>",
    "to": "{{ payload.email }}",
    "subject": "News",
    "text": "{{ payload.message }}",
}
TEAM = {"from": "shop@example.org", "to": ["ops@example.org", "dev@example.org"]}
PAYLOAD = {"email": "jane@example.org", "message": "Your order is on its way!"}


async def sent(values, event, **server) -> list[Received]:
    """What a server takes of one event."""
    async with smtp_server(**server) as box:
        values = {"host": "127.0.0.1", "port": box.port, "tls": "none", **values}
        async with open_sink("email", values) as sink:
            await sink.deliver(event)
        return box.taken


async def one(values, event=None, **server) -> Received:
    (mail,) = await sent(values, event or make_event(PAYLOAD), **server)
    return mail


def head(mail: Received) -> list[str]:
    """The header lines, unfolded."""
    block = mail.content.partition(b"\r\n\r\n")[0].decode()
    return re.sub(r"\r\n(?=[ \t])", "", block).split("\r\n")


async def test_a_plain_mail_line_by_line():
    mail = await one(USER)
    assert (mail.sender, mail.recipients) == ("shop@example.org", ["jane@example.org"])
    assert head(mail) == [
        "To: jane@example.org",
        'From: "Shop" <shop@example.org>',
        "Subject: News",
        "Date: Mon, 04 May 2026 03:02:01 +0000",
        "Message-ID: <e-1/notify/sink-under-test@example.org>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        'Content-Type: text/plain; charset="utf-8"',
        "Content-Transfer-Encoding: 7bit",
    ]
    assert mail.text() == "Your order is on its way!\r\n"


async def test_text_and_html_are_alternatives_and_values_are_escaped_in_html_alone():
    values = USER | {"html": '<a href="https://example.org">{{ payload.message }}</a>'}
    mail = await one(values, make_event(PAYLOAD | {"message": "<b>Ünï</b>"}))
    assert mail.message.get_content_type() == "multipart/alternative"
    assert mail.text().strip() == "<b>Ünï</b>"
    assert mail.text("html").strip() == '<a href="https://example.org">&lt;b&gt;Ünï&lt;/b&gt;</a>'
    assert mail.content.isascii()


async def test_html_alone():
    values = {key: value for key, value in USER.items() if key != "text"} | {"html": "<p>{{ payload.message }}</p>"}
    mail = await one(values)
    assert mail.message.get_content_type() == "text/html"
    assert mail.text("html").strip() == "<p>Your order is on its way!</p>"


async def test_a_team_without_text_gets_the_json_line_and_a_subject():
    event = make_event({"n": 12345678901234567890123})
    mail = await one(TEAM, event)
    assert mail.message["Subject"] == "Event on notification"
    assert mail.text().strip() == (
        '{"id":"e-1","source":"web-app","channel":"notification","pattern":null,'
        '"received_at":"2026-05-04T03:02:01.123456Z","route":"notify","payload":{"n":12345678901234567890123}}'
    )


async def test_the_lists_of_a_team_mail():
    values = TEAM | {
        "cc": "cc@example.org",
        "bcc": ["Boss <boss@example.org>"],
        "reply_to": "help@example.org",
        "text": "x",
    }
    mail = await one(values)
    assert mail.recipients == ["ops@example.org", "dev@example.org", "cc@example.org", "boss@example.org"]
    assert mail.message["To"] == "ops@example.org, dev@example.org"
    assert mail.message["Cc"] == "cc@example.org"
    assert mail.message["Reply-To"] == "help@example.org"
    assert b"boss" not in mail.content


async def test_bcc_alone_names_nobody():
    mail = await one({"from": "shop@example.org", "bcc": "a@example.org, b@example.org"})
    assert mail.recipients == ["a@example.org", "b@example.org"]
    assert "To: undisclosed-recipients:;" in head(mail)
    assert b"a@example.org" not in mail.content


async def test_an_address_that_stands_there_twice_gets_one_mail():
    mail = await one(TEAM | {"cc": "Ops <ops@EXAMPLE.org>, ops@example.org", "text": "x"})
    assert [recipient.lower() for recipient in mail.recipients].count("ops@example.org") == 1


async def test_own_headers_keep_long_urls_whole():
    url = "<https://example.org/unsubscribe/" + "x" * 300 + ">"
    values = USER | {
        "headers": {
            "List-Unsubscribe": url,
            "X-Name": "{{ payload.message }}",
            "X-Empty": "{{ payload.nothing | default('') }}",
            "Auto-Submitted": "no",
        }
    }
    lines = head(await one(values, make_event(PAYLOAD | {"message": "a\r\nX-Evil: 1"})))
    assert f"List-Unsubscribe: {url}" in lines
    assert "X-Name: a X-Evil: 1" in lines
    assert [line for line in lines if line.startswith(("Auto-Submitted", "X-E"))] == ["Auto-Submitted: no"]


FORGED = [
    "x\r\nBcc: evil@example.com",
    "x\nBcc: evil@example.com",
    "x\rBcc: evil@example.com",
    "x\r\n\r\n<html>",
    "x\u2028Bcc: evil@example.com",
    "x\x85Bcc: evil@example.com",
    "x\x0bBcc: evil@example.com",
    "x\x00y",
    "=?utf-8?q?x=0ABcc:_evil=40example.com?=",
    "=?utf-8?b?eA0KQmNjOiBldmlsQGV4YW1wbGUuY29t?=",
    "x\r\n Bcc: evil@example.com",
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("where", ["subject", "header", "name"])
async def test_no_value_becomes_a_header(forged, where):
    values = dict(USER)
    if where == "subject":
        values["subject"] = "S {{ payload.forged }}"
    elif where == "header":
        values["headers"] = {"X-Value": "S {{ payload.forged }}"}
    else:
        values["from"] = '"{{ payload.forged }}" <shop@example.org>'
    try:
        mail = await one(values, make_event(PAYLOAD | {"forged": forged}))
    except PermanentError:
        assert where == "name"
        return
    names = [line.partition(":")[0] for line in head(mail)]
    assert mail.recipients == ["jane@example.org"]
    assert len(names) == len(set(names))
    assert not {"Bcc", " Bcc"} & set(names)
    assert mail.message.get_body().get_content().strip() == PAYLOAD["message"]
    if where == "subject" and "=?" in forged:
        assert mail.message["Subject"] == f"S {forged}"


@pytest.mark.parametrize(
    "address", ["x\r\nBcc: y@example.org", "x@example.org\nBcc: y", "team: a@example.org;", "nobody"]
)
async def test_a_forged_address_gets_nothing(address):
    async with smtp_server() as box:
        async with open_sink("email", {"host": "127.0.0.1", "port": box.port, "tls": "none", **USER}) as sink:
            with pytest.raises(AddressError):
                await sink.deliver(make_event(PAYLOAD | {"email": address}))
            # The host refuses it while rendering; the sink would not send it either.
            good = sink.render(make_event(PAYLOAD))
            with pytest.raises(PermanentError, match=r"not a mail address|control character|is a group"):
                await sink.sink.deliver(make_event(PAYLOAD), good.model_copy(update={"to": [address]}))
        assert box.connections == []


@pytest.mark.parametrize(
    ("subject", "length"), [("x" * 10_000, 250), ("ü" * 10_000, 250), ("😀" * 10_000, 250), ("x" * 250, 250), ("ok", 2)]
)
async def test_a_long_subject_is_cut_and_every_line_is_within_the_limit(subject, length):
    mail = await one(USER | {"subject": "{{ payload.subject }}"}, make_event(PAYLOAD | {"subject": subject}))
    assert len(mail.message["Subject"]) == length
    assert mail.message["Subject"].endswith("…") is (len(subject) > length)
    assert max(len(line) for line in mail.content.split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    "text", ["x" * 5000, "ü" * 5000, "a\rb\nc\r\nd", ".\r\n.\r\nMAIL FROM:<x@example.org>", "From me\n.\n", "nul\0"]
)
async def test_any_text_arrives_and_stays_text(text):
    mail = await one(USER, make_event(PAYLOAD | {"message": text}))
    assert "\n".join(mail.text().splitlines()) == "\n".join(text.replace("\0", "\ufffd").splitlines())
    assert mail.recipients == ["jane@example.org"]
    assert max(len(line) for line in mail.content.split(b"\r\n")) <= 998


async def test_the_message_id_is_the_same_for_every_attempt_and_address():
    events = [
        make_event(PAYLOAD, attempt=1),
        make_event(PAYLOAD, attempt=7),
        make_event(PAYLOAD, address="jane@example.org"),
    ]
    assert {(await one(USER, event)).message["Message-ID"] for event in events} == {
        "<e-1/notify/sink-under-test@example.org>"
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "orders/1234-0"},
        {"id": '<a@b>#c d"e'},
        {"id": "..a..b.."},
        {"id": "x" * 200},
        {"id": "x%3Cy"},
        {"id": "e-1", "route": "", "sink": "mail."},
        {"id": "e-1", "route": "mail.", "sink": ""},
    ],
)
async def test_any_event_id_makes_a_valid_message_id_of_its_own(fields):
    (found,) = [
        line for line in head(await one(USER, make_event(PAYLOAD, **fields))) if line.startswith("Message-ID: ")
    ]
    atom = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    assert re.fullmatch(rf"Message-ID: <{atom}(\.{atom})*@example\.org>", found)
    assert len(found) < 300


async def test_message_ids_differ_where_the_deliveries_do():
    deliveries = [
        {"id": "a"}, {"id": "b"}, {"route": "r"}, {"sink": "s"}, {"id": "a/b", "route": "c"}, {"id": "a", "route": "b/c"},
        {"id": "x<y"}, {"id": "x%3Cy"}, {"id": "x" * 200}, {"id": "x" * 199},
    ]  # fmt: skip
    seen = {(await one(USER, make_event(PAYLOAD, **fields))).message["Message-ID"] for fields in deliveries}
    assert len(seen) == len(deliveries) - 1  # a route's name has no slash: the two with one are the same on purpose


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        ("jane@müller.example", "jane@xn--mller-kva.example"),
        ("Jane Doe <jane@straße.example>", "jane@xn--strae-oqa.example"),
        ('"Doe, Jane" <jane@example.org>', "jane@example.org"),
    ],
)
async def test_international_domains_reach_any_server(address, wire):
    mail = await one(TEAM | {"to": [address]})
    assert mail.recipients == [wire]
    assert [a.addr_spec for a in mail.message["To"].addresses] == [wire]


async def test_a_name_beyond_ascii_is_encoded():
    mail = await one(TEAM | {"to": ["Jürgen Groß <j@example.org>"]})
    (address,) = mail.message["To"].addresses
    assert (address.display_name, address.addr_spec) == ("Jürgen Groß", "j@example.org")
    assert mail.content.isascii()


async def test_an_international_local_part_where_the_server_takes_it():
    mail = await one(TEAM | {"to": ["jürgen@example.org"]}, utf8=True)
    assert mail.recipients == ["jürgen@example.org"]
    assert "SMTPUTF8" in mail.options
    assert "To: jürgen@example.org" in head(mail)


async def test_an_international_local_part_where_the_server_does_not():
    with pytest.raises(PermanentError, match=r"'jürgen@example\.org' needs SMTPUTF8"):
        await one(TEAM | {"to": ["jürgen@example.org"]})
