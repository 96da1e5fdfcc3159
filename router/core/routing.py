"""Routing: the choice of sinks for an event; pure.

Conditions on source and channel are evaluated once per channel; the result is a `Plan`. Conditions on the event are
part of the plan. Channels with equal results share one plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import msgspec

from router.config.models import RouteConfig, RouteSink
from router.core.conditions.condition import Condition, Subject
from router.core.conditions.index import AskedPath, Index
from router.core.matching import ChannelIndex
from router.core.validation import Schema

Mode = Literal["enforce", "warn", "off"]

UNMATCHED = "unmatched"
"""The route id of deliveries made by `unmatched: [sink, …]`."""

MOST_PLANS = 10_000
"""The largest number of remembered plans. Overlapping globs could make many more plans than there are routes."""


class SchemaRule(msgspec.Struct, frozen=True):
    """The schema of some channels, from an entry of `schemas`; `schema` is None if `mode` is `off`."""

    channels: Sequence[str]
    file: str
    mode: Mode
    schema: Schema | None


class Target(msgspec.Struct, frozen=True):
    """A delivery to make: the sink and the route."""

    route: str
    sink: str


class Step(msgspec.Struct, frozen=True, eq=False):
    """A route in the plan of a channel.

    The route takes the events that meet its condition. A route without a condition takes all events. `rest` evaluates
    the part of the condition that the index does not evaluate. `groups` has the group number of each target. An event
    gets one delivery per group. The first route of the group that takes the event makes this delivery.
    """

    route: str
    condition: Condition | None
    rest: Callable[[Any], bool] | None
    targets: tuple[Target, ...]
    groups: tuple[int, ...]
    final: bool


class Delivery(NamedTuple):
    """A delivery of an event.

    `merged` are the later routes with an equal delivery, which was merged into this delivery.
    """

    target: Target
    merged: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, eq=False):
    """The plan for the events of one channel of one source: their schema, then the routes, in order.

    `unmatched` are the deliveries of an event that no step takes, as configured with `unmatched: [sink, …]`.
    `selection` is None if all steps are without a condition.
    """

    schema: SchemaRule | None
    steps: tuple[Step, ...]
    unmatched: tuple[Target, ...]
    selection: Selection | None = None

    @property
    def conditional(self) -> bool:
        """True if the deliveries depend on the event and not only on its channel."""
        return self.selection is not None

    @property
    def asks_event(self) -> bool:
        """True if a step has a `when`. A `when` may use the whole event, not only the payload."""
        return any(step.condition is not None and step.condition.when is not None for step in self.steps)

    def taken_by(self, payload: Any, subject: Subject | None = None) -> tuple[Step, ...]:
        """Return the steps that take an event.

        These are the steps whose condition holds, up to and including the first final step. `subject` is the event
        itself. It is needed only if `asks_event` is true.
        """
        return self.steps if self.selection is None else self.selection.taken_by(payload, subject)

    def deliveries(self, taken: tuple[Step, ...]) -> tuple[Target, ...]:
        """Return the deliveries of an event that these steps take, in the order of the routes.

        Equal deliveries are merged.
        """
        return tuple(delivery.target for delivery in merged(taken)) if taken else self.unmatched


class Selection(msgspec.Struct, frozen=True, eq=False):
    """The routes of a plan and the paths that their conditions compare. Bit n of `routes` is set for `steps[n]`."""

    routes: int
    paths: tuple[AskedPath, ...]
    steps: Sequence[Step]

    def taken_by(self, payload: Any, subject: Subject | None) -> tuple[Step, ...]:
        """Return the steps that take an event, up to and including the first final step."""
        left = self.routes
        for path in self.paths:
            left &= path.left(payload)
            if not left:
                return ()
        taken: list[Step] = []
        while left:
            lowest = left & -left
            left ^= lowest
            step = self.steps[lowest.bit_length() - 1]
            if step.rest is not None and not step.rest(payload):
                continue
            if step.condition is not None and step.condition.when is not None:
                assert subject is not None
                if not subject.meets(step.condition.when, step.route):
                    continue
            taken.append(step)
            if step.final:
                break
        return tuple(taken)


def merged(taken: Iterable[Step]) -> list[Delivery]:
    """Return the deliveries of an event that these steps take, each with the routes that were merged into it."""
    first: dict[int, Target] = {}
    others: dict[int, list[str]] = {}
    for step in taken:
        for target, group in zip(step.targets, step.groups, strict=True):
            if first.setdefault(group, target) is not target:
                others.setdefault(group, []).append(target.route)
    return [Delivery(target, tuple(others.get(group, ()))) for group, target in first.items()]


class Routing:
    """The routes and schemas of a configuration, compiled.

    `fallbacks` are the sinks that are the fallback of another sink. `conditions` are the conditions of routes, by the
    route's id. A route without a condition takes every event of its channels.
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
        self._steps = _steps(self._routes, conditions or {})
        self._index_of_conditions = Index(
            {number: step.condition.clauses for number, step in enumerate(self._steps) if step.condition is not None}
        )
        self._unmatched = tuple(Target(UNMATCHED, entry.sink) for entry in unmatched)
        self._indexes: dict[str, ChannelIndex[Plan]] = {}
        self._found: dict[tuple[int, ...], Plan] = {}
        """The plans, by the numbers of all schemas and routes that the index found for a channel."""
        self._plans: dict[tuple[int | None, ...], Plan] = {}
        """The plans, by the numbers of the schema and routes that have an effect: the first schema, and the routes up
        to the first final route without a condition.
        """

    @property
    def in_force(self) -> list[str]:
        """The ids of the routes that are enabled, in the order of the configuration."""
        return [route.id for route in self._routes]

    def knows(self, route: str, sink: str) -> bool:
        """Return whether this route may have made a delivery to this sink, directly or as a fallback."""
        sinks = self._sinks.get(route)
        return sinks is not None and (sink in sinks or sink in self._fallbacks)

    def plan(self, source: str, channel: bytes) -> Plan:
        """Return the plan of a channel: the first schema that matches, and the matching routes up to the first final
        route without a condition.
        """
        return self.plans_of(source).find(channel)

    def plans_of(self, source: str) -> ChannelIndex[Plan]:
        """Return the index of the plans of a source."""
        return self._indexes.get(source) or self._index(source)

    def _index(self, source: str) -> ChannelIndex[Plan]:
        """Create the index of a source.

        The schemas have the first numbers. The routes that may take events of the source have the numbers after them.
        """
        entries: list[tuple[int, Iterable[str]]] = list(enumerate(rule.channels for rule in self._schemas))
        entries += [
            (number, ["*"] if route.channels is None else route.channels)
            for number, route in enumerate(self._routes, len(self._schemas))
            if route.sources is None or source in route.sources
        ]
        index = self._indexes[source] = ChannelIndex(entries, self._plan)
        return index

    def _plan(self, found: tuple[int, ...]) -> Plan:
        """Return the plan for the numbers that the index found. If an equal plan exists, return this plan."""
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
            plan = Plan(rule, tuple(self._steps[number] for number in steps), self._unmatched, self._selection(steps))
            self._plans[schema, *steps] = plan
        self._found[found] = plan
        return plan

    def _selection(self, steps: Sequence[int]) -> Selection | None:
        """Return the selection among the steps with these numbers; None if all steps are without a condition."""
        if all(self._steps[number].condition is None for number in steps):
            return None
        routes = reduce(lambda bits, number: bits | 1 << number, steps, 0)
        return Selection(routes, self._index_of_conditions.asked_by(routes), self._steps)


