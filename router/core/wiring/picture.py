"""A configuration as a graph: sources, schemas, routes and sinks, and the paths of events between them; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec.structs import replace

from router.config.models import RouteConfig, RouterConfig, SchemaConfig
from router.core.wiring.reach import CONDITIONLESS, Channels, Reach

NodeKind = Literal["source", "schema", "route", "unmatched", "sink", "dead-letters"]
State = Literal["on", "disabled", "idle"]
EdgeKind = Literal["events", "fallback", "summary"]

LAYERS: tuple[tuple[NodeKind, ...], ...] = (
    ("source",),
    ("schema",),
    ("route", "unmatched"),
    ("sink", "dead-letters"),
)
"""The kinds of nodes in the order in which an event passes them."""

TITLES = ("Sources", "Schemas", "Routes", "Sinks")
"""The titles of the layers."""


class Node(msgspec.Struct, frozen=True):
    """A node of the graph: a source, schema, route or sink, the unmatched events, or the dead letters.

    `detail` is a short description, `title` a complete one. `state` is `disabled` for a route with `enabled: false`,
    and `idle` for a node that no event can reach or leave. `number` is the position of a route.
    """

    id: str
    kind: NodeKind
    name: str
    detail: str
    title: str
    state: State = "on"
    final: bool = False
    number: int | None = None


class Edge(msgspec.Struct, frozen=True):
    """The path of events from one node to another. `live` is false if no event can take this path in the configuration.

    An edge of kind `fallback` leads from a sink to the sink that gets its failed deliveries. An edge of kind `summary`
    leads from the dead letters to a sink that gets summaries of new dead letters.
    """

    start: str
    end: str
    kind: EdgeKind = "events"
    live: bool = True


class Picture(msgspec.Struct, frozen=True):
    """The nodes, in the order of the configuration, and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


UNMATCHED = "unmatched"
DEAD_LETTERS = "dead-letters"


def picture(config: RouterConfig) -> Picture:
    """Return the graph of a configuration."""
    reach = Reach(config.sources, [schema.channels for schema in config.schemas], config.routes)
    edges = list(dict.fromkeys([*_into_schemas(config, reach), *_into_routes(config, reach)]))
    idle = {route.id for route in config.routes if not any(e.end == _route(route) and e.live for e in edges)}
    edges += _into_sinks(config, idle)
    edges = _mark_unreached(edges)
    live = {edge.start for edge in edges if edge.live} | {edge.end for edge in edges if edge.live}
    nodes = [
        node if node.id in live | {DEAD_LETTERS} or node.state == "disabled" else replace(node, state="idle")
        for node in _nodes(config)
    ]
    return Picture(tuple(nodes), tuple(edges))


def _source(name: str) -> str:
    return f"source:{name}"


def _schema(number: int) -> str:
    return f"schema:{number}"


def _route(route: RouteConfig) -> str:
    return f"route:{route.id}"


def _sink(name: str) -> str:
    return f"sink:{name}"


def _channels_by_node(config: RouterConfig, reach: Reach) -> Iterator[tuple[str, Channels]]:
    """Yield the channels of each source, grouped by their schema.

    Each group comes with the node from which its events reach the routes: the schema, or the source if the channels
    have no schema.
    """
    for source in config.sources:
        for number in range(len(config.schemas)):
            yield _schema(number), reach.with_schema(source, number)
        yield _source(source), reach.without_schema(source)


def _into_schemas(config: RouterConfig, reach: Reach) -> Iterator[Edge]:
    for source in config.sources:
        for number in range(len(config.schemas)):
            if reach.some(reach.with_schema(source, number)):
                yield Edge(_source(source), _schema(number))


def _into_routes(config: RouterConfig, reach: Reach) -> Iterator[Edge]:
    for node, channels in _channels_by_node(config, reach):
        if not reach.some(channels):
            continue
        for number, route in enumerate(config.routes):
            if reach.takes(number, channels):
                yield Edge(node, _route(route), live=route.enabled)
        if config.unmatched != "drop" and reach.unmatched(channels):
            yield Edge(node, UNMATCHED)


def _into_sinks(config: RouterConfig, idle: set[str]) -> Iterator[Edge]:
    for route in config.routes:
        for target in route.sinks:
            yield Edge(_route(route), _sink(target.sink), live=route.enabled and route.id not in idle)
    if config.unmatched == "dead-letter":
        yield Edge(UNMATCHED, DEAD_LETTERS)
    elif config.unmatched != "drop":
        for target in config.unmatched:
            yield Edge(UNMATCHED, _sink(target.sink))
    for name, sink in config.sinks.items():
        for other in sink.host.fallback:
            yield Edge(_sink(name), _sink(other), "fallback")
    if config.dead_letters.notify is not None:
        for name in dict.fromkeys(config.dead_letters.notify.sinks):
            yield Edge(DEAD_LETTERS, _sink(name), "summary")


def _mark_unreached(edges: list[Edge]) -> list[Edge]:
    """Mark the outgoing edges of nodes that no event reaches as not live.

    An example is the edge from an idle sink to its fallback.
    """
    while True:
        reached = {edge.end for edge in edges if edge.live}
        marked = [
            replace(edge, live=False) if edge.live and edge.start not in reached and _needs_input(edge) else edge
            for edge in edges
        ]
        if marked == edges:
            return edges
        edges = marked


def _needs_input(edge: Edge) -> bool:
    """Return whether an edge carries only events that reached its start by another edge.

    Dead letters can come from anywhere.
    """
    return edge.kind == "fallback" or edge.start == UNMATCHED


def _nodes(config: RouterConfig) -> Iterator[Node]:
    for name, source in config.sources.items():
        detail = f"{source.type}: {', '.join(source.reads)}"
        yield Node(_source(name), "source", name, detail, f"source {name}, {detail}")
    for number, schema in enumerate(config.schemas):
        yield _schema_node(number, schema)
    for number, route in enumerate(config.routes, 1):
        yield _route_node(number, route)
    if config.unmatched != "drop":
        title = "unmatched: events that no route takes"
        yield Node(UNMATCHED, "unmatched", "unmatched", "events that no route takes", title)
    for name, sink in config.sinks.items():
        yield Node(_sink(name), "sink", name, sink.host.type, f"sink {name}, {sink.host.type}")
    if config.unmatched == "dead-letter" or config.dead_letters.notify is not None:
        title = "dead letters: events and deliveries that could not be handled"
        yield Node(DEAD_LETTERS, "dead-letters", "dead letters", "kept in Redis", title)


def _schema_node(number: int, schema: SchemaConfig) -> Node:
    mode = "" if schema.mode == "enforce" else f" ({schema.mode})"
    detail = f"{', '.join(schema.channels)}{mode}"
    name = schema.file.rpartition("/")[2] or schema.file
    return Node(_schema(number), "schema", name, detail, f"schema {schema.file}, {detail}")


def _route_node(number: int, route: RouteConfig) -> Node:
    asked = [key for key in type(route).model_fields if key in route.model_fields_set - CONDITIONLESS]
    channels = "every channel" if route.channels is None else ", ".join(route.channels)
    detail = " + ".join([channels, *asked])
    sources = "" if route.sources is None else f" of {', '.join(route.sources)}"
    flags = [text for text, there in (("final", route.final), ("disabled", not route.enabled)) if there]
    title = ", ".join([f"route {number}, {route.id}: {detail}{sources}", *flags])
    state: State = "on" if route.enabled else "disabled"
    return Node(_route(route), "route", route.id, detail, title, state, route.final, number)
