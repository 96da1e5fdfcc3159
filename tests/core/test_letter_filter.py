from __future__ import annotations

import json

import pytest

from router.core.accounts.dead_letter_filter import DeadLetterFilter, brief, content, event_of, faults, moment
from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import BrokenExpressionError, Expression
from router.events import DeadLetter

NOW = 1_790_000_000.0
HOUR = 3600.0


def letter(payload: object = None, **changes: object) -> DeadLetter:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload or {}).encode()
    at = "2026-09-21T12:00:00.000000Z"
    fields = {
        "id": "l",
        "event_id": "e",
        "reason": "exhausted",
        "detail": "503",
        "source": "web",
        "channel": "orders.7",
    }
    return DeadLetter(**{**fields, "received_at": at, "failed_at": at, "payload": raw, "attempts": 2, **changes})


def holds(expression: str, one: DeadLetter) -> bool:
    where = Expression(expression, TemplateEnvironment())
    return DeadLetterFilter(where=where).chosen([one], NOW) == [True]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", NOW - 90),
        ("2h", NOW - 2 * HOUR),
        ("1h30m", NOW - 1.5 * HOUR),
        ("3d", NOW - 72 * HOUR),
        ("2026-09-21", 1_789_948_800.0),
        ("2026-09-21T12:00:00Z", 1_789_992_000.0),
        ("2026-09-21T14:00:00+02:00", 1_789_992_000.0),
        ("2026-09-21T12:00:00.500000Z", 1_789_992_000.5),
    ],
)
def test_a_time_is_so_long_ago_or_a_date(text, seconds):
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "now", "2", "-2h", "2026-09-21T12:00:00", "2026-13-01", "12:30", "9" * 400 + "d"])
def test_anything_else_is_refused_with_what_may_be_written(text):
    with pytest.raises(ValueError, match="write a duration before now"):
        moment(text, NOW)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(sinks=frozenset({"mail"})), False),
        (DeadLetterFilter(sources=frozenset({"web", "x"})), True),
        (DeadLetterFilter(reasons=frozenset({"schema"})), False),
        (DeadLetterFilter(channels=("orders.*",)), True),
        (DeadLetterFilter(channels=("orders.[0-6]", "bills")), False),
        (DeadLetterFilter(since=1_789_992_000.0), True),
        (DeadLetterFilter(since=1_789_992_000.1), False),
        (DeadLetterFilter(until=1_789_992_000.0), False),
        (DeadLetterFilter(until=1_789_992_000.1), True),
        (DeadLetterFilter(sources=frozenset({"web"}), reasons=frozenset({"schema"})), False),
    ],
)
def test_a_filter_asks_for_everything_that_is_given(wanted, chosen):
    assert wanted.chosen([letter()], NOW) == [chosen]


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("payload.user_id == 42", {"user_id": 42}),
        ("payload.total > 100 or payload.vip", {"vip": True}),
        ("not payload.vip", {}),
        ("not payload.a.b.c", {"a": 1}),
        ("'vip' in payload.tags", {"tags": ["vip"]}),
        ("'i' in payload.name", {"name": "vip"}),
        ("'a' in payload.order", {"order": {"a": 1}}),
        ("payload.tags not in ['x']", {"tags": "y"}),
        ("1 < payload.total <= 5", {"total": 5}),
        ("payload.items == 3", {"items": 3}),
        ("payload.missing != 3", {}),
        ("payload.missing is not defined", {}),
        ("payload.name | length > 2", {"name": "abc"}),
        ("payload.total == 5.0", {"total": 5}),
        ("event.channel == 'orders.7' and event.id == 'e'", {}),
        ("(payload.total if payload.total else 7) == 7", {}),
    ],
)
def test_an_expression_holds(expression, payload):
    assert holds(expression, letter(payload))


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("payload.total > 100", {"total": "200"}),
        ("payload.total > 100", {"total": None}),
        ("payload.total > 0", {"total": True}),
        ("payload.total < 5", {}),
        ("payload.total >= payload.other", {}),
        ("payload.missing == payload.missing", {}),
        ("payload.one == true", {"one": 1}),
        ("1 in payload.tags", {"tags": "1"}),
        ("1 in payload.tags", {"tags": [True]}),
        ("payload.tags > [1]", {"tags": ["x"]}),
        ("1 < payload.total < 5", {"total": 5}),
        ("payload.total / 0 == 1", {"total": 5}),
        ("payload.name.upper() == 'X'", {"name": 5}),
        ("payload.__class__", {}),
    ],
)
def test_an_expression_does_not_hold_and_does_not_fail(expression, payload):
    assert not holds(expression, letter(payload))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("payload.", "a name is missing after the `.`"),
        ("paylod.x", "did you mean `payload`"),
        ("payload.x | nope", "there is no filter `nope`"),
        ("{{ payload.x }}", "without `{{`"),
    ],
)
def test_a_broken_expression_is_named(expression, said):
    with pytest.raises(BrokenExpressionError, match=said):
        Expression(expression, TemplateEnvironment())


@pytest.mark.parametrize(
    ("raw", "seen"),
    [(b'{"a": 1}', {"a": 1}), (b"{", "{"), (b"\xff", "\\xff"), (b"", ""), (b"[" * 5000, "[" * 5000)],
)
def test_a_payload_is_json_or_text(raw, seen):
    assert content(letter(raw)) == seen


def test_a_letter_is_the_event_or_the_delivery_it_is_of():
    event = event_of(letter(route="r", sink="s", address="a@b", pattern="o*", headers={"h": "1"}))
    assert (event.key, event.route, event.sink, event.pattern, event.attempt) == ("e:r:s:a@b", "r", "s", "o*", 2)
    assert event.received_at.isoformat() == "2026-09-21T12:00:00+00:00"
    assert event_of(letter(received_at="?")).received_at.year == 1970


def test_the_detail_of_a_schema_is_a_list():
    found = [{"pointer": "", "keyword": "required", "message": "a is missing"}]
    one = letter(reason="schema", detail=json.dumps(found))
    assert faults(one) == found
    assert brief(one) == "/ a is missing"
    assert faults(letter(reason="schema", detail="no list")) is None
    assert brief(letter()) == "503"
