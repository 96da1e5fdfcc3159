"""The webhook sink: what the answer of the other side means, and what becomes of a batch that is refused."""

import asyncio

import pytest

from router.errors import PermanentError, SinkError, TransientError
from tests.support.http import Reply, closed_port
from tests.support.sinks import make_event
from tests.support.waiting import until
from tests.support.webhooks import posting, webhook

EVENT = make_event({"id": "7", "message": "hi"})


async def outcome(reply, **options):
    """The answer of the sink, or its error."""
    async with posting(reply, **options) as (_server, sink):
        try:
            return await sink.deliver(EVENT)
        except (TransientError, PermanentError, SinkError) as error:
            return error


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply(204), "HTTP 204"),
        (Reply(body=b"ok"), "HTTP 200"),
        (Reply(201, json={"id": 17}), "HTTP 201, id 17"),
        (Reply(json={"sid": "SM1"}), "HTTP 200, id SM1"),
        (Reply(json={"id": True}), "HTTP 200"),
        (Reply(json=[{"id": 1}]), "HTTP 200"),
    ],
)
async def test_the_answer_is_the_status_and_the_id(reply, answer):
    assert await outcome(reply) == answer


@pytest.mark.parametrize(
    ("status", "literal", "templated"),
    [
        (408, TransientError, TransientError),
        (425, TransientError, TransientError),
        (429, TransientError, TransientError),
        (500, TransientError, TransientError),
        (503, TransientError, TransientError),
        (401, SinkError, SinkError),
        (407, SinkError, SinkError),
        (404, SinkError, PermanentError),
        (410, SinkError, PermanentError),
        (302, PermanentError, PermanentError),
        (400, PermanentError, PermanentError),
        (403, PermanentError, PermanentError),
        (422, PermanentError, PermanentError),
    ],
)
async def test_a_status_means_what_it_means_for_every_sink(status, literal, templated):
    reply = Reply(status, body=b"no such\r\nhook")
    found = await outcome(reply), await outcome(reply, path="/to/{{ payload.id }}")
    assert [type(error) for error in found] == [literal, templated]
    assert all(str(error).startswith(f"HTTP {status}: no such hook") for error in found)


@pytest.mark.parametrize("path", ["/gone", "/{{ payload.id }}"])
async def test_a_url_of_a_route_is_no_fault_of_the_sink(path):
    async with posting(Reply(404), Reply(404)) as (server, sink):
        of_route = sink.with_options(url=server.url + path)
        with pytest.raises(PermanentError):
            await sink.sink.deliver(EVENT, of_route.render(EVENT, 0.0).options)
        with pytest.raises(SinkError):
            await sink.deliver(EVENT)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [(429, {"Retry-After": "17"}, 17.0), (429, {}, 5.0), (503, {"Retry-After": "120"}, 120.0), (500, {}, None)],
)
async def test_retry_after_is_passed_on(status, headers, seconds):
    error = await outcome(Reply(status, headers=headers))
    assert error.retry_after == seconds


async def test_no_connection_is_no_fault_of_the_message():
    async with webhook({"url": closed_port()}) as sink:
        with pytest.raises(TransientError, match="no connection"):
            await sink.deliver(EVENT)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(json={"ok": True}), "HTTP 200"),
        (Reply(json={"ok": False, "error": "no_channel"}), PermanentError),
        (Reply(json={"ok": False, "error": "busy"}), TransientError),
        (Reply(json={}), PermanentError),
        (Reply(body=b"<html>"), PermanentError),
        (Reply(400, json={"ok": True}), PermanentError),
        (Reply(400, json={"error": "busy"}), TransientError),
        (Reply(403, headers={"X-RateLimit-Remaining": "0", "Retry-After": "9"}), TransientError),
        (Reply(500, json={"error": "no_channel"}), TransientError),
        (Reply(401, json={"error": "busy"}), SinkError),
    ],
)
async def test_success_and_retry_if(reply, expected):
    options = {"success": "answer.ok", "retry_if": "answer.error == 'busy' or headers['x-ratelimit-remaining'] == '0'"}
    found = await outcome(reply, **options)
    if isinstance(expected, str):
        assert found == expected
        return
    assert type(found) is expected
    if reply.headers.get("Retry-After"):
        assert found.retry_after == 9.0
    if reply.status == 200 and expected is PermanentError:
        assert str(found).endswith("(`success` is false)")


