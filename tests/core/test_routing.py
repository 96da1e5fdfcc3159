"""Which sinks get the events of a channel."""

from router.config.models import RouteConfig, RouteSink
from router.core.routing import UNMATCHED, Routing, Target, schema_rule
from router.core.validation import compile_schema


def route(id_, *sinks, **keys):
    return RouteConfig(id=id_, sinks=[RouteSink(sink=sink) for sink in sinks], **keys)


def targets(routing, source, channel):
    return [(target.route, target.sink) for target in routing.plan(source, channel).targets]


def test_every_matching_route_gets_the_event_in_order():
    routing = Routing([route("a", "log", "mail"), route("b", "chat")], [])
    assert targets(routing, "web", b"x") == [("a", "log"), ("a", "mail"), ("b", "chat")]


def test_final_stops_after_itself():
    routing = Routing([route("a", "log", final=True), route("b", "chat")], [])
    assert targets(routing, "web", b"x") == [("a", "log")]


def test_a_final_route_that_does_not_match_stops_nothing():
    routing = Routing([route("a", "log", final=True, channels=["y"]), route("b", "chat")], [])
    assert targets(routing, "web", b"x") == [("b", "chat")]


def test_disabled_routes_take_nothing():
    plan = Routing([route("a", "log", enabled=False)], []).plan("web", b"x")
    assert plan.targets == ()
    assert not plan.matched


def test_sources_and_channels_both_have_to_match():
    routing = Routing([route("a", "log", sources=["web"], channels=["orders.*", "exact"])], [])
    assert targets(routing, "web", b"orders.new") == [("a", "log")]
    assert targets(routing, "web", b"exact") == [("a", "log")]
    assert targets(routing, "web", b"other") == []
    assert targets(routing, "shop", b"orders.new") == []


def test_unmatched_sinks_get_what_no_route_took():
    routing = Routing([route("a", "log", channels=["x"])], [], [RouteSink(sink="rest")])
    plan = routing.plan("web", b"y")
    assert plan.targets == (Target(UNMATCHED, "rest"),)
    assert not plan.matched
    assert routing.plan("web", b"x").targets == (Target("a", "log"),)


def test_the_first_schema_that_matches_counts():
    schema = compile_schema({}, uri="schema:///a", retrieve=lambda _uri: None)
    rules = [schema_rule(["a*"], "off", schema, "off.json"), schema_rule(["*"], "enforce", schema, "all.json")]
    routing = Routing([], rules)
    first, second = routing.plan("web", b"ab").schema, routing.plan("web", b"b").schema
    assert first is not None
    assert first.file == "off.json"
    assert first.schema is None
    assert second is not None
    assert second.schema is schema
