"""At debug the log says of each delivery what became of it, and otherwise nothing is computed for that."""

import asyncio
import logging
from typing import Annotated

import pytest
from structlog.testing import capture_logs

from router.api import Addresses, SinkOptions, Template
from router.config.models import RouteConfig, RouteSink
from router.core.accounts.records import LONGEST_ERROR
from router.engine.delivery import delivery_log
from router.engine.delivery.delivery_log import PAYLOAD_BYTES
from router.errors import GoneError, PartialError, PermanentError, TransientError
from tests.engine.test_pipeline import GOOD, Run
from tests.support.engine import bench, make_event
from tests.support.waiting import until


class To(SinkOptions):
    """Options of a sink with addresses."""

    to: Annotated[list[str], Addresses()]
    text: Template = "x"


@pytest.fixture
def debug():
    """Every debug line about deliveries and events."""
    logger = logging.getLogger(delivery_log.__name__)
    logger.setLevel(logging.DEBUG)
    with capture_logs() as lines:
        yield lambda: [line for line in lines if line["log_level"] == "debug"]
    logger.setLevel(logging.NOTSET)


TO_USER = To(to="{{ payload.user }}")
FIXED = {"event": "delivery settled", "source": "web", "channel": "c", "route": "r", "sink": "s", "log_level": "debug"}


def one(lines):
    (line,) = lines
    assert line.pop("event_id")
    return {name: value for name, value in line.items() if name not in FIXED or value != FIXED[name]}


async def test_a_delivery_that_arrived(debug):
    async def sink(_event, _options):
        pass

    async with bench(sink, options=TO_USER) as at:
        at.put(make_event(b'{"user": 42}'))
        await at.settled()
    line = one(debug())
    assert line.pop("duration") >= 0
    assert line == {"address": "42", "outcome": "delivered", "attempt": 1, "payload": '{"user": 42}'}


@pytest.mark.parametrize(
    ("payload", "keys", "expected"),
    [
        (b'{"user": ""}', {}, {"outcome": "suppressed", "reason": "no_address", "attempt": 0}),
        (b'{"user": 42}', {"only": []}, {"outcome": "printed", "attempt": 0, "address": "42"}),
        (b'{"user": "a\\nb"}', {}, {"outcome": "dead_lettered", "reason": "address", "attempt": 0}),
        (b'{"user": 42}', {}, {"outcome": "dead_lettered", "reason": "permanent", "attempt": 1, "address": "42"}),
        (
            b'{"user": 42}',
            {"fallback": ["other"], "hand_over": lambda _sink, _event: None},
            {"outcome": "handed_over", "reason": "permanent", "attempt": 1, "address": "42"},
        ),
    ],
)
async def test_a_delivery_that_did_not(debug, payload, keys, expected):
    async def sink(_event, _options):
        raise PermanentError("no such user")

    async with bench(sink, options=TO_USER, **keys) as at:
        at.put(make_event(payload))
        await until(debug)
    line = one(debug())
    assert ("duration" in line) is (expected["attempt"] > 0)
    assert {name: value for name, value in line.items() if name not in {"duration", "error", "payload"}} == expected
    assert line["payload"] == payload.decode()


@pytest.mark.parametrize(
    ("answer", "shown"),
    [("250 2.0.0 Ok: queued as 4711", "250 2.0.0 Ok: queued as 4711"), ("", ""), (None, None), ({"id": 1}, None)],
)
async def test_the_answer_of_the_other_side_is_told(debug, answer, shown):
    async def sink(_event, _options):
        return answer

    async with bench(sink) as at:
        at.put(make_event())
        await at.settled()
    line = one(debug())
    assert (line["outcome"], line["attempt"], line.get("answer")) == ("delivered", 1, shown)


async def test_each_delivery_of_a_batch_has_its_own_answer(debug):
    class Batches:
        def __init__(self, options): ...

        async def deliver_batch(self, batch):
            return [None if event.payload == 0 else f"id {event.payload}" for event, _ in batch]

    async with bench(Batches, start=False) as at:
        at.put(*[make_event(str(number).encode()) for number in range(3)])
        at.worker.start()
        await at.settled()
    assert [line.get("answer") for line in debug()] == [None, "id 1", "id 2"]


