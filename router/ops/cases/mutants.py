"""Mutation testing of a configuration: small changes of its routes that a test should notice; floor 4.

A mutant is the configuration with one change. If every test passes with a mutant, the mutant *survives*. Then no test
checks the changed part of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from router.config.cases import Case
from router.config.models import RouteConfig
from router.core.conditions.clauses import Node, Not
from router.core.conditions.condition import Condition, When
from router.core.conditions.match import Match
from router.core.matching import any_of
from router.core.rendering.expressions import Expression
from router.core.wiring.channel_sets import meet
from router.core.wiring.reach import Reach, globs_of
from router.ops.cases.running import CaseResult, CaseRunner
from router.ops.loading import Loaded
from router.ops.simulation import Simulation

_NEVER = ("never holds", "always false", "no event reaches", " reads a channel that ")
"""Words in warnings of `check`. A warning with one of these words is about a condition that no event meets, or about a
route that no event reaches."""


class Mutant(msgspec.Struct, frozen=True):
    """A change of the configuration.

    `place` is the place in the file, `change` describes the change, and `make` returns the changed configuration.
    `concerns` returns False for simulated events that the change can't affect. `route` is the number of the changed
    route; None for a change of a sink. `hint` names the reason why no test can notice the change, if the reason is
    known.
    """

    place: str
    change: str
    make: Callable[[], Loaded]
    concerns: Callable[[Simulation], bool]
    route: int | None = None
    hint: str = ""


class Mutation:
    """The mutants of a configuration that passes all its tests. `results` are the results without a change.

    For speed, only the change of a mutant is compiled, and only the tests that the change may affect are run. The first
    failed test ends the run of a mutant.
    """

    def __init__(self, loaded: Loaded, results: Iterable[CaseResult]) -> None:
        self._loaded = loaded
        self._results = list(results)
        found = [step.found for result in self._results for step in result.steps]
        self._taken = {route.id for each in found for route in each.routes if route.matched}
        self.mutants = tuple(_Mutator(loaded).mutants())

    def survivors(self, tried: Callable[[int], None] = lambda _number: None) -> Iterator[Mutant]:
        """Yield the mutants that no test notices; `tried` is called with 1 after each mutant."""
        for mutant in self.mutants:
            cases = [each.case for each in self._results if any(mutant.concerns(step.found) for step in each.steps)]
            if not _noticed(mutant, cases):
                yield msgspec.structs.replace(mutant, hint=self._hint(mutant, cases))
            tried(1)

    def _hint(self, mutant: Mutant, cases: Sequence[Case]) -> str:
        """Return a hint if no test can notice the mutant, because no test has an event for the changed part; else ""."""
        if mutant.route is None:
            message = "no test makes a delivery to this sink: add a test with an event that reaches the sink"
            return "" if cases else message
        route = self._loaded.config.routes[mutant.route]
        if route.id in self._taken:
            return ""
        warning = _warning(self._loaded, mutant.route)
        if warning:
            return f"no test has an event that this route takes; `check` warns about this route: {warning}"
        return "no test has an event that this route takes: add such a test (`explain` shows why the route does not take an event)"


def _warning(loaded: Loaded, number: int) -> str:
    """Return the first warning of `check` with a reason why a route may never take an event; empty if there is none."""
    path = f"routes[{number}]"
    about = (f"{path}.match", f"{path}.when", f"{path}.channels", f"{path}.sources")
    found = (each for each in loaded.problems if each.path == path or each.path.startswith(about))
    messages = (each.message for each in found if each.severity == "warning")
    return next((message for message in messages if any(words in message for words in _NEVER)), "")


def _noticed(mutant: Mutant, cases: Sequence[Case]) -> bool:
    if not cases:
        return False
    runner = CaseRunner(mutant.make())
    return not all(runner.holds(case) for case in cases)


class _Mutator:
    """Makes the mutants: first for the enabled routes, in order, then for the `only_if` of each sink."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._config = loaded.config
        self._reach = Reach(loaded.config.sources, [], loaded.config.routes)

    def mutants(self) -> Iterator[Mutant]:
        """Yield every mutant."""
        for number, route in enumerate(self._config.routes):
            if route.enabled:
                yield from self._of_conditions(number, route)
                if route.final and self._leads_on(number, route):
                    place = self._place(f"routes[{number}].final", f"routes[{number}]")
                    flipped = self._with_route(number, route.model_copy(update={"final": False}))
                    yield Mutant(place, f"route {route.id}: `final` removed", flipped, _taken(route.id), number)
                dropped = self._with_route(number, None)
                yield Mutant(
                    self._place(f"routes[{number}]"), f"route {route.id} removed", dropped, _taken(route.id), number
                )
                yield from self._of_overrides(number, route)
        for sink in self._config.sinks:
            if (sink, None) in self._loaded.only_if:
                source = str(self._config.sinks[sink].host.only_if)
                yield self._only_if((sink, None), source, self._place(*self._of_sink(sink)), f"sink {sink}")

    def _of_conditions(self, number: int, route: RouteConfig) -> Iterator[Mutant]:
        """Yield one mutant for each entry of `match`, and the mutant of `when`."""
        condition = self._loaded.conditions.get(route.id)
        if condition is None:
            return
        for node in condition.clauses:
            change = f"route {route.id}: `match` negated: {node.text}"
            yield Mutant(node.place, change, self._with_clause(route.id, condition, node), _reached(route), number)
        if condition.when is not None:
            place = self._place(f"routes[{number}].when", f"routes[{number}]")
            negated = self._with_when(route, condition)
            yield Mutant(
                place, f"route {route.id}: `when` negated: {_line(route.when)}", negated, _reached(route), number
            )

    def _of_overrides(self, number: int, route: RouteConfig) -> Iterator[Mutant]:
        for position, target in enumerate(route.sinks):
            if (target.sink, route.id) in self._loaded.only_if:
                path = f"routes[{number}].sinks[{position}]"
                told = f"route {route.id}, sink {target.sink}"
                key = (target.sink, route.id)
                mutant = self._only_if(key, str(target.only_if), self._place(f"{path}.only_if", path), told)
                yield msgspec.structs.replace(mutant, route=number)

    def _only_if(self, key: tuple[str, str | None], source: str, place: str, told: str) -> Mutant:
        loaded = self._loaded

        def make() -> Loaded:
            negated = Expression(f"not ({source}\n)", loaded.environment.with_lookups, "only_if")
            return replace(loaded, only_if={**loaded.only_if, key: negated})

        return Mutant(place, f"{told}: `only_if` negated: {_line(source)}", make, _delivered(*key))

    def _with_route(self, number: int, route: RouteConfig | None) -> Callable[[], Loaded]:
        """Return a function that returns the configuration with one route replaced, or removed if `route` is None."""

        def make() -> Loaded:
            routes = list(self._config.routes)
            routes[number : number + 1] = [] if route is None else [route]
            return replace(self._loaded, config=self._config.model_copy(update={"routes": routes}))

        return make

    def _with_clause(self, route: str, condition: Condition, negated: Node) -> Callable[[], Loaded]:
        def make() -> Loaded:
            clauses = tuple(Not((node,), node.place) if node is negated else node for node in condition.clauses)
            return self._with(route, Condition(Match(clauses), condition.when))

        return make

    def _with_when(self, route: RouteConfig, condition: Condition) -> Callable[[], Loaded]:
        def make() -> Loaded:
            when = When(f"not ({route.when}\n)", self._loaded.environment)
            return self._with(route.id, Condition(condition.match, when))

        return make

    def _with(self, route: str, condition: Condition) -> Loaded:
        return replace(self._loaded, conditions={**self._loaded.conditions, route: condition})

    def _leads_on(self, number: int, route: RouteConfig) -> bool:
        """Return whether a later route may take an event that this route takes. If not, `final` has no effect."""
        for later in self._config.routes[number + 1 :]:
            shared = set(self._reach.sources_of(route)) & set(self._reach.sources_of(later))
            for source in shared if later.enabled else ():
                if meet(self._reach.reads[source], globs_of(route), globs_of(later)):
                    return True
        return False

    def _of_sink(self, sink: str) -> tuple[str, ...]:
        """Return the paths at which the `only_if` of a sink may be written, in order of priority."""
        kind = self._loaded.types[sink].name
        own = next((path for path in (f"sinks.{sink}", f'sinks."{sink}"') if path in self._loaded.places), "sinks")
        return f"{own}.only_if", f"defaults.{kind}.only_if", "defaults.all.only_if", own

    def _place(self, *paths: str) -> str:
        """Return the place of the first of these paths that the configuration contains."""
        places: Mapping[str, Any] = self._loaded.places
        mark = next(places[path] for path in paths if path in places)
        return f"{mark.file.name}:{mark.line}:{mark.column}"


def _line(source: Any) -> str:
    return " ".join(str(source).split())


def _taken(route: str) -> Callable[[Simulation], bool]:
    """Return a predicate for simulations: True if the route takes the event."""
    return lambda found: any(each.matched for each in found.routes if each.id == route)


def _reached(route: RouteConfig) -> Callable[[Simulation], bool]:
    """Return a predicate for simulations: True if the event is from a source and channel of the route."""
    channels = any_of(["*"] if route.channels is None else route.channels)

    def concerns(found: Simulation) -> bool:
        event = found.event
        of_source = route.sources is None or event.source in route.sources
        return of_source and channels(event.channel.encode("utf-8", "surrogateescape"))

    return concerns


def _delivered(sink: str, route: str | None) -> Callable[[Simulation], bool]:
    """Return a predicate for simulations: True if `route` makes a delivery to the sink (None: if any route does)."""
    return lambda found: any(each.sink == sink and route in {None, each.route} for each in found.deliveries)
