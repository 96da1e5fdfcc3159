"""Which sinks an event goes to; pure.

What a route asks about source and channel is decided once for each pair: a `Plan`, which the pipeline keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from router.config.models import RouteConfig, RouteSink
from router.core.matching import Matcher, any_of
from router.core.validation import Schema

Mode = Literal["enforce", "warn", "off"]

UNMATCHED = "unmatched"
"""What stands as the route of an event that no route took, where `unmatched` names sinks."""


class SchemaRule(msgspec.Struct, frozen=True):
    """The contract of some channels: `schema` is None where `mode` is `off`."""

    matches: Matcher
    mode: Mode
    schema: Schema | None
    file: str


class Target(msgspec.Struct, frozen=True):
    """One delivery to make: to which sink, by which route."""

    route: str
    sink: str


class Plan(msgspec.Struct, frozen=True):
    """What becomes of the events of one channel of one source: their contract, and their deliveries in route order.

    `matched` tells whether a route took them; `targets` of an unmatched plan are those of `unmatched: [sink, …]`.
    """

    schema: SchemaRule | None
    targets: tuple[Target, ...]
    matched: bool


class _Rule(msgspec.Struct, frozen=True):
    sources: frozenset[str] | None
    matches: Matcher | None
    targets: tuple[Target, ...]
    final: bool


class Routing:
    """The routes and schemas of a configuration, compiled. `fallbacks` are the sinks that stand in for others."""

    def __init__(
        self,
        routes: Sequence[RouteConfig],
        schemas: Sequence[SchemaRule],
        unmatched: Sequence[RouteSink] = (),
        fallbacks: Iterable[str] = (),
    ) -> None:
        self._routes = {route.id: {entry.sink for entry in route.sinks} for route in routes}
        self._routes[UNMATCHED] = self._routes.get(UNMATCHED, set()) | {entry.sink for entry in unmatched}
        self._fallbacks = frozenset(fallbacks)
        self._rules = [_rule(route) for route in routes if route.enabled]
        self._schemas = schemas
        self._unmatched = tuple(Target(UNMATCHED, entry.sink) for entry in unmatched)

    def knows(self, route: str, sink: str) -> bool:
        """Whether this route may have made a delivery to this sink: by itself, or by way of a fallback."""
        targets = self._routes.get(route)
        return targets is not None and (sink in targets or sink in self._fallbacks)

    def plan(self, source: str, channel: bytes) -> Plan:
        """The plan of a channel: the first schema whose names or globs match, every route until a `final` one."""
        schema = next((rule for rule in self._schemas if rule.matches(channel)), None)
        targets: list[Target] = []
        for rule in self._rules:
            if rule.sources is not None and source not in rule.sources:
                continue
            if rule.matches is not None and not rule.matches(channel):
                continue
            targets += rule.targets
            if rule.final:
                break
        return Plan(schema, tuple(targets) or self._unmatched, matched=bool(targets))


def schema_rule(channels: Iterable[str], mode: Mode, schema: Schema | None, file: str) -> SchemaRule:
    """The rule of one entry of `schemas`."""
    return SchemaRule(any_of(channels), mode, None if mode == "off" else schema, file)


def _rule(route: RouteConfig) -> _Rule:
    return _Rule(
        sources=None if route.sources is None else frozenset(route.sources),
        matches=None if route.channels is None else any_of(route.channels),
        targets=tuple(Target(route.id, entry.sink) for entry in route.sinks),
        final=route.final,
    )
