"""Expressions and expiry: what they give, and that nothing an event holds makes them fail."""

import json
from datetime import UTC, datetime

import pytest

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import BrokenExpressionError, Expiry, Expression, moment
from router.errors import TemplateError
from tests.support.engine import make_event

ENVIRONMENT = TemplateEnvironment()
EVENT = make_event(
    json.dumps({"user_id": 42, "name": "Zoë", "tags": ["a", "b"], "order": {"total": 7}, "none": None}).encode(),
    received_at=datetime(2026, 1, 2, tzinfo=UTC),
)
RECEIVED = EVENT.received_at.timestamp()


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("payload.user_id", 42),
        ("payload.order.total > 5 and 'a' in payload.tags", True),
        ("payload.nothing", None),
        ("payload.nothing.at.all", None),
        ("payload.nothing + 1", None),
        ("payload.nothing or payload.name", "Zoë"),
        ("payload.name > 5", False),
        ("payload.none", None),
        ("event.channel", "c"),
        ("route ~ '/' ~ sink", "r/s"),
        ("payload.name | lower", "zoë"),
        ("payload.tags | length", 2),
        ("1 / 0", None),
        ("{'a': 1}.a", 1),
    ],
)
def test_an_expression_gives_its_value_or_nothing(source, value):
    assert Expression(source, ENVIRONMENT).value(EVENT, 0.0) == value


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("payload.user_id", "42"),
        ("payload.user_id ~ ''", "42"),
        ("payload.name", "Zoë"),
        ("payload.tags", "a, b"),
        ("payload.order", '{"total":7}'),
        ("payload.nothing", None),
        ("payload.none", None),
        ("''", None),
        ("0", "0"),
        ("1 > 2", None),
        ("range", None),
    ],
)
def test_keys_compare_as_text_and_nothing_is_none(source, key):
    assert Expression(source, ENVIRONMENT).key(EVENT, 0.0) == key


def test_a_payload_that_can_not_be_decoded_has_no_key():
    assert Expression("payload.a", ENVIRONMENT).key(make_event(b"\xff"), 0.0) is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ payload.a }}", "without `{{`"),
        ("payload.", "a name is missing after the `.`"),
        ("paylaod.a", "did you mean `payload`"),
        ("payload.a }} or payload.b", "not one expression"),
        ("payload.a | nope", "no filter `nope`"),
    ],
)
def test_what_can_not_work_is_said_at_load(source, message):
    with pytest.raises(BrokenExpressionError, match=message.replace("{", r"\{")):
        Expression(source, ENVIRONMENT)


def test_a_duration_counts_from_when_the_event_came():
    assert Expiry(90.0, ENVIRONMENT).at(EVENT, 0.0) == RECEIVED + 90


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2026-01-02T12:00:00Z", datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()),
        ("2026-01-02T12:00:00.250+02:00", datetime(2026, 1, 2, 10, 0, 0, 250_000, tzinfo=UTC).timestamp()),
        (1767355200, 1767355200.0),
        (1767355200.5, 1767355200.5),
        (1767355200500, 1767355200.5),
        ("1767355200", 1767355200.0),
        (" ", None),
        (None, None),
    ],
)
def test_a_template_gives_a_time(written, at):
    event = make_event(json.dumps({"until": written}).encode())
    assert Expiry("{{ payload.until }}", ENVIRONMENT).at(event, 0.0) == at


def test_an_event_knows_when_it_came():
    assert Expiry("{{ event.received_at }}", ENVIRONMENT).at(EVENT, 0.0) == RECEIVED


@pytest.mark.parametrize(
    "written", ["soon", "2026-01-02T12:00:00", "nan", "inf", "-5", "1e300", "2026-13-01T00:00:00Z"]
)
def test_what_is_no_time_is_the_template_s_fault(written):
    with pytest.raises(TemplateError, match="expires: "):
        moment(written)


def test_a_missing_field_is_named():
    with pytest.raises(TemplateError, match=r"expires: payload\.until is missing"):
        Expiry("{{ payload.until }}", ENVIRONMENT).at(EVENT, 0.0)


def test_a_template_that_can_not_work_is_said_at_load():
    with pytest.raises(BrokenExpressionError, match="no filter"):
        Expiry("{{ payload.a | nope }}", ENVIRONMENT)