async def test_an_answer_is_told_without_secrets_and_cut(debug):
    def sink(_event, _options):
        return "s3cret " + "x" * 1_000_000

    async with bench(sink, redact=lambda text: text.replace("s3cret", "***")) as at:
        at.put(make_event())
        await at.settled()
    answer = one(debug())["answer"]
    assert answer.startswith("*** xxx")
    assert len(answer) <= LONGEST_ERROR


async def test_attempts_are_counted_and_each_address_has_its_line(debug):
    answers = [TransientError("later"), PartialError({"b": PermanentError("no such user")}), None]

    async def sink(_event, _options):
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    async with bench(sink, options=To(to=["a", "b"])) as at:
        at.put(make_event())
        await at.settled()
    told = [(line["outcome"], line["address"], line["attempt"]) for line in debug()]
    assert told == [("handed_over", "a, b", 2), ("dead_lettered", "b", 2)]


async def test_an_address_that_is_gone_is_suppressed_with_the_answer_of_the_service(debug):
    async def sink(_event, options):
        raise GoneError("HTTP 410") if options.to == ["a"] else PartialError({"b": GoneError("HTTP 404")})

    async with bench(sink, options=To(to="{{ payload.users }}")) as at:
        at.put(make_event(b'{"users": ["a"]}'), make_event(b'{"users": ["a", "b"]}'))
        await at.settled()
        assert at.worker.book.suppressed == {"gone": 2}
        assert at.letters.kept == []
    told = [(line["outcome"], line.get("reason"), line["address"], line["error"], line["attempt"]) for line in debug()]
    assert sorted(told, key=str) == [
        ("handed_over", None, "a, b", "b: HTTP 404", 1),
        ("suppressed", "gone", "a", "HTTP 410", 1),
        ("suppressed", "gone", "b", "HTTP 404", 1),
    ]


async def test_drops_are_told(debug):
    async def hangs(_event, _options):
        await asyncio.Event().wait()

    async with bench(hangs, queue={"max_events": 2}, start=False) as at:
        at.put(*[make_event() for _ in range(3)])
        at.worker.start()
    told = [(line["outcome"], line["reason"]) for line in debug()]
    assert told == [("dropped", "full"), ("dropped", "shutdown"), ("dropped", "shutdown")]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
async def test_nothing_is_computed_where_nobody_reads_it(level, monkeypatch):
    def never(*_):
        raise AssertionError("computed for a line that is not written")

    monkeypatch.setattr(delivery_log, "text", never)
    logging.getLogger(delivery_log.__name__).setLevel(level)
    with capture_logs() as lines:
        async with bench(lambda _event, _options: None, options=TO_USER) as at:
            at.put(make_event(b'{"user": 42}'), make_event(b'{"user": ""}'))
            await at.settled()
        Run().receive(b"{", GOOD)
    logging.getLogger(delivery_log.__name__).setLevel(logging.NOTSET)
    assert [line for line in lines if line["log_level"] == "debug"] == []


def test_events_that_go_no_further(debug):
    run = Run([RouteConfig(id="x", channels=["x"], sinks=[RouteSink(sink="log")])])
    run.receive(GOOD, GOOD, channel=b"other")
    run.receive(b'{"user_id": "x"}')
    first, second, third = debug()
    assert (first["outcome"], first["channel"], first["payload"]) == ("unmatched", "other", GOOD.decode())
    assert second["event_id"] != first["event_id"]
    assert (third["outcome"], third["reason"], third["payload"]) == ("rejected", "schema", '{"user_id": "x"}')


async def test_a_payload_is_text_of_a_bounded_length(debug):
    async with bench(lambda _event, _options: None) as at:
        at.put(make_event(b'"\xff' + "ä".encode() * 1_000_000 + b'"'))
        await at.settled()
    payload = one(debug())["payload"]
    assert payload.startswith('"\\xffää')
    assert len(payload) <= PAYLOAD_BYTES
