"""Expressions and expiry: what they give, what is false, and what is an error."""

import itertools
import json
import re
from datetime import UTC, datetime

import pytest

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import BrokenExpressionError, Expiry, Expression, moment
from router.errors import TemplateError
from tests.support.engine import make_event

ENVIRONMENT = TemplateEnvironment()
EVENT = make_event(
    json.dumps(
        {
            "user_id": 42,
            "name": "Zoë",
            "tags": ["a", "b"],
            "order": {"total": 7},
            "none": None,
            "people": [{"name": "Jane", "id": 7}, {"name": "Joe", "id": 5}],
        }
    ).encode(),
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
        ("1 - payload.nothing * 2", None),
        ("-payload.nothing", None),
        ("'a' ~ payload.nothing", None),
        ("payload.nothing | lower", None),
        ("payload.nothing | default('x') | upper", "X"),
        ("payload.nothing.deep | default(7)", 7),
        ("payload.nothing.upper()", None),
        ("payload.nothing.split(',')[0] | length > 2", False),
        ("payload.tags[7]", None),
        ("payload.tags[5:]", []),
        ("payload.user_id.x.y", None),
        ("payload.nothing or payload.name", "Zoë"),
        ("payload.name > 5", False),
        ("payload.none", None),
        ("event.channel", "c"),
        ("route ~ '/' ~ sink", "r/s"),
        ("payload.name | lower", "zoë"),
        ("payload.tags | length", 2),
        ("{'a': 1}.a", 1),
        ("payload.none == null", True),
        ("payload.nothing == null", False),
        ("payload.nothing != null", True),
        ("payload.nothing is none", False),
        ("payload.nothing is defined", False),
        ("payload.nothing is not defined", True),
        ("payload.nothing is even", False),
        ("payload.none is none", True),
        ("payload.user_id is number and payload.name is string", True),
        ("payload.user_id is divisibleby 7", True),
        ("payload.people | map(attribute='name') | list", ["Jane", "Joe"]),
        ("'Joe' in payload.people | map(attribute='name')", True),
        ("payload.people | selectattr('id', 'gt', 5) | map(attribute='name')", ["Jane"]),
        ("payload.people | selectattr('id', 'gt', '5')", []),
        ("[1, true, '1'] | select('eq', 1)", [1]),
        ("[true, 0] | select('in', [1, 0])", [0]),
        ("'a' if payload.nothing else 'b'", "b"),
        ("'a' if payload.nothing", None),
        ("event.received_at < event.received_at", False),
        ("event.received_at > '2020'", False),
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
    ],
)
def test_keys_compare_as_text_and_nothing_is_none(source, key):
    assert Expression(source, ENVIRONMENT).key(EVENT, 0.0) == key


@pytest.mark.parametrize(
    ("source", "said", "told"),
    [
        ("1 / 0", "only_if: division by zero", None),
        ("payload.user_id // (payload.order.total - 7)", "only_if: integer division or modulo by zero", None),
        ("payload.user_id | length", "only_if: object of type 'int' has no len()", None),
        ("payload.name + 1", 'only_if: can only concatenate str (not "int") to str', None),
        ("payload.user_id.upper()", "only_if: payload.user_id.upper is missing", None),
        ("payload.uper()", "only_if: payload.uper is missing", None),
        ("payload.tags | sum", "only_if: unsupported operand", None),
        ("payload.name | round", "only_if: type str doesn't define __round__ method", None),
        (
            "payload.user_id | local(payload.name)",
            "there is no time zone 'Zoë'",
            "only_if: ValueError (its text may quote the event and is not logged)",
        ),
        (
            "on(payload.name)",
            "only_if: on(): the value must be yes, no, true, false, 1, 0, on or off: 'Zoë'",
            "off",
        ),
        ("on(payload.tags)", "off: a value of type list", "off"),
        (
            "cidr(payload.name, '10.0.0.0/8')",
            "only_if: cidr(): the first value must be an IP address: 'Zoë'",
            "IP address",
        ),
        (
            "cidr(payload.user_id, '10.0.0.0/8')",
            "only_if: cidr(): the first value must be an IP address: a value of type int",
            "address",
        ),
        (
            "cidr('10.0.0.1', payload.name)",
            "the second value must be a network such as 10.0.0.0/8: 'Zoë'",
            "10.0.0.0/8",
        ),
        ("cidr('10.0.0.1', payload.nothing)", "must be a network such as 10.0.0.0/8: it is missing", "10.0.0.0/8"),
    ],
)
def test_what_can_not_be_worked_out_is_an_error_and_the_log_hears_nothing_of_the_event(source, said, told):
    expression = Expression(source, ENVIRONMENT, "only_if")
    for evaluate in (expression.value, expression.holds, expression.key):
        with pytest.raises(TemplateError) as raised:
            evaluate(EVENT, 0.0)
        assert said in str(raised.value)
        assert "Zoë" not in raised.value.told
        assert raised.value.told.startswith("only_if: ")
        assert raised.value.told.endswith(told or "")


