"""The chat sink: what its options take and refuse."""

import pytest
from pydantic import ValidationError

from router.core.rendering import TemplateEnvironment, compile_options
from tests.support.sinks import FakeContext, OpenSink, make_event, sink_type, validate

URL = {"url": "https://hooks.example.org/SECRET"}
BOT = {"token": "SECRET", "to": "42"}
LOCAL = "set `allow_private: true` on the sink"


def test_is_registered_with_the_defaults_of_a_durable_sink():
    registered = sink_type("chat")
    assert (registered.queue, registered.concurrency, registered.local) == ("redis", 4, False)


@pytest.mark.parametrize(
    "values",
    [
        {"service": "slack", **URL},
        {"service": "slack", **BOT},
        {"service": "discord", **URL},
        {"service": "discord", **BOT},
        {"service": "teams", **URL},
        {"service": "mattermost", **URL},
        {"service": "mattermost", **BOT, "api": "https://chat.example.org"},
        {"service": "telegram", **BOT},
        {"service": "telegram", "token": "none", "to": "{{ payload.user_id }}", "text": "{{ payload.message }}"},
        {"service": "telegram", "token": "none", "to": 42},
        {"service": "google-chat", **URL},
        {"service": "slack", "url": "http://127.0.0.1:1/x", "allow_private": True},
        {"service": "slack", **BOT, "api": "http://localhost:1", "allow_private": True},
        {"service": "slack", **URL, "to": []},
        {"service": "mattermost", **URL, "api": "https://chat.example.org"},  # as `defaults` for both ways give it
    ],
)
def test_takes(values):
    assert validate("chat", values).markup == "plain"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"service": "slack"}, "slack needs `url` (a webhook) or `token` and `to` (a bot)"),
        ({"service": "teams"}, "teams needs `url` (a webhook)"),
        ({"service": "telegram"}, "telegram needs `token` and `to` (a bot)"),
        ({"service": "slack", **URL, **BOT}, "not both"),
        ({"service": "slack", **URL, "to": "#ops"}, "not both"),
        ({"service": "slack", **URL, "token": "x"}, "not both"),
        ({"service": "slack", "token": "x"}, "`to` is missing"),
        ({"service": "slack", "to": "x"}, "`token` is missing"),
        ({"service": "teams", **BOT}, "the router reaches teams only by a webhook"),
        ({"service": "google-chat", **BOT}, "the router reaches google-chat only by a webhook"),
        ({"service": "telegram", **URL}, "telegram has no webhooks"),
        ({"service": "mattermost", **BOT}, "mattermost needs `api`"),
        ({"service": "slack", "url": "hooks.example.org/SECRET"}, "`url` is not an http:// or https:// URL"),
        ({"service": "slack", "url": "ftp://SECRET.example.org"}, "`url` is not an http:// or https:// URL"),
        ({"service": "slack", "url": ""}, "`url` is not an http:// or https:// URL"),
        ({"service": "slack", "url": "https://[::1/SECRET"}, "`url` is not an http:// or https:// URL"),
        ({"service": "slack", "url": "https://hooks.example.org/SECRET x"}, "`url` has a space, a control character"),
        ({"service": "slack", "url": "https://hooks.example.org/SECRET\tx"}, "`url` has a space, a control character"),
        ({"service": "slack", "url": "https://hooks.example.org/SECRÉT"}, "percent-encode it"),
        ({"service": "slack", "url": "https://größe.example/SECRET"}, "write a host name as xn--"),
        ({"service": "slack", **BOT, "api": "https://slack.example/a\u200bb"}, "`api` has a space"),
        ({"service": "slack", **BOT, "api": "slack.com"}, "`api` is not an http:// or https:// URL"),
        ({"service": "slack", **BOT, "token": ""}, "`token` is empty"),
        ({"service": "slack", **BOT, "token": "SECRET\r\nX: y"}, "a character that is not allowed in a token"),
        ({"service": "slack", "url": "http://127.0.0.1:8080/SECRET"}, f"127.0.0.1, a private address; {LOCAL}"),
        ({"service": "slack", "url": "http://localhost/SECRET"}, LOCAL),
        ({"service": "slack", "url": "http://[::ffff:10.0.0.1]/SECRET"}, LOCAL),
        ({"service": "slack", "url": "http://2130706433/SECRET"}, LOCAL),
        ({"service": "mattermost", **BOT, "api": "http://10.0.0.5:8065"}, LOCAL),
        ({"service": "slack", **BOT, "to": "{{ payload.user_id }}"}, "`text` is required"),
        ({"service": "slack", **BOT, "to": ["#ops", "{% if true %}x{% endif %}"]}, "`text` is required"),
    ],
)  # fmt: skip
def test_refuses(values, says):
    with pytest.raises(ValidationError) as caught:
        validate("chat", values)
    (problem,) = caught.value.errors()
    assert says in problem["msg"]
    assert "SECRET" not in problem["msg"]


def test_several_faults_are_told_at_once():
    with pytest.raises(ValidationError) as caught:
        validate("chat", {"service": "mattermost", "token": "a b", "to": "{{ x }}"})
    assert all(part in str(caught.value) for part in ("needs `api`", "`token` is empty or", "`text` is required"))


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"service": "irc", **URL}, ("service",)),
        ({"service": "slack", **URL, "markup": "html"}, ("markup",)),
        ({"service": "slack", **URL, "channel": "#ops"}, ("channel",)),
        (URL, ("service",)),
    ],
)
def test_refuses_at_the_key(values, place):
    with pytest.raises(ValidationError) as caught:
        validate("chat", values)
    assert caught.value.errors()[0]["loc"] == place


def test_secrets_show_in_no_representation():
    shown = repr(validate("chat", {"service": "slack", **URL})) + repr(validate("chat", {"service": "slack", **BOT}))
    assert "SECRET" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("to", "payload", "addresses"),
    [
        ("{{ payload.user_id }}", {"user_id": 42}, ["42"]),
        ("{{ payload.ids }}", {"ids": [1, 2, 1]}, ["1", "2"]),
        ("{{ payload.a }}, {{ payload.b }}", {"a": 1, "b": 2}, ["1", "2"]),
        (["@ops", "{{ payload.user_id }}"], {"user_id": -100}, ["@ops", "-100"]),
    ],
)
def test_addresses_are_templates(to, payload, addresses):
    options = validate("chat", {"service": "telegram", "token": "x", "to": to, "text": "hi"})
    rendered = compile_options(options, TemplateEnvironment()).render(make_event(payload), 0.0)
    assert list(rendered.addresses) == addresses
    assert list(rendered.options.to) == addresses


def test_a_missing_address_is_no_delivery():
    options = validate("chat", {"service": "telegram", "token": "x", "to": "{{ payload.user_id }}", "text": "hi"})
    rendered = compile_options(options, TemplateEnvironment()).render(make_event({"user_id": None}), 0.0)
    assert rendered.suppressed == "no_address"


def test_options_without_a_template_are_one_object():
    sink = OpenSink("chat", {"service": "slack", **URL, "text": "deployed"}, FakeContext())
    assert sink.render(make_event({})) is sink.render(make_event({}))