def _steps(routes: Iterable[RouteConfig], conditions: Mapping[str, Condition]) -> list[Step]:
    """Return a step for each route. Targets whose deliveries can be merged get the same group number."""
    groups: dict[object, int] = {}
    found: list[Step] = []
    for route in routes:
        condition = conditions.get(route.id)
        rest = None if condition is None else condition.rest()
        targets = tuple(Target(route.id, entry.sink) for entry in route.sinks)
        numbers = tuple(groups.setdefault(same_message(route, entry), len(groups)) for entry in route.sinks)
        found.append(Step(route.id, condition, rest, targets, numbers, route.final))
    return found


def same_message(route: RouteConfig, entry: RouteSink) -> tuple[object, ...]:
    """Return the merge key of a route's deliveries to a sink.

    If two deliveries of an event have equal merge keys, they are merged into one. If the route overrides an option of
    the sink, its merge key contains the id of the route, so these deliveries are never merged with those of other
    routes. Every option of a route that changes the content or the time of a delivery must be considered here. If two
    routes with the same value of the option may share a delivery, the value belongs in the last tuple. Otherwise, the
    option belongs in the condition of the `if`.
    """
    if any(value is not None for name, value in entry if name != "sink"):
        return (entry.sink, route.id)
    return (entry.sink, "", route.expires)
