"""What an HTTP answer means for a delivery."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery.responses import DEFAULT_RETRY_AFTER, check_response, quote_response, retry_after
from router.errors import DeliveryError, PermanentError, SinkError, TransientError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_delivered(status):
    assert check_response(Response(status), now=0) is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PermanentError),
        (302, PermanentError),
        (400, PermanentError),
        (401, SinkError),
        (403, PermanentError),
        (404, SinkError),
        (405, PermanentError),
        (407, SinkError),
        (408, TransientError),
        (410, SinkError),
        (413, PermanentError),
        (422, PermanentError),
        (425, TransientError),
        (429, TransientError),
        (500, TransientError),
        (502, TransientError),
        (503, TransientError),
        (504, TransientError),
        (507, TransientError),
    ],
)
def test_what_each_status_means(status, error):
    with pytest.raises(DeliveryError) as caught:
        check_response(Response(status), now=0)
    assert type(caught.value) is error
    assert str(status) in str(caught.value)


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_page_of_a_rendered_url_is_the_messages_fault(status):
    with pytest.raises(PermanentError):
        check_response(Response(status), now=0, literal_url=False)


def test_a_redirect_says_that_it_is_not_followed():
    with pytest.raises(PermanentError, match="redirect, which is never followed"):
        check_response(Response(307, {"Location": "http://169.254.169.254/"}), now=0)


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_retry_after_travels_with_the_error(status):
    with pytest.raises(DeliveryError) as caught:
        check_response(Response(status, {"Retry-After": "17"}), now=0)
    assert caught.value.retry_after == 17


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Mon, 99 Foo 2026", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_as_a_number(value, seconds):
    assert retry_after({"Retry-After": value}, 0) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(90, 90.0), (-90, 0.0)])
def test_retry_after_as_a_date(ahead, seconds):
    date = format_datetime(NOW + timedelta(seconds=ahead), usegmt=True)
    assert retry_after({"Retry-After": date}, NOW.timestamp()) == seconds


def test_a_date_without_a_zone_is_utc():
    assert retry_after({"Retry-After": "Sun, 01 Mar 2026 12:00:30 -0000"}, NOW.timestamp()) == 30.0


@pytest.mark.parametrize("skew", [-86_400, -3_600, 3_600, 86_400])
def test_a_date_is_counted_by_the_clock_of_the_server_that_says_it(skew):
    ours, theirs = NOW.timestamp(), NOW + timedelta(seconds=skew)
    dates = [format_datetime(theirs + timedelta(seconds=seconds), usegmt=True) for seconds in (0, 90)]
    assert retry_after({"Date": dates[0], "Retry-After": dates[1]}, ours) == 90.0


def test_an_answer_without_a_good_date_is_counted_by_our_clock():
    date = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
    assert retry_after({"Date": "today", "Retry-After": date}, NOW.timestamp()) == 90.0


@pytest.mark.parametrize(
    ("status", "headers", "literal", "wait", "scope"),
    [
        (429, {"Retry-After": "17"}, True, 17.0, None),
        (429, {}, True, DEFAULT_RETRY_AFTER, None),
        (429, {"Retry-After": "soon"}, False, DEFAULT_RETRY_AFTER, None),
        (503, {"Retry-After": "17"}, True, 17.0, "sink"),
        (503, {}, True, None, "sink"),
        (503, {"Retry-After": "17"}, False, 17.0, None),
        (500, {"Retry-After": "17"}, True, 17.0, None),
    ],
)
def test_for_how_long_and_whom_an_answer_asks_for_time(status, headers, literal, wait, scope):
    with pytest.raises(TransientError) as caught:
        check_response(Response(status, headers), now=0, literal_url=literal)
    assert (caught.value.retry_after, caught.value.scope) == (wait, scope)


def test_no_retry_after():
    assert retry_after({}, 0) is None


@given(st.text())
def test_whatever_retry_after_says_it_is_a_delay_or_nothing(value):
    wait = retry_after({"Retry-After": value}, NOW.timestamp())
    assert wait is None or 0 <= wait < float("inf")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "HTTP 400"),
        (b"no_text\r\n", "HTTP 400: no_text"),
        (b" a \n\t b ", "HTTP 400: a b"),
        (b"\x1b[31mred\x07", "HTTP 400: [31mred"),
        (b"\xff!", r"HTTP 400: \xff!"),
        (b"x" * 500, "HTTP 400: " + "x" * 200 + "…"),
    ],
)
def test_an_answer_is_quoted_on_one_line(body, text):
    assert quote_response(Response(400, body=body)) == text
