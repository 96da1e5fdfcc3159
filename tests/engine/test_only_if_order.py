"""Where `only_if` stands among what happens to a delivery: after `expires`, before the text, the breaker and `rate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.errors import Reason, TransientError
from router.options import SinkOptions, Template, Text
from tests.support.engine import bench, make_event
from tests.support.waiting import until


class Options(SinkOptions):
    subject: Template = Template("{{ payload.subject }}")
    text: Annotated[str, Text()] = Field("x")


class Recording:
    """A sink that keeps the ids of each batch."""

    def __init__(self, _options) -> None:
        self.batches: list[list[str]] = []

    async def deliver_batch(self, batch):
        self.batches.append([event.id for event, _ in batch])


def events(*payloads: bytes):
    return [make_event(raw, id=f"e{number}") for number, raw in enumerate(payloads)]


async def test_a_delivery_that_is_too_late_is_not_asked():
    async with bench(Recording, only_if="1 / 0", expires={"r": "{{ payload.until }}"}) as b:
        b.put(*events(b'{"until": 1}', b'{"until": null}'))
        await b.settled()
    assert b.book.dead_lettered == {Reason.EXPIRED: 1, Reason.TEMPLATE: 1}


async def test_a_suppressed_delivery_is_not_rendered():
    async with bench(Recording, options=Options(), only_if="payload.subject is defined") as b:
        b.put(*events(b'{"subject": "a"}', b"{}"))
        await b.settled()
    assert (b.book.delivered, b.book.suppressed) == (1, {Reason.ONLY_IF: 1})


async def test_a_suppressed_delivery_takes_nothing_of_the_rate():
    async with bench(Recording, only_if="payload.a", rate="2/h") as b:
        b.put(*events(*[b"{}"] * 50, b'{"a": 1}', *[b"{}"] * 50, b'{"a": 1}'))
        await b.settled()
    assert (b.book.delivered, b.book.suppressed) == (2, {Reason.ONLY_IF: 100})


async def test_what_is_suppressed_leaves_the_rest_of_a_batch_alone():
    made: list[Recording] = []

    class Kept(Recording):
        def __init__(self, options) -> None:
            super().__init__(options)
            made.append(self)

    async with bench(Kept, only_if="payload.a != 2", start=False) as b:
        b.put(*events(*[b'{"a": %d}' % number for number in range(5)]))
        b.worker.start()
        await b.settled()
    assert made[0].batches == [["e0", "e1", "e3", "e4"]]


async def test_it_is_asked_again_before_each_attempt_and_neither_answer_counts_for_the_breaker():
    calls: list[str] = []

    async def fails(event, options):
        calls.append(event.id)
        raise TransientError("no")

    async with bench(fails, only_if="payload.a and event.attempt < 3", breaker={"failures": 100}) as b:
        b.put(*events(b'{"a": 1}', b"{}"))
        await b.settled()
    assert calls == ["e0", "e0"]
    assert b.book.suppressed == {Reason.ONLY_IF: 2}
    assert not b.worker.breaker_open


async def test_a_route_that_overrides_it_asks_its_own():
    async with bench(Recording, only_if="payload.a", only_if_by_route={"r": "payload.b"}) as b:
        b.put(make_event(b'{"a": 1}'), make_event(b'{"b": 1}'), make_event(b'{"a": 1}', route="other"))
        await b.settled()
    assert (b.book.delivered, b.book.suppressed) == (2, {Reason.ONLY_IF: 1})


async def test_a_flood_of_failures_makes_one_line(caplog):
    async with bench(Recording, only_if="1 / payload.a") as b:
        b.put(*events(*[b'{"a": 0}'] * 300))
        await b.settled()
        await until(lambda: len(b.letters.kept) == 300)
    assert {letter.detail for letter in b.letters.kept} == {"only_if: division by zero"}
    assert b.book.dead_lettered == {Reason.TEMPLATE: 300}
