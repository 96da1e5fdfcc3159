"""Records of deliveries in Redis queues."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.accounts.records import HEAD, LONGEST_ERROR, VERSION, Reader, UnknownRecordError, pack, received_at
from router.core.ids import LONGEST
from router.events import History, json_lines
from tests.support.engine import make_event


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"raw": b"\xc3\xa9\x00\r\n", "format": "text", "pattern": "c*"},
        {"headers": {"traceparent": "00-1"}},
        {"address": "a@b", "attempt": 3, "_history": History(1.5, 2, "no answer", 7.5, 3.0)},
        {"_history": History(1.5, 0, "lookup user: the store is away", 7.5, 3.0)},
        {"raw": b'{"n": 123456789012345678901234567890}'},
        {"_fallback": True},
    ],
)
def test_a_delivery_comes_back_as_it_was(fields):
    event = make_event(**fields)
    (record,) = pack([event])
    back, orphan = Reader("s").read(record, b"1-0")
    assert msgspec.structs.replace(back, _receipt=None, _position=0) == event
    assert (back._receipt, back._position) == (b"1-0", len(record))
    assert not orphan


def test_the_record_of_a_delivery_that_has_not_failed_ends_before_the_fields_of_failures():
    event = make_event()
    (record,) = pack([event])
    assert len(msgspec.msgpack.decode(record)) == 10
    longer = msgspec.msgpack.encode(
        [*msgspec.msgpack.decode(record), None, 1, None, 0.0, 0, "", 0.0, 0.0, False]  # as older routers wrote it
    )
    assert Reader("s").read(longer, None)[0] == msgspec.structs.replace(event, _position=len(longer))


def test_a_delivery_that_an_older_router_failed_with_begins_to_age_anew():
    (record,) = pack([make_event(_history=History(1000.0, 2, "no answer", 5000.0, 3.0))])
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(record)[:-3])
    event, _ = Reader("s").read(older, None)
    assert event._history == History(1000.0, 2, "no answer", 1000.0, 0.0)


def test_the_sink_is_the_queues_own():
    (record,) = pack([make_event(sink="first")])
    assert Reader("second").read(record, None)[0].sink == "second"


def test_events_of_one_moment_share_it():
    first, second = pack([make_event(), make_event()])
    reader = Reader("s")
    assert reader.read(first, None)[0].received_at is reader.read(second, None)[0].received_at


def test_a_route_that_replaced_options_and_is_gone_leaves_an_orphan():
    plain, own = pack([make_event(route="plain"), make_event(route="own")], frozenset({"own"}))
    assert [Reader("s").read(each, None)[1] for each in (plain, own)] == [False, True]
    assert not Reader("s", frozenset({"own"})).read(own, None)[1]


def test_what_a_route_overrides_is_nothing_to_a_fallback():
    (record,) = pack([make_event(route="own", _fallback=True)], frozenset({"own"}))
    assert not Reader("s").read(record, None)[1]
    event, _ = Reader("s").read(msgspec.msgpack.encode(msgspec.msgpack.decode(record)[:-1]), None)
    assert not event._fallback, "as a router wrote it that did not know the field"


def test_an_error_that_is_no_text_or_endless_is_written_all_the_same():
    (record,) = pack([make_event(_history=History(1.0, 1, "\ud800" + "x" * 5000))])
    history = Reader("s").read(record, None)[0]._history
    assert history.last_error.startswith("\\ud800xxx")
    assert len(history.last_error) < LONGEST_ERROR + 10


@pytest.mark.parametrize("data", [[VERSION + 1, {"everything": "else"}], [VERSION + 1]])
def test_a_newer_record_is_named_as_such(data):
    with pytest.raises(UnknownRecordError, match=f"version {VERSION + 1}"):
        Reader("s").read(msgspec.msgpack.encode(data), None)


def test_a_newer_record_that_looks_like_ours_is_not_read():
    (record,) = pack([make_event()])
    fields = msgspec.msgpack.decode(record)
    with pytest.raises(UnknownRecordError, match=f"version {VERSION + 1}"):
        Reader("s").read(msgspec.msgpack.encode([VERSION + 1, *fields[1:]]), None)


def test_fields_that_a_later_router_of_the_same_version_added_do_no_harm():
    (record,) = pack([make_event(attempt=2)])
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(record), None, 1, None, 0.0, 0, "", "later"])
    assert Reader("s").read(longer, None)[0].route == "r"


@pytest.mark.parametrize("data", [b"", b"hello", b"\xc1", msgspec.msgpack.encode({"a": 1}), b"\x91\x01"])
def test_garbage_is_no_record(data):
    with pytest.raises(UnknownRecordError, match="not a record of a delivery"):
        Reader("s").read(data, None)


@pytest.mark.parametrize("length", [1, 31, 32, LONGEST])
def test_when_an_event_was_received_stands_in_the_head_of_its_record(length):
    event = make_event(id="i" * length, headers={"a": "b"}, raw=b"x" * 1000)
    (record,) = pack([event])
    assert received_at(record[:HEAD]) == event.received_at.timestamp()
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(record), *["later"] * 5])
    assert received_at(longer[:HEAD]) == event.received_at.timestamp()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x9a\x01",
        b"\x9a\x01\xa1x",
        b"\x9a\x01\xa1x\xcb",
        b"\x9a\x01\xa1x\xc0",
        b"\x9a\x01\xa1x\xcb\x7f" + b"\xff" * 7,
    ],
)
def test_a_head_of_something_else_says_nothing(data):
    assert received_at(data) is None


def written(**changes):
    """The record of a delivery, some of its fields something else."""
    names = ("version", "id", "received_at", "raw", "route", "overridden", "source", "channel", "pattern", "format")
    more = (
        "headers",
        "attempt",
        "address",
        "first_failed_at",
        "calls",
        "last_error",
        "failed_at",
        "planned",
        "fallback",
    )
    fields = dict(zip((*names, *more), good(), strict=True))
    return msgspec.msgpack.encode([*(fields | changes).values()])


def good():
    (record,) = pack([make_event(attempt=2)])  # the record of a delivery that has not failed holds fewer fields
    return msgspec.msgpack.decode(record)


@pytest.mark.parametrize(
    "changes",
    [
        *[{"received_at": at} for at in (1e300, float("nan"), float("inf"), -1.0, 253402300800.0)],
        *[{name: at} for at in (1e300, float("nan"), -1.0) for name in ("first_failed_at", "failed_at", "planned")],
        *[{"attempt": number} for number in (0, -1, 2**63, 2**64 - 1)],
        *[{"calls": number} for number in (-1, 2**63)],
        *[{"version": version} for version in (0, -1, "1", None)],
        *[{"format": name} for name in ("xml", "", "cloudevents", "JSON")],
        *[{"id": id_} for id_ in ("", "x" * 201, "a\r\nBcc: b", "é", "\x1b[2J")],
        {"raw": b"no json"},
        {"raw": b'{"a": 1}\n{"forged": true'},
        {"raw": b"[" * 100_000},
        {"raw": b"\xff", "format": "text"},
        {"headers": {"a": 1}},
        {"headers": [[[]]]},
    ],
)
def test_a_record_that_no_router_writes_is_unreadable_and_the_next_one_is_read(changes):
    reader = Reader("s")
    for _ in range(2):
        with pytest.raises(UnknownRecordError, match="not a record of a delivery"):
            reader.read(written(**changes), b"1-0")
    assert reader.read(written(), b"2-0")[0].received_at == make_event().received_at


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 5000 + b"\xc0",
        b"\x81\xa1a" * 5000 + b"\xc0",
        b"\x91" * 1_000_000,
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x92\xcf" + b"\xff" * 8,
    ],
)
def test_what_is_nested_or_long_without_end_is_unreadable(data):
    with pytest.raises(UnknownRecordError):
        Reader("s").read(data, b"1-0")
    assert received_at(data[:HEAD]) is None


def attempted(data):
    """What reading says: of every event it can be shown that it is one."""
    try:
        event, _ = Reader("s").read(data, b"1-0")
    except UnknownRecordError:
        return
    assert json_lines([event]).count(b"\n") == 1
    assert event.received_at.timestamp() >= 0
    pack([event])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_delivery_or_unreadable(data):
    attempted(data)


values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)


@given(
    st.lists(st.tuples(st.integers(0, 17), values | st.lists(values, max_size=3)), min_size=1, max_size=3),
    st.integers(0, 3),
)
def test_any_change_of_a_record_is_a_delivery_or_unreadable(changes, added):
    fields = [*good(), *[None] * added]
    for place, value in changes:
        fields[place % len(fields)] = value
    attempted(msgspec.msgpack.encode(fields))


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_changed_byte_of_a_record_is_a_delivery_or_unreadable(place, byte):
    data = bytearray(written())
    data[place % len(data)] = byte
    attempted(bytes(data))
