"""The keys of a route that ask nothing of an event's payload."""

from router.config.models import RouteConfig
from router.core.wiring.reach import CONDITIONLESS

CONDITIONS = {"match", "when"}


def test_every_key_of_a_route_asks_something_of_the_payload_or_is_known_not_to():
    """A new key belongs to one of the two: else each route that has it would be taken for one that lets events pass."""
    assert {*CONDITIONLESS, *CONDITIONS} == set(RouteConfig.model_fields)
    assert not CONDITIONLESS & CONDITIONS
