from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import structlog.testing

from router.engine.clock import SystemClock
from router.engine.dead_letters.replays import Replayer, Replays
from router.errors import ConfigError, Problem, Reason
from router.events import Event, RawBatch
from tests.support.engine import Letters
from tests.support.receipts import NeutralReceipt

AT = "2026-01-02T03:04:05.000006Z"


class Receipt(NeutralReceipt):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def expect(self, position: int, deliveries: int) -> None:
        self.heard.append(("expect", position, deliveries))

    def settle(self, position: int) -> None:
        self.heard.append(("settle", position))


class FakePipeline:
    """A pipeline that knows the source `web` (json) and `shell` (text), and route `r` to sink `s`."""

    def __init__(self) -> None:
        self.whole: list[tuple[str, RawBatch, datetime]] = []
        self.delivered: list[Event] = []

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        self.whole.append((source, batch, received_at))

    def deliver(self, events: Sequence[Event]) -> None:
        self.delivered += events

    def format_of(self, source: str) -> str | None:
        return {"web": "json", "shell": "text", "ce": "cloudevents"}.get(source)

    def leads(self, route: str, sink: str) -> bool:
        return (route, sink) == ("r", "s")


class Bench:
    def __init__(self) -> None:
        self.pipeline = FakePipeline()
        self.letters = Letters()
        self.replayer = Replayer(lambda: self.pipeline, self.letters, SystemClock())
        self.receipt = Receipt()

    def give(self, *entries: dict[str, str], payload: bytes = b'{"a":1}') -> None:
        self.replayer.receive("replay", [self.batch(*entries, payload=payload)])

    def batch(self, *entries: dict[str, str], payload: bytes = b"{}") -> RawBatch:
        return RawBatch(
            b"{x}:replay", None, [payload] * len(entries), ["x"] * len(entries), list(entries), self.receipt
        )


def entry(**changes: str) -> dict[str, str]:
    fields = {"id": "l", "event_id": "e", "reason": "exhausted", "detail": "503", "source": "web", "channel": "c"}
    times = {"received_at": AT, "failed_at": AT, "attempts": "7", "version": "1", "redis-id": "1-0"}
    return fields | times | changes


TO_SINK = {"route": "r", "sink": "s"}


def test_a_letter_with_a_sink_is_that_delivery_with_attempts_from_the_beginning():
    bench = Bench()
    bench.give(entry(**TO_SINK), entry(**TO_SINK, address="a@b", pattern="c*", headers='{"h":"1"}'))
    first, second = bench.pipeline.delivered
    assert (first.id, first.key, first.attempt, first.payload) == ("e", "e:r:s", 1, {"a": 1})
    assert first.received_at == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (second.address, second.pattern, second.headers) == ("a@b", "c*", {"h": "1"})
    assert first._history is None
    assert bench.receipt.heard == [("expect", 0, 1), ("expect", 1, 1)]
    second._receipt.settle(second._position)
    assert bench.receipt.heard[-1] == ("settle", 1)


def test_a_letter_without_a_sink_goes_the_whole_way_as_it_came():
    bench = Bench()
    bench.give(entry(), entry(pattern="c*", headers='{"h":"1"}'))
    (source, batch, received_at), (_, second, _) = bench.pipeline.whole
    assert (source, batch.channel, batch.pattern, batch.payloads, batch.ids) == ("web", b"c", None, [b'{"a":1}'], ["e"])
    assert received_at == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (second.pattern, second.headers) == (b"c*", [{"h": "1"}])
    assert (second.receipt, second.first) == (bench.receipt, 1)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"route": "r", "sink": "other"}, "the configuration has no route 'r' to a sink 'other'"),
        ({"route": "other", "sink": "s"}, "the configuration has no route 'other' to a sink 's'"),
        ({"source": "other"}, "there is no source 'other'"),
    ],
)
def test_what_the_configuration_no_longer_knows_is_a_dead_letter_again(changes, gone):
    bench = Bench()
    bench.give(entry(**changes))
    (letter,) = bench.letters.kept
    assert (letter.id, letter.event_id, letter.reason, letter.attempts) == ("l", "e", "orphaned", 7)
    assert letter.detail == f"can't be replayed: {gone} (before the replay: exhausted: 503)"
    assert letter.failed_at > AT
    assert bench.receipt.heard == [("expect", 0, 1)], "it is over when the letter is written"
    letter.written()
    assert bench.receipt.heard[-1] == ("settle", 0)


