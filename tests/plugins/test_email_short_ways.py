"""The email sink: the short ways for plain texts write exactly what the general ways write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.sinks import make_event, plugin_module

HEADERS = plugin_module("email", "headers")
MAIL = plugin_module("email", "mail")
MAILBOX = plugin_module("email", "mailbox")

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))
NAMES = st.sampled_from(["Subject", "X-Note", "List-Unsubscribe", "Sender", "References", "list-id", "X" * 76])
EDGES = [
    "",
    " ",
    "  a  ",
    "=?utf-8?q?a?=",
    "a\r\nBcc: b@example.org",
    "\x7f",
    "\t",
    "\x85",
    "\u2028",
    "ü",
    "x" * 240,
    "." * 987,
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Texts of which most are plain, and some have an edge case in them or are about as long as a limit."""
    text = draw(PRINTABLE | st.text())
    if draw(st.booleans()):
        text += draw(st.sampled_from(EDGES)) + draw(PRINTABLE)
    if draw(st.booleans()):
        text += "x" * (
            draw(st.sampled_from([250, 911, 988, 989, 996, 998, 8192])) - len(text) + draw(st.integers(-2, 2))
        )
    return text


@given(NAMES, texts(), st.sampled_from([250, 8192]))
def test_a_header_of_text(name, value, most):
    assert HEADERS.text_header(name, value, most) == HEADERS.any_text_header(name, value, most)


def outcome(write: Callable[..., bytes], *values: str) -> bytes | str:
    """What a function returns, or the text of the error that it raises."""
    try:
        return write(*values)
    except ValueError as error:
        return str(error)


@given(NAMES, texts())
def test_a_header_that_is_remembered(name, value):
    """Twice: the second time it may be one that was written before."""
    expected = outcome(HEADERS.any_header, name, value)
    assert [outcome(HEADERS.header, name, value) for _ in range(2)] == [expected] * 2


PARTS = st.text(st.sampled_from("aZ09._~/-%<>@é $!")) | st.text() | st.just("x" * 198)


@given(PARTS, PARTS, PARTS)
@example("a", "b.", ".c")
@example("..", "", "")
@example("x" * 196, "y", "z")
@example("x" * 197, "y", "z")
def test_a_message_id(identifier, route, sink):
    event = make_event({}, id=identifier, route=route, sink=sink)
    try:
        expected = MAIL.any_message_id(f"{identifier}/{route}/{sink}", "example.org")
    except UnicodeEncodeError:
        return
    assert MAIL.message_id(event, "example.org") == expected


@given(
    st.datetimes() | st.just(datetime(1, 1, 1, tzinfo=UTC)),
    st.sampled_from([UTC, timezone(timedelta(hours=2)), UTC, timezone(timedelta(0), "GMT"), None]),
)
def test_a_date(moment, zone):
    moment = moment.replace(tzinfo=zone)
    assert MAIL.date(moment) == format_datetime(moment)


@pytest.mark.parametrize("text", ["a@example.org, b@example.org", "nobody", "", "x" * 1001])
def test_an_address_that_is_none_is_one_every_time(text):
    for _ in range(2):
        with pytest.raises(ValueError, match=r"is not a mail address|is more than one address"):
            MAILBOX.mailbox(text)
