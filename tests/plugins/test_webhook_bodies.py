"""The webhook sink: what each form of body sends, and that nothing an event brings can break it."""

import json
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import PermanentError, TemplateError
from router.events import json_line
from tests.support.http import stand_in
from tests.support.sinks import make_event
from tests.support.webhooks import posting, webhook

ORDER = {"user_id": 42, "message": 'Say "hi"', "tags": ["vip", "new"], "note": None, "total": 10**30, "paid": True}


async def sent(event, **options):
    """The request that an event makes, and the answer that the sink returns."""
    async with posting(**options) as (server, sink):
        answer = await sink.deliver(event)
    (seen,) = server.requests
    return seen, answer


async def test_the_json_line_is_the_default():
    event = make_event(ORDER)
    seen, answer = await sent(event)
    assert (seen.method, seen.target, seen.body) == ("POST", "/hook", json_line(event))
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["webhook-id"] == "msg_9b55bdbce4fa18314be978df627d0540"  # SHA-256 of the key e-1:notify:…
    assert answer == "HTTP 200"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (make_event(raw=b'{ "a": 1.10,\n "b": 1e2 }'), "application/json"),
        (make_event("plain \u00e9 text", format="text"), "text/plain; charset=utf-8"),
    ],
)
async def test_raw_sends_the_bytes_as_they_were_published(event, kind):
    seen, _ = await sent(event, body="raw")
    assert (seen.body, seen.headers["Content-Type"]) == (event.raw, kind)


async def test_json_leaves_keep_the_types_of_values():
    leaves = {
        "user": "{{ payload.user_id }}",
        "as text": "{{ payload.user_id }} ",
        "note": "{{ payload.note }}",
        "tags": "{{ payload.tags }}",
        "first": "{{ payload.tags[0] }}",
        "loud": "{{ payload.tags | map('upper') }}",
        "total": "{{ payload.total }}",
        "all": "{{ payload }}",
        "paid": "{{ payload.paid }}",
        "at": "{{ event.received_at }}",
        "event": "{{ event.headers }}",
        "nested": [{"text": "Hello {{ payload.message }}", "{{ key }}": 1, "on": True, "off": None, "rate": 1.5}],
        "empty": {},
    }
    seen, _ = await sent(make_event(ORDER), json=leaves)
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.json == {
        "user": 42,
        "as text": "42 ",
        "note": None,
        "tags": ["vip", "new"],
        "first": "vip",
        "loud": ["VIP", "NEW"],
        "total": 10**30,
        "all": ORDER,
        "paid": True,
        "at": "2026-05-04T03:02:01.123456Z",
        "event": {},
        "nested": [{"text": 'Hello Say "hi"', "{{ key }}": 1, "on": True, "off": None, "rate": 1.5}],
        "empty": {},
    }


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        ("{{ payload.gone }}", "json.a.0: payload.gone is missing"),
        ("{{ 1e308 * 10 }}", "JSON has no such number"),
        ("{{ range }}", "json.a.0"),
    ],
)
async def test_a_leaf_that_has_no_value_is_no_delivery(leaf, says):
    async with posting(json={"a": [leaf]}) as (server, sink):
        with pytest.raises(TemplateError, match=says):
            await sink.deliver(make_event(ORDER))
    assert server.requests == []


async def test_a_form_repeats_the_fields_of_a_list():
    form = {"To": "{{ payload.user_id }}", "Body": "a&b={{ payload.message }}", "Media": ["x", "{{ payload.tags }}"]}
    seen, _ = await sent(make_event(ORDER), form={**form, "Count": 3, "Loud": True})
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(seen.body.decode(), strict_parsing=True) == [
        ("To", "42"),
        ("Body", 'a&b=Say "hi"'),
        ("Media", "x"),
        ("Media", "vip, new"),
        ("Count", "3"),
        ("Loud", "true"),
    ]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_method_without_a_body_sends_none(method):
    seen, _ = await sent(make_event(ORDER), method=method, path="/users/{{ payload.user_id }}?q={{ payload.message }}")
    assert (seen.method, seen.target, seen.body) == (method, "/users/42?q=Say%20%22hi%22", b"")
    assert "Content-Type" not in seen.headers


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_method_with_a_body_sends_it(method):
    seen, _ = await sent(make_event(ORDER), method=method, body="raw")
    assert (seen.method, seen.json) == (method, ORDER)


async def test_a_value_of_the_url_is_one_part_of_it():
    path = "/a/{{ payload.id }}/b?x={{ payload.id }}&y={{ payload.id | url }}"
    seen, _ = await sent(make_event({"id": "../c?d=e#f&g/h"}), path=path)
    quoted = "..%2Fc%3Fd%3De%23f%26g%2Fh"
    assert seen.target == f"/a/{quoted}/b?x={quoted}&y={quoted}"


@pytest.mark.parametrize("segment", [".", ".."])
async def test_a_value_can_not_leave_the_path(segment):
    async with posting(path="/users/{{ payload.id }}/keys") as (server, sink):
        with pytest.raises(PermanentError, match="segment"):
            await sink.deliver(make_event({"id": segment}))
    assert server.requests == []


