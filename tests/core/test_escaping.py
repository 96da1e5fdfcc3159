"""Text from outside: written out where it could steer a terminal, and cut to a length."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.escaping import cut, escape, escape_json

STEERING = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\t"}
TURNING = {chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x9b31m\x7f", r"\u001b]0;title\u0007\u009b31m\u007f"),
        ("\u202egnp.exe\u2028\u2069\u200f\u061c", r"\u202egnp.exe\u2028\u2069\u200f\u061c"),
        ("a\r\nb", r"a\r\nb"),
        ("half \ud800", r"half \ud800"),
        ("tab\tstays, ünï 😀 \\n [red] too", "tab\tstays, ünï 😀 \\n [red] too"),
    ],
)
def test_what_steers_is_written_out(text, shown):
    assert escape(text) == shown


def test_lines_may_stay_lines():
    assert escape("one\ntwo\r\x1b\u2028", newlines=True) == "one\ntwo\\r\\u001b\\u2028"


@given(st.text())
def test_nothing_that_steers_is_left_and_the_rest_is_as_it_was(text):
    shown = escape(text)
    assert not (STEERING | TURNING) & {*shown}
    if not (STEERING | TURNING) & {*text}:
        assert shown == text


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_says_the_same_and_nothing_in_it_steers(value):
    escaped = escape_json(json.dumps(value, ensure_ascii=False).encode())
    assert json.loads(escaped) == value
    assert not (STEERING | TURNING) & {*escaped.decode()}


def test_each_character_that_steers_is_written_out_in_json():
    every = "".join(sorted(STEERING | TURNING | {"é", "…", "€", "☃", "؟", "§"}))
    escaped = escape_json(json.dumps(every, ensure_ascii=False).encode())
    assert json.loads(escaped) == every
    assert {char for char in escaped.decode() if not char.isascii()} == {"é", "…", "€", "☃", "؟", "§"}


@given(st.text(), st.integers(min_value=3, max_value=100))
def test_a_cut_text_is_a_beginning_within_its_bytes(text, most):
    shown = cut(text, most)
    assert len(shown.encode()) <= most
    assert shown == text if len(text.encode()) <= most else shown.endswith("…") and text.startswith(shown[:-1])
