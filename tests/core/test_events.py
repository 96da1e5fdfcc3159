"""The event, and the line it is written as."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.events import TEXT, Event, json_line, json_lines, text, timestamp

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(raw=b"{}", **fields):
    return Event(
        **{"id": "1", "source": "web", "channel": "c", "pattern": None, "received_at": AT, "raw": raw, **fields}
    )


def test_the_line_has_these_fields_in_this_order():
    line = json_line(event(b'{"b": 1, "a": [2]}', route="r", sink="s"))
    assert line == (
        b'{"id":"1","source":"web","channel":"c","pattern":null,"received_at":"2026-01-02T03:04:05.000000Z",'
        b'"route":"r","payload":{"b": 1, "a": [2]}}'
    )


@pytest.mark.parametrize(
    "raw", [b'{\n"a": 1}', b'{\r"a": 1}', b'\n{"a": 1}', b'{"a":\r\n1}', b'{"a": "\\n"}', b'{"a": "\xe2\x80\xa8"}']
)
def test_one_event_is_one_line_whatever_white_space_it_has(raw):
    lines = json_lines([event(raw), event(b'{"b": 2}'), event(raw)])
    assert len(lines.splitlines()) == 3
    assert lines.endswith(b"\n")
    assert [json.loads(line)["payload"] for line in lines.splitlines()] == [json.loads(raw), {"b": 2}, json.loads(raw)]


def test_text_is_a_json_string():
    lines = json_lines([event(b"who\nami", format=TEXT), event(b"1")])
    assert [json.loads(line)["payload"] for line in lines.splitlines()] == ["who\nami", 1]


def test_times_always_have_six_decimals_and_are_utc():
    assert timestamp(AT) == "2026-01-02T03:04:05.000000Z"
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=2)))) == "2026-01-02T01:04:05.000006Z"
    later = event(received_at=AT + timedelta(microseconds=1))
    times = [json.loads(line)["received_at"] for line in json_lines([event(), later, event()]).splitlines()]
    assert times == [
        "2026-01-02T03:04:05.000000Z",
        "2026-01-02T03:04:05.000001Z",
        "2026-01-02T03:04:05.000000Z",
    ]


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-2)), timezone(timedelta(0))])))
def test_times_are_written_as_isoformat_writes_them(at):
    assume(at.year < 9999)  # two hours later is no datetime
    assert timestamp(at) == at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def test_big_integers_stand_as_published():
    raw = b'{"n": 123456789012345678901234567890}'
    assert json_line(event(raw)).endswith(b'"payload":' + raw + b"}")
    assert event(raw).payload == {"n": 123456789012345678901234567890}


def test_payload_is_decoded_once_and_each_delivery_has_its_own():
    one = event(b'{"a": []}')
    other = msgspec.structs.replace(one, sink="other")
    one.payload["a"].append(1)
    assert one.payload == {"a": [1]}
    assert other.payload == {"a": []}


def test_the_key_is_the_same_on_every_attempt():
    first = event(route="r", sink="s")
    assert first.key == "1:r:s"
    assert msgspec.structs.replace(first, attempt=2).key == first.key
    assert msgspec.structs.replace(first, address="a@b").key == "1:r:s:a@b"


def test_an_event_is_frozen():
    with pytest.raises(AttributeError):
        event().id = "2"


def test_names_that_are_not_utf8_are_escaped():
    assert text(b"a\xff") == "a\\xff"
    assert text("ä".encode()) == "ä"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_comes_back_from_its_line(payload):
    for indent in (None, 1):
        raw = json.dumps(payload, indent=indent).encode()
        try:
            msgspec.json.decode(raw)
        except msgspec.DecodeError:
            continue  # a lone surrogate: rejected before it gets here
        lines = json_lines([event(raw)])
        assert len(lines.splitlines()) == 1
        assert json.loads(lines)["payload"] == payload