def test_a_payload_that_can_not_be_decoded_is_an_error():
    with pytest.raises(TemplateError, match="the payload can't be decoded"):
        Expression("payload.a", ENVIRONMENT).key(make_event(b"\xff"), 0.0)


def test_a_function_is_no_key():
    with pytest.raises(TemplateError, match="can't be written as text"):
        Expression("range", ENVIRONMENT).key(EVENT, 0.0)


def test_what_is_short_of_an_error_stays_unevaluated():
    assert Expression("payload.nothing and 1 / 0", ENVIRONMENT).holds(EVENT, 0.0) is False
    assert Expression("payload.name or 1 / 0", ENVIRONMENT).holds(EVENT, 0.0) is True
    assert Expression("2 < 1 < 1 / 0", ENVIRONMENT).holds(EVENT, 0.0) is False


ON = [*itertools.product(["yes", "YES", "true", "1", "on", True, 1, 1.0], [True])]
OFF = [*itertools.product(["no", "No", "false", "0", "off", False, 0], [False])]


@pytest.mark.parametrize(("value", "switch"), [*ON, *OFF])
def test_on_reads_a_switch(value, switch):
    event = make_event(json.dumps({"a": value}).encode())
    for default in ("true", "false"):
        assert Expression(f"on(payload.a, {default})", ENVIRONMENT).value(event, 0.0) is switch


@pytest.mark.parametrize("payload", [{}, {"a": None}, {"a": ""}])
@pytest.mark.parametrize(
    ("rest", "gives"), [(", true", True), (", false", False), (", 'no'", False), ("", False), (", payload.b.c", False)]
)
def test_on_gives_its_default_where_nothing_is_said(payload, rest, gives):
    event = make_event(json.dumps(payload).encode())
    assert Expression(f"on(payload.a{rest})", ENVIRONMENT).value(event, 0.0) is gives


@pytest.mark.parametrize("value", ["maybe", "y", " yes", 2, -1, 0.5, [], [True], {}, "1" * 1000])
def test_on_refuses_anything_else(value):
    with pytest.raises(TemplateError, match="must be yes, no"):
        Expression("on(payload.a, true)", ENVIRONMENT).value(make_event(json.dumps({"a": value}).encode()), 0.0)


@pytest.mark.parametrize(
    ("address", "network", "inside"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("::1", "10.0.0.0/8", False),
        ("10.1.2.3", "::/0", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("", "10.0.0.0/8", False),
        (None, "10.0.0.0/8", False),
    ],
)
def test_cidr_tests_an_address(address, network, inside):
    event = make_event(json.dumps({"ip": address, "net": network}).encode())
    for source in (f"cidr(payload.ip, '{network}')", "cidr(payload.ip, payload.net)"):
        assert Expression(source, ENVIRONMENT).value(event, 0.0) is inside
    assert Expression("cidr(payload.none, '10.0.0.0/8')", ENVIRONMENT).value(event, 0.0) is False


@pytest.mark.parametrize("value", ["10.0.0.1:80", "010.0.0.1", "10.0.0", "1" * 1000, 167772161, True, ["10.0.0.1"]])
def test_what_is_no_address_is_an_error(value):
    with pytest.raises(TemplateError, match="must be an IP address"):
        Expression("cidr(payload.a, '10.0.0.0/8')", ENVIRONMENT).value(
            make_event(json.dumps({"a": value}).encode()), 0.0
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ payload.a }}", "without `{{`"),
        ("payload.", "a name is missing after the `.`"),
        ("paylaod.a", "did you mean `payload`"),
        ("payload.a }} or payload.b", "a single expression"),
        ("payload.a | nope", "no filter `nope`"),
        ("payload.a is nope", "no test `nope`"),
        ("onn(payload.a)", "there is no `onn` (did you mean `on`?)"),
        ("cdir(payload.a, '::/0')", "there is no `cdir` (did you mean `cidr`?)"),
        ("nothing > 1", "there is no `nothing`; an expression can use event, payload, route, sink"),
        ("event.chanel == 'a'", "an event has no field `chanel` (did you mean `channel`?)"),
        ("payload.user-id", 'payload["user-id"]'),
        ("payload.a = 1", "to compare two values, write `==`"),
        ("payload.a && payload.b", "write `and`"),
        ("cidr(payload.a, '10.0.0.0/33')", "cidr: '10.0.0.0/33' is not a network: write 10.0.0.0/8 or 2001:db8::/32"),
        ("  ", "an expression is missing"),
    ],
)
def test_what_can_not_work_is_said_at_load(source, message):
    with pytest.raises(BrokenExpressionError, match=re.escape(message)):
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