def test_a_letter_of_a_newer_router_stays_pending():
    bench = Bench()
    bench.give(entry(version="2"), entry(**TO_SINK))
    assert len(bench.pipeline.delivered) == 1
    assert bench.receipt.heard == [("expect", 1, 1)]


def test_what_the_stream_source_refuses_is_a_letter_again_with_all_its_fields():
    bench = Bench()
    bench.replayer.refuse(
        "replay", bench.batch(entry(**TO_SINK, address="a@b"), payload=b"\xff"), Reason.POISON, "5 times"
    )
    (letter,) = bench.letters.kept
    assert (letter.reason, letter.detail, letter.sink, letter.address, letter.payload) == (
        *("poison", "5 times", "s", "a@b", b"\xff"),
    )


@pytest.mark.parametrize(
    ("source", "payload", "seen"),
    [
        ("web", b"42", 42),
        ("shell", b"42", "42"),
        ("ce", b"42", 42),
        ("ce", b"hello", "hello"),
        ("gone", b'{"a":1}', {"a": 1}),
        ("gone", b"{", "{"),
    ],
)
def test_a_payload_is_read_as_its_source_reads_it(source, payload, seen):
    bench = Bench()
    bench.give(entry(**TO_SINK, source=source), payload=payload)
    assert bench.pipeline.delivered[0].payload == seen


@pytest.mark.parametrize(
    "junk",
    [
        {"attempts": "9" * 5000},
        {"version": "9" * 5000},
        {"received_at": "0001-01-01T00:00:00+14:00"},
        {"failed_at": "never"},
        {"headers": "[" * 100_000},
        {"event_id": "a\r\nBcc: b"},
        {"reason": ""},
        {"source": ""},
    ],
)
def test_what_is_no_letter_stays_where_it_is_and_the_others_go_on(junk):
    bench = Bench()
    bench.give(entry(**TO_SINK, **junk), entry(**TO_SINK), entry(**junk), entry())
    assert [event.id for event in bench.pipeline.delivered] == ["e"]
    assert len(bench.pipeline.whole) == 1
    assert bench.receipt.heard == [("expect", 1, 1)]
    assert bench.letters.kept == []


@pytest.mark.parametrize("payload", [b"no json", b"\xff", b'{"a":1}\n{"forged":true}', b"[" * 100_000])
def test_a_payload_that_its_source_could_not_have_had_is_a_dead_letter_again(payload):
    """The log sink embeds the bytes of a payload in its line."""
    bench = Bench()
    bench.give(entry(**TO_SINK), payload=payload)
    assert bench.pipeline.delivered == []
    assert [(letter.reason, letter.payload) for letter in bench.letters.kept] == [("decode", payload)]


def test_letters_that_can_not_be_replayed_make_a_few_lines_and_not_one_each():
    bench = Bench()
    with structlog.testing.capture_logs() as lines:
        bench.give(*(entry(route=f"r{number}", sink="gone") for number in range(300)))
    assert len(bench.letters.kept) == 300
    assert [line["event"] for line in lines] == ["a dead letter can't be replayed"]


class Refusing:
    """A source that Redis refuses a few times before it may read."""

    address = "redis://here"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.read = asyncio.Event()
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise ConfigError([Problem("no permission")])

    async def run(self) -> None:
        self.read.set()
        await self._stopped.wait()

    async def stop(self, patience: float) -> None:
        self._stopped.set()

    async def close(self) -> None: ...


class Sweep:
    def start(self) -> None: ...

    async def close(self, patience: float) -> None: ...


async def test_that_redis_refuses_replaying_is_told_once_and_so_is_its_end(monkeypatch):
    monkeypatch.setattr("router.engine.dead_letters.replays.TRY_AGAIN", 0.001)
    source = Refusing(3)
    replays = Replays(source, Sweep(), SystemClock())
    with structlog.testing.capture_logs() as logs:
        replays.start()
        await source.read.wait()
        await replays.stop()
        await replays.close()
    assert [line["event"] for line in logs] == ["dead letters can't be replayed", "dead letters can be replayed again"]
