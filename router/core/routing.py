"""Routing: the choice of sinks for an event; pure.

Conditions on source and channel are decided once per channel; the result is a `Plan`. Conditions on the event are part
of the plan. Channels with the same result share one plan.
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
"""The most remembered plans. Overlapping globs could make many more plans than there are routes."""


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
    """A route in the plan of a channel. It takes the events that meet its condition; None takes all.

    `rest` is the part of the condition that the index does not answer. `groups` has the group number of each target: for
    the targets of one group an event makes one delivery, by the first route that takes it.
    """

    route: str
    condition: Condition | None
    rest: Callable[[Any], bool] | None
    targets: tuple[Target, ...]
    groups: tuple[int, ...]
    final: bool


class Delivery(NamedTuple):
    """A delivery of an event, and the later routes whose equal delivery is merged into it."""

    target: Target
    merged: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, eq=False):
    """The plan for the events of one channel of one source: their schema, then the routes, in order.

    `unmatched` are the deliveries of an event that no step takes: those of `unmatched: [sink, …]`. `selection` is None where
    no step has a condition.
    """

    schema: SchemaRule | None
    steps: tuple[Step, ...]
    unmatched: tuple[Target, ...]
    selection: Selection | None = None

    @property
    def conditional(self) -> bool:
        """True if the event decides about the deliveries."""
        return self.selection is not None

    @property
    def asks_event(self) -> bool:
        """True if a step has a `when`, which is asked of the event and not of the payload alone."""
        return any(step.condition is not None and step.condition.when is not None for step in self.steps)

    def taken_by(self, payload: Any, subject: Subject | None = None) -> tuple[Step, ...]:
        """Return the steps that take an event: every one whose condition is met, until a final one.

        `subject` is the event itself. It is needed only where the plan `asks_event`.
        """
        return self.steps if self.selection is None else self.selection.taken_by(payload, subject)

    def deliveries(self, taken: tuple[Step, ...]) -> tuple[Target, ...]:
        """Return the deliveries of an event that these steps take, in the order of the routes: one message, once."""
        return tuple(delivery.target for delivery in merged(taken)) if taken else self.unmatched


class Selection(msgspec.Struct, frozen=True, eq=False):
    """The routes of a plan, as bits that are numbers of `steps`, and the paths that their conditions ask for."""

    routes: int
    paths: tuple[AskedPath, ...]
    steps: Sequence[Step]

    def taken_by(self, payload: Any, subject: Subject | None) -> tuple[Step, ...]:
        """Return the steps that take an event, until a final one."""
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
    """Return the deliveries of an event that these steps take, and which routes each of them stands for."""
    first: dict[int, Target] = {}
    others: dict[int, list[str]] = {}
    for step in taken:
        for target, group in zip(step.targets, step.groups, strict=True):
            if first.setdefault(group, target) is not target:
                others.setdefault(group, []).append(target.route)
    return [Delivery(target, tuple(others.get(group, ()))) for group, target in first.items()]


class Routing:
    """The routes and schemas of a configuration, compiled.

    `fallbacks` are the sinks that stand in for others, `conditions` those of routes that have some, by id.
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
        asked = conditions or {}
        self._sinks = {route.id: {entry.sink for entry in route.sinks} for route in routes}
        self._sinks[UNMATCHED] = self._sinks.get(UNMATCHED, set()) | {entry.sink for entry in unmatched}
        self._fallbacks = frozenset(fallbacks)
        self._schemas = schemas
        self._routes = [route for route in routes if route.enabled]
        self._steps = _steps(self._routes, asked)
        self._index_of_conditions = Index(
            {number: step.condition.clauses for number, step in enumerate(self._steps) if step.condition is not None}
        )
        self._unmatched = tuple(Target(UNMATCHED, entry.sink) for entry in unmatched)
        self._indexes: dict[str, ChannelIndex[Plan]] = {}
        self._found: dict[tuple[int, ...], Plan] = {}
        """The plan by what the index found."""
        self._plans: dict[tuple[int | None, ...], Plan] = {}
        """The plan by what counts of that: the first schema, and the routes until a final one."""

    @property
    def in_force(self) -> list[str]:
        """The ids of the routes that are enabled, in the order of the configuration."""
        return [route.id for route in self._routes]

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
            plan = Plan(rule, tuple(self._steps[number] for number in steps), self._unmatched, self._selection(steps))
            self._plans[schema, *steps] = plan
        self._found[found] = plan
        return plan

    def _selection(self, steps: Sequence[int]) -> Selection | None:
        """Return how the steps of these numbers are chosen; None where none of them has a condition."""
        if all(self._steps[number].condition is None for number in steps):
            return None
        routes = reduce(lambda bits, number: bits | 1 << number, steps, 0)
        return Selection(routes, self._index_of_conditions.asked_by(routes), self._steps)


def _steps(routes: Iterable[RouteConfig], conditions: Mapping[str, Condition]) -> list[Step]:
    """Return a step for each route, their targets grouped by what makes one message of them."""
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
    """Return what has to be equal in two routes for their deliveries to one sink to be one message.

    Whatever a route overrides of a sink makes its delivery one of its own. Every key of a route that changes what is
    delivered, or when, belongs here: a key that two routes may have alike into the tuple, any other into the test.
    """
    if any(value is not None for name, value in entry if name != "sink"):
        return (entry.sink, route.id)
    return (entry.sink, "", route.expires)
