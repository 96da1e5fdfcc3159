"""What becomes of one message, and why."""

import json
from datetime import UTC, datetime

from router.config.models import RouteConfig, RouteSink
from router.core.conditions import Condition, When
from router.core.decoding import SourceFormat
from router.core.rendering import TemplateEnvironment
from router.core.routing import Routing, SchemaRule, Target
from router.core.validation import compile_schema
from router.core.verdict import Rejected, Routed, Unmatched, judge
from router.errors import Reason
from router.events import CLOUDEVENTS, JSON, Event

NUMBER = compile_schema({"type": "number"}, uri="schema:///n", retrieve=lambda _uri: None)
WEB = SourceFormat("web", JSON, 100)


def judged(raw, source, plan):
    return judge(Event("1", source.name, "x", None, datetime(2026, 1, 2, tzinfo=UTC), raw), source, plan, 0.0)


def route(id_, *sinks, **keys):
    return RouteConfig(id=id_, sinks=[RouteSink(sink=sink) for sink in sinks], **keys)


def plan(*routes, mode="enforce", unmatched=(), **conditions):
    rules = [SchemaRule(["*"], "n.json", mode, NUMBER)]
    return Routing(routes, rules, unmatched, conditions=conditions).plan("web", b"x")


def test_a_message_that_can_not_be_read_is_rejected_with_the_reason():
    for raw, reason, detail in [(b"{", Reason.DECODE, "not JSON"), (b"1" * 101, Reason.TOO_LARGE, "101 bytes")]:
        found = judged(raw, WEB, plan(route("a", "log")))
        assert isinstance(found, Rejected)
        assert found.reason is reason
        assert detail in found.detail
        assert not found.violations


def test_a_payload_that_does_not_fit_is_rejected_with_every_violation():
    found = judged(b'"secret"', WEB, plan(route("a", "log")))
    assert isinstance(found, Rejected)
    assert found.reason is Reason.SCHEMA
    (violation,) = found.violations
    assert violation.keyword == "type"
    assert [each["keyword"] for each in json.loads(found.detail)] == ["type"]
    assert found.told == "/ type"


def test_a_schema_that_only_warns_lets_pass_and_says_what_is_wrong():
    found = judged(b'"text"', WEB, plan(route("a", "log"), mode="warn"))
    assert isinstance(found, Routed)
    assert [violation.keyword for violation in found.violations] == ["type"]


def test_a_message_that_no_route_takes_is_unmatched_and_goes_where_those_go():
    found = judged(b"1", WEB, plan(unmatched=[RouteSink(sink="rest")]))
    assert isinstance(found, Unmatched)
    assert found.deliveries == (Target("unmatched", "rest"),)
    assert found.message.payload == 1


def test_the_routes_that_take_a_message_are_named():
    routes = [route("big", "mail", "log"), route("small", "chat"), route("all", "log", final=True), route("no", "log")]
    asked = {"big": "payload > 10", "small": "payload <= 10"}
    environment = TemplateEnvironment()
    decided = plan(*routes, **{name: Condition(when=When(source, environment)) for name, source in asked.items()})
    found = judged(b"11", WEB, decided)
    assert isinstance(found, Routed)
    assert found.deliveries == (Target("big", "mail"), Target("big", "log"))
    assert found.because == (decided.steps[0], decided.steps[2])


def test_of_an_envelope_the_data_is_judged():
    raw = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":5}'
    found = judged(raw, SourceFormat("web", CLOUDEVENTS, 100), plan(route("a", "log")))
    assert isinstance(found, Routed)
    assert (found.message.payload, found.message.id) == (5, "/s#1")
