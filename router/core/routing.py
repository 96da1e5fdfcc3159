"""Which sinks an event goes to; pure.

What the routes ask about source and channel is decided for a channel as a whole: a `Plan`. What they ask about the payload
stands in the plan as conditions. Channels for which everything is the same share one plan, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from router.config.models import RouteConfig, RouteSink
from router.core.matching import ChannelIndex
from router.core.validation import Schema

Mode = Literal["enforce", "warn", "off"]

UNMATCHED = "unmatched"
"""What stands as the route of an event that no route took, where `unmatched` names sinks."""

MOST_PLANS = 10_000
"""Plans that are remembered. Overlapping globs could make many more of them than there are routes."""

Condition = Callable[[Any], bool]
"""Whether a route takes an event with this payload."""


class SchemaRule(msgspec.Struct, frozen=True):
    """The contract of some channels, as an entry of `schemas` has it: `schema` is None where `mode` is `off`."""

    channels: Sequence[str]
    file: str
    mode: Mode
    schema: Schema | None


class Target(msgspec.Struct, frozen=True):
    """A delivery to make: to which sink, by which route."""

    route: str
    sink: str


class Step(msgspec.Struct, frozen=True, eq=False):
    """A route on the way of a channel's events. It takes those whose payload meets the condition; None: all of them."""

    condition: Condition | None
    targets: tuple[Target, ...]
    final: bool


class Plan(msgspec.Struct, frozen=True, eq=False):
    """The plan for the events of one channel of one source: their schema, then the routes, in order.

    `unmatched` are the deliveries of an event that no step takes: those of `unmatched: [sink, …]`.
    """

    schema: SchemaRule | None
    steps: tuple[Step, ...]
    unmatched: tuple[Target, ...]

    @property
    def conditional(self) -> bool:
        """True if the payload decides about the deliveries."""
        return any(step.condition is not None for step in self.steps)

    def taken_by(self, payload: Any) -> tuple[Step, ...]:
        """Return the steps that take an event with this payload: every one whose condition is met, until a final one."""
        taken: list[Step] = []
        for step in self.steps:
            if step.condition is None or step.condition(payload):
                taken.append(step)
                if step.final:
                    break
        return tuple(taken)

    def deliveries(self, taken: tuple[Step, ...]) -> tuple[Target, ...]:
        """Return the deliveries of an event that these steps take, in the order of the routes."""
        return tuple(target for step in taken for target in step.targets) if taken else self.unmatched


class Routing:
    """The routes and schemas of a configuration, compiled.

    `fallbacks` are the sinks that stand in for others, `conditions` those of routes that ask about the payload, by id.
    """

    def __init__(
        self,
        routes: Sequence[RouteConfig],
        schemas: Sequence[SchemaRule],
        unmatched: Sequence[RouteSink] = (),
        fallbacks: Iterable[str] = (),
        *,
        conditions: Mapping[str, Condition] | None = None,
    ) -> None:
        self._sinks = {route.id: {entry.sink for entry in route.sinks} for route in routes}
        self._sinks[UNMATCHED] = self._sinks.get(UNMATCHED, set()) | {entry.sink for entry in unmatched}
        self._fallbacks = frozenset(fallbacks)
        self._schemas = schemas
        self._routes = [route for route in routes if route.enabled]
        self._steps = [_step(route, (conditions or {}).get(route.id)) for route in self._routes]
        self._unmatched = tuple(Target(UNMATCHED, entry.sink) for entry in unmatched)
        self._indexes: dict[str, ChannelIndex[Plan]] = {}
        self._found: dict[tuple[int, ...], Plan] = {}
        """The plan by what the index found."""
        self._plans: dict[tuple[int | None, ...], Plan] = {}
        """The plan by what counts of that: the first schema, and the routes until a final one."""

    def knows(self, route: str, sink: str) -> bool:
        """Return whether this route may have made a delivery to this sink: by itself, or by way of a fallback."""
        sinks = self._sinks.get(route)
        return sinks is not None and (sink in sinks or sink in self._fallbacks)

    def plan(self, source: str, channel: bytes) -> Plan:
        """Return the plan of a channel: the first schema whose names or globs match, every route until a final one."""
        return self.plans_of(source).find(channel)

    def plans_of(self, source: str) -> ChannelIndex[Plan]:
        """Return the index of the plans of a source."""
        return self._indexes.get(source) or self._index(source)

    def _index(self, source: str) -> ChannelIndex[Plan]:
        """Make the index of a source: the schemas by their numbers, then the routes that may take its events."""
        entries: list[tuple[int, Iterable[str]]] = list(enumerate(rule.channels for rule in self._schemas))
        entries += [
            (number, ["*"] if route.channels is None else route.channels)
            for number, route in enumerate(self._routes, len(self._schemas))
            if route.sources is None or source in route.sources
        ]
        index = self._indexes[source] = ChannelIndex(entries, self._plan)
        return index

    def _plan(self, found: tuple[int, ...]) -> Plan:
        """Make the plan of what the index found, or take one that says the same."""
        if found in self._found:
            return self._found[found]
        first = len(self._schemas)
        schema = found[0] if found and found[0] < first else None
        steps: list[int] = []
        for number in found:
            if number >= first:
                steps.append(number - first)
                step = self._steps[number - first]
                if step.final and step.condition is None:
                    break
        if len(self._found) >= MOST_PLANS:
            self._found.clear()
            self._plans.clear()
        plan = self._plans.get((schema, *steps))
        if plan is None:
            rule = None if schema is None else self._schemas[schema]
            plan = Plan(rule, tuple(self._steps[number] for number in steps), self._unmatched)
            self._plans[schema, *steps] = plan
        self._found[found] = plan
        return plan


def _step(route: RouteConfig, condition: Condition | None) -> Step:
    return Step(condition, tuple(Target(route.id, entry.sink) for entry in route.sinks), route.final)
