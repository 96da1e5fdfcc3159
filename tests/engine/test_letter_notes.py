from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.config.models import NotifyConfig
from router.core.ids import Ids
from router.engine.clock import SystemClock
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.events import DeadLetter, Event
from tests.support.engine import Letters
from tests.support.waiting import stays, until

AT = "2026-01-02T03:04:05.000006Z"


def letter(sink: str | None = None, reason: str = "schema", source: str = "web") -> DeadLetter:
    return DeadLetter("l", "e", reason, "", source, "c", AT, AT, b"{}", sink=sink)


class Told:
    def __init__(self, *sinks: str, every: str = "50ms") -> None:
        self.deliveries: list[tuple[str, Event]] = []
        self.letters = Letters()
        self.notes = DeadLetterSummaries(
            self.letters,
            lambda sink, event: self.deliveries.append((sink, event)),
            clock=SystemClock(),
            ids=Ids("test"),
            notify=NotifyConfig.model_validate({"sinks": list(sinks), "every": every}) if sinks else None,
            config_file=Path("/etc/my router/config.yaml"),
        )

    @property
    def counts(self) -> list[tuple[str, int]]:
        return [(sink, event.payload["count"]) for sink, event in self.deliveries]


async def test_one_summary_an_interval_by_sink_and_reason():
    told = Told("ops")
    told.notes.add([letter(), letter("mail", "exhausted"), letter("mail", "exhausted")])
    told.notes.add([letter("chat", "template")])
    assert len(told.letters.kept) == 4
    await until(lambda: told.deliveries)
    [(sink, event)] = told.deliveries
    assert (sink, event.sink, event.source, event.channel) == ("ops", "ops", "event-router", "dead-letters")
    payload = event.payload
    assert payload["count"] == 4
    assert payload["by"] == [
        {"sink": "mail", "reason": "exhausted", "count": 2},
        {"sink": None, "reason": "schema", "count": 1},
        {"sink": "chat", "reason": "template", "count": 1},
    ]
    assert payload["command"] == f"event-router dlq list -c '/etc/my router/config.yaml' --since {payload['since']}"
    assert payload["message"].startswith(
        f"4 dead letters since {payload['since']}: 2 of mail (exhausted), 1 rejected (schema)"
    )
    assert payload["message"].endswith(payload["command"])
    assert json.loads(event.raw) == payload
    told.notes.add([letter()])
    await until(lambda: told.counts == [("ops", 4), ("ops", 1)])
    assert told.deliveries[0][1].id != told.deliveries[1][1].id


async def test_nothing_is_said_when_nothing_happened():
    told = Told("ops", every="10ms")
    told.notes.flush()
    await stays(lambda: told.deliveries == [], 0.05)


async def test_a_sink_hears_nothing_of_its_own_letters_and_nobody_of_those_of_summaries():
    told = Told("ops", "mail", every="1h")
    told.notes.add([letter("ops"), letter("mail"), letter("mail"), letter("ops", source="event-router")])
    told.notes.flush()
    assert told.counts == [("ops", 2), ("mail", 1)]
    told.notes.add([letter("ops")])
    told.notes.flush()
    assert told.counts[2:] == [("mail", 1)]
    told.notes.add([letter("mail", source="event-router")])
    told.notes.flush()
    assert len(told.deliveries) == 3


async def test_an_end_tells_what_is_counted_and_only_once():
    told = Told("ops", every="20ms")
    told.notes.add([letter()])
    told.notes.flush()
    assert told.counts == [("ops", 1)]
    await stays(lambda: told.counts == [("ops", 1)], 0.06)


@pytest.mark.parametrize("first", [True, False])
async def test_without_notify_letters_are_only_kept(first):
    told = Told() if first else Told("ops", every="10ms")
    told.notes.add([letter()])
    told.notes.configure(None)
    await stays(lambda: told.deliveries == [], 0.03)
    told.notes.flush()
    assert told.deliveries == []
    assert len(told.letters.kept) == 1
