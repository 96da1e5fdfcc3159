"""Bytes that are, and are not, payloads."""

import pytest

from router import events
from router.core.decoding import SourceFormat, read
from router.core.json_faults import MOST_BYTES
from router.errors import Reason, RejectedError

LIMIT = 1_000_000


def decode(raw, format_=events.JSON, limit=LIMIT):
    return read(raw, SourceFormat("web", format_, limit)).payload


def rejection(raw, format_=events.JSON, limit=LIMIT):
    with pytest.raises(RejectedError) as caught:
        decode(raw, format_, limit)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "empty"),
        (b" \n", "white space"),
        (b"{", "too early, at line 1, column 2"),
        (b"{}x", "after the end"),
        (b"\xff\xfe", "UTF-16"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"NaN", "send null"),
        (b"-Infinity", "send null"),
        (b"1e999", "too large"),
        (b'"\\ud800"', "surrogate"),
        (b'"a\x00"', "control character"),
        pytest.param(b"[" * 200_000, "deeply", id="deep"),
        pytest.param(b"1" * 4301, "too long", id="4301 digits"),
        (b"{'a': 1}", "double quotes"),
    ],
)
def test_what_is_no_json_is_rejected(raw, part):
    error = rejection(raw)
    assert error.reason is Reason.DECODE
    assert part in error.detail


@pytest.mark.parametrize(
    ("raw", "payload"),
    [
        (b"{}", {}),
        (b"null", None),
        (b' [1, "a"] ', [1, "a"]),
        (b'{"role": "a", "role": "b"}', {"role": "b"}),
        (b'"\\u0000"', "\x00"),
        pytest.param(b"9" * 4300, int("9" * 4300), id="4300 digits"),
        (str(2**70).encode(), 2**70),
    ],
)
def test_json(raw, payload):
    assert decode(raw) == payload


def test_text_is_any_utf8():
    assert decode(b"whoami", events.TEXT) == "whoami"
    assert decode(b"", events.TEXT) == ""
    error = rejection(b"a\n\xffx", events.TEXT)
    assert error.reason is Reason.DECODE
    assert error.detail == "not text: the byte 0xff is not UTF-8, at line 2, column 1"


def test_a_message_too_long_to_be_read_again_is_told_of_in_the_decoders_words():
    raw = b"[" + b"1," * MOST_BYTES + b"NaN]"
    assert "byte" in rejection(raw, limit=len(raw)).detail


def test_size_is_asked_before_anything_else():
    error = rejection(b"{broken", limit=3)
    assert error.reason is Reason.TOO_LARGE
    assert "7 bytes" in error.detail
    assert decode(b"[1]", limit=3) == [1]
