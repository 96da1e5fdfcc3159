"""Records of deliveries in Redis queues."""

import msgspec
import pytest

from router.core.ids import LONGEST
from router.core.records import HEAD, LONGEST_ERROR, VERSION, Reader, UnknownRecordError, pack, received_at
from router.events import History
from tests.support.engine import make_event


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"raw": b"\xff\x00\r\n", "format": "text", "pattern": "c*"},
        {"headers": {"traceparent": "00-1"}},
        {"address": "a@b", "attempt": 3, "_history": History(1.5, 2, "no answer", 7.5, 3.0)},
        {"raw": b'{"n": 123456789012345678901234567890}'},
    ],
)
def test_a_delivery_comes_back_as_it_was(fields):
    event = make_event(**fields)
    (record,) = pack([event])
    back, orphan = Reader("s").read(record, b"1-0")
    assert msgspec.structs.replace(back, _receipt=None, _position=0) == event
    assert (back._receipt, back._position) == (b"1-0", len(record))
    assert not orphan


def test_a_delivery_that_an_older_router_failed_with_begins_to_age_anew():
    (record,) = pack([make_event(_history=History(1000.0, 2, "no answer", 5000.0, 3.0))])
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(record)[:-2])
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
    (record,) = pack([make_event()])
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(record), None, 1, None, 0.0, 0, "", "later"])
    assert Reader("s").read(longer, None)[0].route == "r"


@pytest.mark.parametrize("data", [b"", b"hello", b"\xc1", msgspec.msgpack.encode({"a": 1}), b"\x91\x01"])
def test_garbage_is_no_record(data):
    with pytest.raises(UnknownRecordError, match="no record of a delivery"):
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
