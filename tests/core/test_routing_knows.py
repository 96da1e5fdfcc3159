from __future__ import annotations

import pytest

from router.config.models import RouteConfig, RouteSink
from router.core.routing import UNMATCHED, Routing


@pytest.mark.parametrize(
    ("route", "sink", "known"),
    [
        ("notify", "mail", True),
        ("notify", "chat", False),
        ("notify", "spare", True),
        ("asleep", "chat", True),
        ("gone", "mail", False),
        ("gone", "spare", False),
        (UNMATCHED, "log", True),
        (UNMATCHED, "mail", False),
    ],
)
def test_a_route_knows_its_sinks_and_those_that_stand_in(route, sink, known):
    routes = [
        RouteConfig(id="notify", sinks=[RouteSink(sink="mail")]),
        RouteConfig(id="asleep", sinks=[RouteSink(sink="chat")], enabled=False),
    ]
    routing = Routing(routes, [], [RouteSink(sink="log")], ["spare"])
    assert routing.knows(route, sink) is known