@pytest.mark.parametrize(
    ("success", "reply", "expected"),
    [
        ("status == 202", Reply(202), "HTTP 202"),
        ("status == 202", Reply(200), PermanentError),
        ("answer == 'ok'", Reply(body=b"ok"), "HTTP 200"),
        ("answer.id > 10", Reply(json={"id": 2**70}), f"HTTP 200, id {2**70}"),
        ("headers['x-ok']", Reply(headers={"X-Ok": "1"}), "HTTP 200"),
        ("'ok' in answer", Reply(body=b"\xff ok"), "HTTP 200"),
    ],
)
async def test_success_knows_status_headers_and_answer(success, reply, expected):
    found = await outcome(reply, success=success)
    assert found == expected if isinstance(expected, str) else type(found) is expected


async def test_an_expression_that_fails_is_permanent_and_says_why():
    error = await outcome(Reply(json={"n": 0}), success="1 // answer.n")
    assert type(error) is PermanentError
    assert str(error) == "success: integer division or modulo by zero"


# --- batches ----------------------------------------------------------------------------------------------------------


async def batch(count, rule=None, **options):
    """The results of a batch of the numbers 0 to `count`, and the requests that it took."""
    async with posting(json={"n": "{{ payload }}"}, batch_as="array", **options) as (server, sink):
        server.rule = rule and (lambda seen: rule([item["n"] for item in seen.json]))
        results = await sink.deliver_batch([make_event(number, id=f"e-{number}") for number in range(count)])
    return results, [[item["n"] for item in seen.json] for seen in server.requests]


@pytest.mark.parametrize("bad", [{0}, {99}, {17, 18, 80}])
async def test_a_refused_event_takes_no_other_with_it(bad):
    results, requests = await batch(100, lambda numbers: Reply(422) if bad & set(numbers) else None)
    assert {number for number, result in enumerate(results) if isinstance(result, PermanentError)} == bad
    assert {number for number, result in enumerate(results) if result == "HTTP 200"} == set(range(100)) - bad
    taken = [number for numbers in requests if not bad & set(numbers) for number in numbers]
    assert sorted(taken) == sorted(set(range(100)) - bad)  # each was taken once
    assert len(requests) < 64


async def test_a_batch_that_is_too_large_is_sent_in_parts_in_its_order():
    results, requests = await batch(40, lambda numbers: Reply(413) if len(numbers) > 7 else None)
    assert results == ["HTTP 200"] * 40
    assert [number for numbers in requests if len(numbers) <= 7 for number in numbers] == list(range(40))


async def test_a_batch_of_which_everything_is_refused_takes_a_bounded_number_of_requests():
    results, requests = await batch(200, lambda _numbers: Reply(400))
    assert len(requests) == 64
    refused = [result for result in results if isinstance(result, PermanentError)]
    later = [result for result in results if isinstance(result, TransientError)]
    assert len(refused) > 20
    assert len(refused) + len(later) == 200
    assert {error.retry_after for error in later} == {0.0}


@pytest.mark.parametrize(
    ("reply", "kind", "requests"),
    [(Reply(500), TransientError, 3), (Reply(429), TransientError, 1), (Reply(401), SinkError, 1)],
)
async def test_after_an_answer_that_stops_the_sink_the_rest_of_a_batch_is_not_sent(reply, kind, requests):
    events = [make_event({"n": n}, id=f"e-{n}") for n in range(3)]
    async with posting(path="/{{ payload.n }}", batch_as="lines") as (server, sink):
        server.default = reply
        results = await sink.deliver_batch(events)
    assert [type(result) for result in results] == [kind] * 3
    assert len(server.requests) == requests


async def test_after_a_timeout_the_events_that_have_a_result_are_not_sent_again():
    events = [make_event({"n": n}, id=f"e-{n}") for n in range(4)]
    replies = Reply(json={"id": "first"}), Reply(422), Reply(500), Reply(how="hang")
    async with posting(*replies, path="/{{ payload.n }}", batch_as="array") as (server, sink):
        call = asyncio.create_task(sink.deliver_batch(events))
        await until(lambda: len(server.requests) == 4)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        results = await sink.deliver_batch(events)
        assert [seen.path for seen in server.requests] == ["/0", "/1", "/2", "/3", "/2", "/3"]
        await sink.deliver_batch(events)
    assert results[0] == "HTTP 200, id first"
    assert isinstance(results[1], PermanentError)
    assert results[2:] == ["HTTP 200"] * 2
    assert len(server.requests) == 10  # a result is remembered for one attempt
