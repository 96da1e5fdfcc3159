"""The webhook sink: CloudEvents in the two modes of HTTP, and in batches."""

import json
import random
from urllib.parse import unquote

import pytest

from router.core.cloudevents import open_envelope
from router.errors import PermanentError
from tests.support.http import stand_in
from tests.support.javascript import asked_of_javascript, needs_javascript
from tests.support.sinks import make_event
from tests.support.webhooks import posting, webhook

PAYLOAD = {"total": 1.5, "text": 'a "b" \n 😀'}
ENVELOPE = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/shop",
    "type": "order.created",
    "subject": 'the 50% "deal"',
    "time": "2026-01-31T12:00:00Z",
    "datacontenttype": "application/vnd.shop+json",
    "dataschema": "https://shop.example/schema",
    "priority": "5",
    "data": PAYLOAD,
}


def came(envelope=None, **fields):
    """The event that a source with `format: cloudevents` makes of an envelope."""
    opened = open_envelope(json.dumps(envelope or ENVELOPE).encode())
    return make_event(raw=opened.data, id=opened.id, headers=opened.headers, format=opened.format, **fields)


async def sent(event, **cloudevents):
    """The request that an event makes."""
    more = cloudevents.pop("more", {})
    async with posting(cloudevents=cloudevents, **more) as (server, sink):
        await sink.deliver(event)
    return server.last


def attributes(seen):
    """The attributes in the headers of a request, decoded."""
    return {
        name.lower().removeprefix("ce-"): unquote(value)
        for name, value in seen.headers.items()
        if name.lower().startswith("ce-")
    }


OWN = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "event-router/web-app",
    "type": "notification",
    "time": "2026-05-04T03:02:01.123456Z",
}


async def test_binary_mode_has_the_payload_and_attributes_in_headers():
    event = make_event(raw=b'{ "total": 1.50 }')
    seen = await sent(event, mode="binary")
    assert seen.body == event.raw
    assert seen.headers["Content-Type"] == "application/json"
    assert attributes(seen) == OWN


async def test_structured_mode_has_everything_in_one_object():
    seen = await sent(make_event(raw=b'{ "total": 1.50 }'), mode="structured")
    assert seen.headers["Content-Type"] == "application/cloudevents+json"
    assert seen.json == {**OWN, "datacontenttype": "application/json", "data": {"total": 1.5}}
    assert b'{ "total": 1.50 }' in seen.body  # the data is not encoded again
    assert attributes(seen) == {}


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_options_are_templates_of_the_attributes(mode):
    options = {"type": "shop.{{ payload.kind }}", "source": "/to/{{ payload.who }}", "subject": "{{ payload.who }}"}
    event = make_event({"kind": "order", "who": 'Jané "J"'})
    seen = await sent(event, mode=mode, **options)
    found = attributes(seen) if mode == "binary" else seen.json
    source = "/to/Jan%C3%A9%20%22J%22"  # a URI reference; headers encode the `%` once more
    assert (found["type"], found["source"], found["subject"]) == ("shop.order", source, 'Jané "J"')


async def test_an_empty_subject_is_left_out_and_an_empty_type_is_refused():
    seen = await sent(make_event({"who": None}), subject="{{ payload.who }}")
    assert "ce-subject" not in seen.headers
    async with posting(cloudevents={"type": "{{ payload.who }}"}) as (server, sink):
        with pytest.raises(PermanentError, match=r"cloudevents\.type is empty"):
            await sink.deliver(make_event({"who": ""}))
    assert server.requests == []


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_an_event_that_came_as_one_keeps_its_attributes(mode):
    seen = await sent(came(), mode=mode, type="other", source="/other", subject="other")
    if mode == "binary":
        assert seen.headers["Content-Type"] == "application/vnd.shop+json"
        assert seen.headers["ce-subject"] == "the%2050%25%20%22deal%22"
        found = {**attributes(seen), "datacontenttype": "application/vnd.shop+json", "data": seen.json}
    else:
        found = seen.json
    assert found == ENVELOPE


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_a_text_stays_a_text(mode):
    envelope = {**ENVELOPE, "datacontenttype": "text/plain", "data": 'a "text" é'}
    seen = await sent(came(envelope), mode=mode)
    if mode == "binary":
        assert (seen.body.decode(), seen.headers["Content-Type"]) == ('a "text" é', "text/plain")
    else:
        assert seen.json == envelope


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_json_replaces_the_data(mode):
    seen = await sent(came(), mode=mode, more={"json": {"sum": "{{ payload.total }}"}})
    if mode == "binary":
        assert (seen.json, seen.headers["Content-Type"]) == ({"sum": 1.5}, "application/json")
        assert attributes(seen)["id"] == "A-1"
    else:
        assert (seen.json["data"], seen.json["datacontenttype"]) == ({"sum": 1.5}, "application/json")


async def test_any_channel_and_id_are_valid_headers():
    rng = random.Random(7)
    letters = ["\0", "\r\n", "é", "😀", "%", '"', " ", "a", "\x7f", ":", "\u2028"]
    async with stand_in() as server, webhook({"url": server.url, "cloudevents": {}}) as sink:
        for _ in range(40):
            text = "x" + "".join(rng.choices(letters, k=8))
            await sink.deliver(make_event({}, channel=text))
            assert attributes(server.last)["type"] == text
            assert server.last.headers["ce-type"].isascii()


async def test_a_batch_is_the_batched_mode():
    async with posting(cloudevents={"mode": "structured"}, batch_as="array") as (server, sink):
        await sink.deliver_batch([make_event({"n": 1}), came()])
    (seen,) = server.requests
    assert seen.headers["Content-Type"] == "application/cloudevents-batch+json"
    assert seen.json == [{**OWN, "datacontenttype": "application/json", "data": {"n": 1}}, ENVELOPE]


@needs_javascript
async def test_the_javascript_sdk_accepts_them():
    seen = [
        await sent(event, mode=mode) for mode in ("binary", "structured") for event in (make_event(PAYLOAD), came())
    ]
    async with posting(cloudevents={"mode": "structured"}, batch_as="array") as (server, sink):
        await sink.deliver_batch([make_event(PAYLOAD), came()])
    requests = [
        {"kind": "cloudevent", "headers": dict(one.headers), "body": one.body.decode()} for one in (*seen, server.last)
    ]
    broken = {**requests[0], "headers": {k: v for k, v in requests[0]["headers"].items() if k != "ce-type"}}
    *told, refused = asked_of_javascript([*requests, broken])
    assert "error" in refused
    found = [event for answer in told for event in answer["value"]]
    for event in found:
        if isinstance(event["data"], str):  # in binary mode it leaves `+json` to its caller
            event["data"] = json.loads(event["data"])
    assert [(event["id"], event["type"], event["source"], event["data"]) for event in found] == [
        ("e-1", "notification", "event-router/web-app", PAYLOAD),
        ("A-1", "order.created", "/shop", PAYLOAD),
    ] * 3