async def test_headers_are_templates_and_replace_those_of_the_sink():
    headers = {"content-type": "application/vnd.shop+json", "X-User": "{{ payload.user_id }}", "User-Agent": "shop"}
    seen, _ = await sent(make_event(ORDER), headers={**headers, "Webhook-Id": "{{ event.id }}"})
    assert seen.headers.getall("Content-Type") == ["application/vnd.shop+json"]
    assert seen.headers.getall("User-Agent") == ["shop"]
    assert seen.headers.getall("webhook-id") == ["e-1"]
    assert seen.headers["X-User"] == "42"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a\r\nX-Evil: 1", r"X-User has a control character in it \(U\+000D\)"),
        ("a\0", r"U\+0000"),
        ("\x7f", r"U\+007F"),
        ("é" * 4097, "X-User is longer than 8 KiB"),
    ],
)
async def test_a_header_that_can_not_be_sent_is_refused_with_its_name(value, says):
    async with posting(headers={"X-User": "{{ payload.id }}"}) as (server, sink):
        with pytest.raises(PermanentError, match=says):
            await sink.deliver(make_event({"id": value}))
    assert server.requests == []


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "items"),
    [
        ({}, None),
        ({"body": "raw"}, [{"n": 1}, {"n": 2}, "text"]),
        ({"json": {"n": "{{ payload }}"}}, [{"n": {"n": 1}}, {"n": {"n": 2}}, {"n": "text"}]),
    ],
)
@pytest.mark.parametrize("form", ["array", "lines"])
async def test_a_batch_is_an_array_or_lines(options, items, form):
    events = [make_event({"n": 1}), make_event(raw=b'{"n":\r\n2}', id="e-2"), make_event("text", format="text")]
    async with posting(batch_as=form, **options) as (server, sink):
        assert await sink.deliver_batch(events) == ["HTTP 200"] * 3
    (seen,) = server.requests
    if form == "array":
        found, kind = json.loads(seen.body), "application/json"
    else:
        found, kind = [json.loads(line) for line in seen.body.splitlines()], "application/x-ndjson"
        assert seen.body.endswith(b"\n")
    assert seen.headers["Content-Type"] == kind
    assert found == (items or [json.loads(json_line(event)) for event in events])


async def test_the_events_of_a_batch_go_together_where_url_and_headers_are_the_same():
    events = [make_event({"shop": shop, "n": n}, id=f"e-{n}") for n, shop in enumerate("aabab")]
    options = {"headers": {"X-Shop": "{{ payload.shop }}"}, "json": {"n": "{{ payload.n }}"}, "batch_as": "array"}
    async with posting(**options) as (server, sink):
        await sink.deliver_batch(events)
    assert {seen.headers["X-Shop"]: [item["n"] for item in seen.json] for seen in server.requests} == {
        "a": [0, 1, 3],
        "b": [2, 4],
    }
    assert len({seen.headers["webhook-id"] for seen in server.requests}) == 2


# --- anything ---------------------------------------------------------------------------------------------------------

HOSTILE = ['"', "'", "\n", "\r\n", '"}', "{{", "}}", "{{ 7*7 }}", "\0", "\\", "😀", "&a=b", "=", "%00", "\t", "é", "\u2028", "</script>", "\x7f", " "]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=4)), max_size=6).map("".join)
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
WAYS = {
    "json": {"json": {"text": "<{{ payload.text }}>", "value": "{{ payload.value }}"}},
    "form": {"form": {"text": "<{{ payload.text }}>", "more": ["{{ payload.text }}", "x"]}},
    "headers": {"headers": {"X-Text": "<{{ payload.text }}>"}},
    "url": {"path": "/to/<{{ payload.text }}>?q=<{{ payload.text }}>".replace("<", "-").replace(">", "-")},
}


@pytest.mark.parametrize("way", WAYS)
async def test_any_value_arrives_unharmed_or_is_refused_with_a_reason(way):
    """One server and one sink for all examples: hypothesis calls a plain function, so the examples are made first."""
    examples = []
    settings(max_examples=80, deadline=None, database=None)(
        given(text=TEXTS, value=VALUES)(lambda text, value: examples.append((text, value)))
    )()
    options = dict(WAYS[way])
    async with stand_in() as server:
        url = server.url + options.pop("path", "/hook")
        async with webhook({"url": url, **options}) as sink:
            for text, value in examples:
                server.requests.clear()
                event = make_event({"text": text, "value": value})
                if way == "headers" and any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in text):
                    with pytest.raises(PermanentError, match="X-Text has a control character"):
                        await sink.deliver(event)
                    assert server.requests == []
                else:
                    await sink.deliver(event)
                    arrived(way, server.last, text, value)


def arrived(way, seen, text, value):
    """Hold that a request has the values of an event, and nothing else."""
    if way == "json":
        assert seen.json == {"text": f"<{text}>", "value": value}
    elif way == "form":
        found = parse_qsl(seen.body.decode(), keep_blank_values=True, strict_parsing=True)
        assert found == [("text", f"<{text}>"), ("more", text), ("more", "x")]
    elif way == "headers":
        assert seen.headers.getall("X-Text") == [f"<{text}>"]
        assert not {name for name in seen.headers if name.lower().startswith("x-")} - {"X-Text"}
    else:
        path, _, query = seen.target.partition("?")
        assert unquote(path) == f"/to/-{text}-"
        assert unquote(query) == f"q=-{text}-"
        assert path.count("/") == 2
