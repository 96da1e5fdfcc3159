"""Structured CloudEvents: what is one, what its data and its id are."""

import base64
import hashlib
import json

import pytest

from router.core.decoding import SourceFormat, read
from router.errors import Reason, RejectedError
from router.events import CLOUDEVENTS, JSON, TEXT

FIELDS = {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.paid"}


def envelope(**fields):
    whole = {name: value for name, value in {**FIELDS, **fields}.items() if value is not ...}
    return json.dumps(whole).encode()


def opened(raw, max_bytes=10_000, **options):
    return read(raw, SourceFormat("web", CLOUDEVENTS, max_bytes, **options))


def rejection(raw, max_bytes=10_000):
    with pytest.raises(RejectedError) as caught:
        opened(raw, max_bytes)
    return caught.value


@pytest.mark.parametrize("data", ['{"a" :1.00, "b":  [1e2]}', "[]", '"text"', "0", "false", '"\\u00e9"'])
def test_data_is_kept_byte_for_byte(data):
    message = opened(b'{"specversion":"1.0","id":"1","source":"s","type":"t","data" : %s }' % data.encode())
    assert message.data == data.encode()
    assert message.format == JSON
    assert message.payload == json.loads(data)


@pytest.mark.parametrize("absent", [..., None])
def test_no_data_is_null(absent):
    message = opened(envelope(data=absent))
    assert (message.data, message.payload) == (b"null", None)


@pytest.mark.parametrize(
    ("kind", "data", "format_", "payload"),
    [
        (..., "text", JSON, "text"),
        ("application/json; charset=utf-8", "text", JSON, "text"),
        ("Application/Vnd.Shop+JSON", "text", JSON, "text"),
        ("text/xml", "<a/>", TEXT, "<a/>"),
        ("text/plain", "grün \n", TEXT, "grün \n"),
        ("text/plain", {"a": 1}, JSON, {"a": 1}),
    ],
)
def test_the_content_type_says_what_a_string_is(kind, data, format_, payload):
    message = opened(envelope(datacontenttype=kind, data=data))
    assert (message.format, message.payload) == (format_, payload)


@pytest.mark.parametrize(
    ("kind", "content", "format_", "payload"),
    [
        (..., b'{"a": 1}', JSON, {"a": 1}),
        ("application/json", b"[1]", JSON, [1]),
        ("text/plain", b"[1]", TEXT, "[1]"),
        ("text/plain", b"", TEXT, ""),
    ],
)
def test_base64_is_decoded(kind, content, format_, payload):
    message = opened(envelope(datacontenttype=kind, data_base64=base64.b64encode(content).decode()))
    assert (message.data, message.format, message.payload) == (content, format_, payload)


def test_attributes_are_headers():
    message = opened(envelope(traceparent="00-1-2-01", sequence=7, urgent=True, subject=None, data={}))
    assert message.headers == {
        **FIELDS,
        "ce-id": "A-1",
        "traceparent": "00-1-2-01",
        "sequence": "7",
        "urgent": "true",
    }


@pytest.mark.parametrize(
    ("source", "id_", "expected"),
    [
        ("/shop", "A-1", "/shop#A-1"),
        ("https://example.org/a b", "1", "https://example.org/a b#1"),
        ("/größe", "1", hashlib.sha256("/größe#1".encode()).hexdigest()),
        ("s" * 200, "1", hashlib.sha256(b"s" * 200 + b"#1").hexdigest()),
    ],
)
def test_the_id_is_source_and_id(source, id_, expected):
    message = opened(envelope(source=source, id=id_))
    assert message.id == expected
    assert message.headers["ce-id"] == id_


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'[{"specversion":"1.0"}]', "JSON object"),
        (b"\xff", "not JSON"),
        (b"{}", "`specversion`, `id`, `source`, `type` are missing"),
        (envelope(id=...), "`id` is missing"),
        (envelope(id=None), "`id` is missing"),
        (envelope(type=""), "`type` must not be empty"),
        (envelope(id=5), "`id` must be a string"),
        (envelope(specversion="0.3"), "'0.3'"),
        (envelope(specversion=1.0), "`specversion` must be a string"),
        (envelope(extra={"a": 1}), "'extra' must be a string"),
        (envelope(data=1, data_base64="MQ=="), "used together"),
        (envelope(data_base64="???"), "not base64"),
        (envelope(data_base64="MQ"), "not base64"),
        (envelope(data_base64=7), "must be a string"),
        (envelope(datacontenttype="image/png", data_base64="/w=="), "not UTF-8"),
        (envelope(data_base64="ew=="), "not JSON"),
        (b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":1e999}', "too large"),
        (b'{"specversion":"1.0","id":"1","source":"s","type":"\xff"}', "UTF-8"),
        (b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":"\xff"}', "UTF-8"),
        pytest.param(b'{"data":' + b"[" * 4000 + b"]" * 4000 + b"}", "deeply", id="deep"),
    ],
)
def test_what_is_no_cloudevent_is_rejected(raw, part):
    error = rejection(raw)
    assert error.reason is Reason.DECODE
    assert part in error.detail


def test_the_whole_message_counts_against_the_size():
    error = rejection(envelope(data={}), 20)
    assert error.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"order": {"id": "A-1"}}, "A-1"),
        ({"order": {"id": 17}}, "17"),
        ({"order": {"id": "ü"}}, hashlib.sha256("ü".encode()).hexdigest()),
        ({"order": {"id": ""}}, None),
        ({"order": {"id": True}}, None),
        ({"order": {"id": 1.5}}, None),
        ({"order": {"id": None}}, None),
        ({"order": {"id": ["A"]}}, None),
        ({"order": "A"}, None),
        ({}, None),
        ([1], None),
        ("order", None),
    ],
)
def test_an_id_in_the_payload(payload, expected):
    path = ("order", "id")
    assert read(json.dumps(payload).encode(), SourceFormat("web", JSON, 1000, path)).id == expected
    assert opened(envelope(data=payload), id_path=path).id == (expected or "/shop#A-1")
