from __future__ import annotations

import base64
import json
import re
from typing import Annotated, Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.ops.redaction import Redactor, plain_options
from router.options import Addresses, Html, Secret, SinkOptions, Text

LONG = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=40)
AROUND = st.binary(max_size=7)


@given(LONG, AROUND, AROUND)
@example("hunter2-and-more", b"user:", b"")
def test_base64_of_a_secret_is_hidden_whatever_stands_around_it(secret: str, before: bytes, after: bytes) -> None:
    whole = before + secret.encode() + after
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = Redactor([secret]).text(f"Authorization: Basic {encode(whole).decode()}")
        assert "***" in shown
        left = shown.removeprefix("Authorization: Basic ")
        # What is left besides the neighbours are the two characters that a neighbour's bits stand in.
        assert len(left.replace("***", "").rstrip("=")) <= (len(before) + len(after)) * 4 / 3 + 4


@given(LONG)
def test_every_encoding_of_a_long_secret_is_hidden(secret: str) -> None:
    redact = Redactor([secret]).text
    for form in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        re.sub("%..", lambda escape: escape[0].lower(), quote(secret)),
    ):
        assert redact(f"<{form}>") == "<***>"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("key", '{"key": "keys", "x": "the key"}', '{"***": "keys", "x": "the ***"}'),
        ("e", "every e, hence e-mail", "every ***, hence ***-mail"),
        ("x", "user x42 and x", "user x42 and ***"),
        ("12345", "12345 123456 a12345", "*** 123456 a12345"),
        ("$$", "costs $$ now", "costs *** now"),
    ],
)
def test_a_short_secret_is_hidden_as_a_word(secret: str, text: str, shown: str) -> None:
    assert Redactor([secret]).text(text) == shown


def test_a_secret_within_a_longer_one_leaves_no_rest() -> None:
    assert Redactor(["abcdefgh", "abcdefgh-and-more"]).text("x abcdefgh-and-more y abcdefgh") == "x *** y ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:p@host:6379/0 refused", "redis://***@host:6379/0 refused"),
        ("GET https://token@hooks.example.org/a", "GET https://***@hooks.example.org/a"),
        ("redis://:p@h and redis://:q@i", "redis://***@h and redis://***@i"),
        ("https://example.org/a?to=jane@example.org", "https://example.org/a?to=jane@example.org"),
        ("jane@example.org", "jane@example.org"),
    ],
)
def test_the_user_and_password_of_a_url_are_hidden_always(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


def test_keys_keep_short_secrets_and_names_of_ours_stay() -> None:
    redactor = Redactor(["hook", "schema", "a-long-secret"])
    assert redactor.value({"hook": ["hook"], "a-long-secret": 1}) == {"hook": ["***"], "***": 1}
    fields = {
        "event": "hook",
        "sink": "hook",
        "route": "hook",
        "channel": "hook",
        "event_id": "hook",
        "reason": "schema",
    }
    assert redactor(None, "info", fields) == {**fields, "event": "***"}
    assert redactor(None, "info", {"reason": "a-long-secret is wrong"}) == {"reason": "*** is wrong"}


def test_many_urls_take_linear_time() -> None:
    assert Redactor().text("://a" * 100_000 + "@") == "://a" * 99_999 + "://***@"


class Recipients(SinkOptions):
    """Recipients that hold more than their address."""

    devices: Annotated[list[Any], Addresses(known_by="id")]
    urls: Annotated[list[str], Addresses(known_by=lambda url: url.partition("://")[0])]
    token: Secret


def test_options_show_the_addresses_of_recipients_that_hold_credentials() -> None:
    options = Recipients.model_construct(devices=[{"id": "a", "key": "k"}], urls=["tgram://token"], token=Secret("t"))
    assert plain_options(options) == {"devices": ["a"], "urls": ["tgram"], "token": "***"}
    assert plain_options(options, whole=True)["urls"] == ["tgram://token"]


class Messages(SinkOptions):
    """Messages with defaults."""

    number: str
    text: Text = Text("A new order")
    mail: Annotated[str, Html()] = ""
    color: str = "red"


def test_a_message_is_shown_if_it_is_the_default_too() -> None:
    assert plain_options(Messages(number="5")) == {"number": "5", "text": "A new order"}
    assert plain_options(Messages(number="5", mail="<b>hi</b>"))["mail"] == "<b>hi</b>"
