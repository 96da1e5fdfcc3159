"""The email sink: what its options take and refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.support.sinks import FakeContext, OpenSink, make_event, plugin_module, sink_type, validate

USER = {"from": "Shop <shop@example.org>", "to": "{{ payload.email }}", "text": "{{ payload.message }}"}
TEAM = {"from": "shop@example.org", "to": ["ops@example.org", "dev@example.org"]}


def test_is_registered_with_the_defaults_of_a_durable_sink():
    registered = sink_type("email")
    assert (registered.queue, registered.concurrency, registered.local) == ("redis", 4, False)


@pytest.mark.parametrize(
    "values",
    [USER, TEAM, TEAM | {"tls": "tls"}, TEAM | {"helo": "[192.0.2.7]"}, TEAM | {"bcc": "a@example.org", "to": []}],
)
def test_takes(values):
    assert validate("email", values).host == "localhost"


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"to": []}, (), "set `to`, `cc` or `bcc`"),
        ({"to": "nobody"}, ("to",), "'nobody' is not a mail address"),
        ({"cc": ["a@example.org", "x@y@z"]}, ("cc",), "not a mail address"),
        ({"reply_to": "a b@example.org"}, ("reply_to",), "not a mail address"),
        ({"from": "a@example.org, b@example.org"}, ("from",), "more than one address"),
        ({"from": "nobody"}, ("from",), "not a mail address"),
        ({"to": "{{ payload.email }}"}, (), "`text` or `html` is required"),
        ({"bcc": "{{ payload.email }}"}, (), "`text` or `html` is required"),
        ({"username": "me"}, (), "`username` needs a `password`"),
        ({"username": "me", "password": ""}, (), "`username` needs a `password`"),
        ({"password": "secret", "from": "{{ payload.email }}"}, (), "`password` needs a `username`"),
        ({"headers": {"Bcc": "x"}}, ("headers",), "written from the other options"),
        ({"headers": {"message-ID": "x"}}, ("headers",), "written from the other options"),
        ({"headers": {"Content-Type": "x"}}, ("headers",), "written from the other options"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, ("headers",), "twice"),
        ({"headers": {"X: y": "1"}}, ("headers",), "can't be the name of a header"),
        ({"headers": {"X\r\nBcc": "1"}}, ("headers",), "can't be the name of a header"),
        ({"headers": {"Ä": "1"}}, ("headers",), "can't be the name of a header"),
        ({"ca_file": "ca.pem"}, ("ca_file",), "absolute"),
        (
            {"host": "smtp://user:secret@mail.example.org:25/"},
            ("host",),
            "must be a host name; write mail.example.org",
        ),
        ({"host": "mail.example.org:25"}, ("host",), "write mail.example.org and port: 25"),
        ({"host": "[::1]:25"}, ("host",), "write ::1 and port: 25"),
        ({"host": "mail.example.org/in"}, ("host",), "not a host name"),
        ({"helo": "https://mail.example.org"}, ("helo",), "must be a host name; write mail.example.org"),
        ({"to": "mailto:ops@example.org"}, ("to",), "remove `mailto:`"),
        ({"port": 0}, ("port",), "greater than or equal to 1"),
        ({"port": "25"}, ("port",), "valid integer"),
        ({"tls": "ssl"}, ("tls",), "'starttls', 'tls' or 'none'"),
        ({"sender": "x@example.org"}, ("sender",), "not permitted"),
    ],
)
def test_refuses(change, place, says):
    with pytest.raises(ValidationError) as caught:
        validate("email", TEAM | change)
    (problem,) = caught.value.errors()
    assert problem["loc"] == place
    assert says in problem["msg"]
    assert "secret" not in problem["msg"]


@pytest.mark.parametrize(
    ("values", "separate"),
    [
        (TEAM, False),
        (USER, True),
        (TEAM | {"bcc": "{% if payload.x %}a@example.org{% endif %}", "text": "x"}, True),
        (TEAM | {"separate": True}, True),
        (USER | {"separate": False}, False),
        (TEAM | {"reply_to": "{{ payload.email }}"}, False),
    ],
)
def test_one_mail_per_address_where_an_address_is_a_template(values, separate):
    sink = OpenSink("email", values, FakeContext())
    assert sink.render(make_event({"email": "a@example.org", "message": "m", "x": 1})).separate is separate


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_default_port_follows_from_tls(tls, port):
    connections = plugin_module("email", "connections").Connections(validate("email", TEAM | {"tls": tls}), None, "")
    assert connections.server == f"localhost:{port}"


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("mail.example.org", True)])
async def test_a_password_in_the_clear_is_warned_of(host, warned):
    sink = OpenSink(
        "email", TEAM | {"tls": "none", "host": host, "username": "me", "password": "geheim"}, FakeContext()
    )
    await sink.sink.open(sink.context)
    assert [entry["level"] for entry in sink.context.logged] == (["warning"] if warned else [])
    assert "geheim" not in repr(sink.context.logged)


@pytest.mark.parametrize(
    ("values", "login"),
    [
        ({}, None),
        ({"password": ""}, None),
        ({"username": "", "password": ""}, None),
        ({"username": "me", "password": "p"}, ("me", "p")),
        ({"password": "p"}, ("shop@example.org", "p")),
        ({"password": "p", "from": "Shop <sales@example.org>"}, ("sales@example.org", "p")),
    ],
)
def test_the_user_name_is_the_sender_by_default(values, login):
    assert validate("email", TEAM | values).login == login


def test_the_password_does_not_show():
    assert "geheim" not in repr(validate("email", TEAM | {"username": "me", "password": "geheim"}))
