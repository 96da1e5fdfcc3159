"""The routes, and the sinks of routes, that the tests of a configuration reach; floor 4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from router.core.routing import UNMATCHED
from router.ops.cases.running import CaseResult
from router.ops.loading import Loaded


class SinkOfRoute(NamedTuple):
    """A sink that a route leads to."""

    route: str
    sink: str


class Coverage(msgspec.Struct, frozen=True):
    """The enabled routes and their sinks, and the routes and sinks that no test reached.

    A test reaches a route if the route takes an event of the test. A test reaches a sink of the route if a delivery of
    the route to this sink is sent or printed. The sinks of `unmatched` count as sinks of a route named `unmatched`.
    """

    routes: tuple[str, ...]
    missed_routes: tuple[str, ...]
    sinks: tuple[SinkOfRoute, ...]
    missed_sinks: tuple[SinkOfRoute, ...]

    @property
    def percent(self) -> float:
        """The share of routes and of sinks of routes that were reached, rounded down to a tenth of a percent."""
        all_ = len(self.routes) + len(self.sinks)
        missed = len(self.missed_routes) + len(self.missed_sinks)
        return 1000 * (all_ - missed) // all_ / 10 if all_ else 100.0


def coverage(loaded: Loaded, results: Iterable[CaseResult]) -> Coverage:
    """Return the coverage of a configuration by the tests with these results."""
    taken: set[str] = set()
    delivered: set[SinkOfRoute] = set()
    for result in results:
        for step in result.steps:
            taken.update(route.id for route in step.found.routes if route.matched)
            for delivery in step.found.deliveries:
                if delivery.delivers:
                    delivered.update(SinkOfRoute(route, delivery.sink) for route in (delivery.route, *delivery.merged))
    config = loaded.config
    enabled = [route for route in config.routes if route.enabled]
    sinks = [SinkOfRoute(route.id, each.sink) for route in enabled for each in route.sinks]
    if isinstance(config.unmatched, list):
        sinks += [SinkOfRoute(UNMATCHED, each.sink) for each in config.unmatched]
    return Coverage(
        tuple(route.id for route in enabled),
        tuple(route.id for route in enabled if route.id not in taken),
        tuple(sinks),
        tuple(each for each in sinks if each not in delivered),
    )
