"""`when`: an expression that decides whether a route takes an event, beside `match`."""

from datetime import UTC, datetime

import msgspec
import pytest

from router.config.models import RouteConfig, RouteSink
from router.core.conditions import Condition, Subject, When, compile_match
from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import BrokenExpressionError
from router.core.routing import Routing, merged
from router.events import Event

ENVIRONMENT = TemplateEnvironment()


def event(payload, **fields):
    raw = msgspec.json.encode(payload)
    return Event("7", "web", "orders", None, datetime(2026, 1, 2, tzinfo=UTC), raw, **fields)


def when(source):
    return When(source, ENVIRONMENT)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("payload.total > 100 and 'vip' in payload.tags", True),
        ("payload.tags | length > 2", False),
        ("payload.missing.deeper", False),
        ("payload.total > 'x'", False),
        ("event.channel == 'orders' and event.source == 'web' and event.id == '7'", True),
        ("event.headers.region == 'eu'", True),
        ("route == 'urgent'", True),
        ("[]", False),
    ],
)
def test_it_asks_event_payload_and_route(source, holds):
    asked = event({"total": 150, "tags": ["vip"]}, headers={"region": "eu"})
    assert Subject(asked, 0.0).meets(when(source), "urgent") is holds


@pytest.mark.parametrize("source", ["sink == 'audit'", "user.vip", "payload.", "{{ payload }}"])
def test_what_it_does_not_know_is_refused_when_it_is_loaded(source):
    with pytest.raises(BrokenExpressionError):
        when(source)


def test_one_that_can_not_be_evaluated_does_not_take_the_event_and_says_so():
    subject = Subject(event({"n": 0}), 0.0)
    assert not subject.meets(when("not 1 / payload.n"), "urgent")
    (failure,) = subject.failures
    assert failure.route == "urgent"
    assert str(failure.error) == "when: division by zero"


def test_a_missing_field_differs_in_an_expression_and_meets_no_ne():
    """The table of docs/routing.md."""
    matches = {"ne": {"status": {"ne": "done"}}, "not": {"status": {"not": {"eq": "done"}}}}
    found = {
        name: [compile_match(match).holds(payload) for payload in ({"status": "new"}, {"status": "done"}, {})]
        for name, match in matches.items()
    }
    unlike = when("payload.status != 'done'")
    found["!="] = [unlike.holds(event(payload), 0.0) for payload in ({"status": "new"}, {"status": "done"}, {})]
    assert found == {"ne": [True, False, False], "not": [True, False, True], "!=": [True, False, True]}


def routes(*found):
    return [
        RouteConfig(id=name, sinks=[RouteSink(sink=sink, options=options) for sink, options in sinks], **keys)
        for name, sinks, keys in found
    ]


def test_when_is_asked_only_where_match_holds_and_not_behind_a_final_route():
    asked = []

    class Heard(When):
        def holds(self, event, now):
            asked.append(event.route)
            return super().holds(event, now)

    conditions = {
        "a": Condition(compile_match({"n": 1}), Heard("true", ENVIRONMENT)),
        "b": Condition(compile_match({"n": 2}), Heard("true", ENVIRONMENT)),
        "c": Condition(compile_match({"text": {"prefix": "x"}}), Heard("true", ENVIRONMENT)),
        "d": Condition(None, Heard("payload.n == 2", ENVIRONMENT)),
        "e": Condition(None, Heard("true", ENVIRONMENT)),
    }
    some = routes(*((name, [("log", None)], {"final": name == "d"}) for name in conditions))
    plan = Routing(some, [], conditions=conditions).plan("web", b"x")
    assert plan.asks_event
    taken = plan.taken_by({"n": 2, "text": "y"}, Subject(event({"n": 2, "text": "y"}), 0.0))
    assert [step.route for step in taken] == ["b", "d"]
    assert asked == ["b", "d"]


def test_one_message_once():
    some = routes(
        ("first", [("mail", None), ("log", None)], {}),
        ("second", [("log", None), ("chat", None)], {}),
        ("other-options", [("log", "overridden"), ("chat", "overridden")], {}),
        ("the-same-options", [("log", "overridden")], {}),
        ("expires", [("mail", None)], {"expires": "5m"}),
        ("expires-alike", [("mail", None)], {"expires": "300s"}),
        ("expires-by-text", [("mail", None)], {"expires": "{{ payload.until }}"}),
        ("last", [("chat", None)], {}),
        ("only-if", [("chat", None)], {}),
    )
    some[-1] = some[-1].model_copy(update={"sinks": [RouteSink(sink="chat", only_if="payload.vip")]})
    plan = Routing(some, []).plan("web", b"x")
    assert not plan.conditional
    found = [(delivery.target.route, delivery.target.sink, delivery.merged) for delivery in merged(plan.taken_by(None))]
    assert found == [
        ("first", "mail", ()),
        ("first", "log", ("second",)),
        ("second", "chat", ("last",)),
        ("other-options", "log", ()),
        ("other-options", "chat", ()),
        ("the-same-options", "log", ()),
        ("expires", "mail", ("expires-alike",)),
        ("expires-by-text", "mail", ()),
        ("only-if", "chat", ()),
    ]


def test_every_key_of_a_route_is_considered():
    """A new key that changes what is delivered, or when, belongs into `same_message`; one that does not, only here."""
    decides = {"sources", "channels", "match", "when", "final", "enabled"}
    assert set(RouteConfig.model_fields) == {"id", "sinks", "expires", *decides}


def test_the_first_route_that_takes_the_event_makes_the_delivery():
    conditions = {"vip": Condition(compile_match({"vip": True})), "final": Condition(compile_match({"last": True}))}
    some = routes(
        ("vip", [("log", None)], {}),
        ("final", [("log", None)], {"final": True}),
        ("all", [("log", None), ("mail", None)], {}),
    )
    plan = Routing(some, [], conditions=conditions).plan("web", b"x")

    def made(payload):
        return [(each.route, each.sink) for each in plan.deliveries(plan.taken_by(payload))]

    assert made({"vip": True}) == [("vip", "log"), ("all", "mail")]
    assert made({"vip": False}) == [("all", "log"), ("all", "mail")]
    assert made({"vip": True, "last": True}) == [("vip", "log")]
    assert made({"last": True}) == [("final", "log")]
