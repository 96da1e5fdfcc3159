"""The graph of a configuration: who gets what of whom, by names and globs."""

import json
from pathlib import Path

import pytest

from router.core.wiring.picture import picture
from router.ops.loading import load

SINKS = "sinks: {audit: {type: log, path: a.jsonl}, spare: {type: log, path: s.jsonl, fallback: [audit]}}\n"


@pytest.fixture
def draw(tmp_path):
    """A function that draws a configuration of sources, routes and schemas, and gives the nodes and edges by their ids."""

    def drawn(sources, routes, schemas=(), more=""):
        (tmp_path / "any.json").write_text("{}")
        parts = {"version": 1, "sources": sources, "routes": routes}
        parts["schemas"] = [{"file": "any.json", **schema} for schema in schemas]
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())
        file = tmp_path / "config.yaml"
        file.write_text(text + SINKS + more)
        found = picture(load(Path(file), environ={}).config)
        return {node.id: node for node in found.nodes}, {(edge.start, edge.end): edge for edge in found.edges}

    return drawn


def pubsub(*channels):
    return {"type": "pubsub", "channels": list(channels)}


def route(name="r", **more):
    return {"id": name, "sinks": ["audit"], **more}


@pytest.mark.parametrize(
    ("read", "taken", "expected"),
    [
        ("orders.*", None, True),
        ("orders.*", ["orders.*"], True),
        ("orders.*", ["orders.new"], True),
        ("orders.*", ["*.new"], True),
        ("orders.*", ["order.*"], False),
        ("orders.*", ["orders"], False),
        ("orders", ["orders.*", "o*s"], True),
        ("orders", ["order"], False),
        ("orders.?", ["orders.ab"], False),
        ("orders.[a-c]", ["orders.[c-e]"], True),
        ("orders.[a-c]", ["orders.[d-e]"], False),
    ],
)
def test_an_edge_stands_where_a_channel_may_be_both_read_and_taken(draw, read, taken, expected):
    channels = {} if taken is None else {"channels": taken}
    nodes, edges = draw({"web": pubsub(read)}, [route(**channels)])
    assert (("source:web", "route:r") in edges) is expected
    assert nodes["route:r"].state == ("on" if expected else "idle")
    assert edges["route:r", "sink:audit"].live is expected


def test_a_stream_is_read_by_its_exact_name(draw):
    _, edges = draw(
        {"s": {"type": "stream", "streams": ["a*"]}}, [route(channels=["ab"]), route("q", channels=["a\\*"])]
    )
    assert ("source:s", "route:r") not in edges
    assert ("source:s", "route:q") in edges


def test_a_route_takes_of_the_sources_that_it_names(draw):
    _, edges = draw({"a": pubsub("x"), "b": pubsub("x")}, [route(sources=["b"])])
    assert ("source:a", "route:r") not in edges
    assert ("source:b", "route:r") in edges


def test_events_pass_by_the_first_schema_of_their_channel(draw):
    schemas = [{"channels": ["orders.new"]}, {"channels": ["orders.*"], "mode": "warn"}, {"channels": ["orders.old"]}]
    nodes, edges = draw({"web": pubsub("orders.*", "news")}, [route(), route("new", channels=["orders.new"])], schemas)
    assert ("schema:0", "route:new") in edges
    assert ("schema:1", "route:new") not in edges  # orders.new has the first
    assert ("source:web", "route:new") not in edges
    assert ("source:web", "route:r") in edges  # news
    assert ("source:web", "schema:2") not in edges
    assert nodes["schema:2"].state == "idle"
    assert nodes["schema:1"].detail == "orders.* (warn)"


def test_nothing_goes_behind_a_final_route_that_takes_all_of_it(draw):
    routes = [
        route("first", channels=["orders.*"], final=True),
        route("late", channels=["orders.new"]),
        route("other", channels=["o*"]),
    ]
    nodes, edges = draw({"web": pubsub("orders.*")}, routes)
    assert ("source:web", "route:late") not in edges
    assert ("source:web", "route:other") not in edges
    assert nodes["route:late"].state == "idle"
    assert nodes["route:first"].final
    _, edges = draw({"web": pubsub("orders.*", "ocean")}, routes)
    assert ("source:web", "route:other") in edges


def test_a_disabled_route_holds_nothing_up_and_gets_nothing(draw):
    routes = [route("off", final=True, enabled=False), route("on")]
    nodes, edges = draw({"web": pubsub("x")}, routes)
    assert nodes["route:off"].state == "disabled"
    assert not edges["source:web", "route:off"].live
    assert not edges["route:off", "sink:audit"].live
    assert edges["source:web", "route:on"].live


def test_unmatched_has_a_node_where_something_becomes_of_it(draw):
    sources = {"web": pubsub("x", "y")}
    nodes, _ = draw(sources, [route(channels=["x"])])
    assert "unmatched" not in nodes
    nodes, edges = draw(sources, [route(channels=["x"])], more="unmatched: dead-letter\n")
    assert edges["source:web", "unmatched"].live
    assert edges["unmatched", "dead-letters"].live
    assert nodes["dead-letters"].state == "on"
    nodes, edges = draw(sources, [route()], more="unmatched: [audit]\n")
    assert ("source:web", "unmatched") not in edges
    assert nodes["unmatched"].state == "idle"
    assert not edges["unmatched", "sink:audit"].live


def test_fallbacks_lead_from_sink_to_sink(draw):
    nodes, edges = draw({"web": pubsub("x")}, [{"id": "r", "sinks": ["spare"]}])
    assert edges["sink:spare", "sink:audit"].kind == "fallback"
    assert edges["sink:spare", "sink:audit"].live
    assert nodes["sink:audit"].state == "on"
    nodes, edges = draw({"web": pubsub("x")}, [route()])
    assert not edges["sink:spare", "sink:audit"].live
    assert nodes["sink:spare"].state == "idle"


def test_the_sinks_that_are_told_of_dead_letters_are_used(draw):
    routes = [{"id": "r", "sinks": ["audit"]}]
    nodes, edges = draw({"web": pubsub("x")}, routes, more="dead_letters: {notify: {sinks: [spare]}}\n")
    assert edges["dead-letters", "sink:spare"].kind == "summary"
    assert nodes["sink:spare"].state == "on"
