"""What is said of each route agrees with the verdict on the event."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from router.config.models import RouteConfig, RouteSink
from router.core.conditions import Condition, When, compile_match
from router.core.conditions.route_checks import Asked, Step, checks
from router.core.decoding import SourceFormat
from router.core.rendering import TemplateEnvironment
from router.core.routing import Routing
from router.core.verdict import Routed, judge, opened
from router.events import JSON, Event

ENVIRONMENT = TemplateEnvironment()
MATCHES = [{"n": 1}, {"n": {"gte": 0, "lt": 3}, "k": "a"}, {"any": [{"n": 2}, {"k": "b"}]}, {"k": {"exists": False}}]
WHENS = ["payload.n > 1", "event.channel == 'a.b'", "route == 'r1'", "payload.n / 0 > 1"]


@st.composite
def routes(draw):
    made, asked = [], {}
    for number in range(draw(st.integers(1, 5))):
        match, when = draw(st.none() | st.sampled_from(MATCHES)), draw(st.none() | st.sampled_from(WHENS))
        made.append(
            RouteConfig(
                id=f"r{number}",
                sinks=[RouteSink(sink="log")],
                channels=draw(st.sampled_from([None, None, ["a.*"], ["b"]])),
                sources=draw(st.sampled_from([None, None, ["web"], ["shop"]])),
                when=when,
                final=draw(st.sampled_from([False, False, True])),
                enabled=draw(st.sampled_from([True, True, False])),
            )
        )
        if match or when:
            asked[f"r{number}"] = Condition(
                compile_match(match) if match else None, When(when, ENVIRONMENT) if when else None
            )
    return made, asked


@given(
    routes(),
    st.sampled_from([b"a.b", b"b", b"\xff"]),
    st.sampled_from([b"{}", b'{"n": 1}', b'{"n": 2, "k": "a"}', b'{"n": "x", "k": "b"}', b"[1]"]),
)
def test_a_route_takes_an_event_when_all_its_conditions_held(configured, channel, raw):
    made, asked = configured
    event = Event("1", "web", channel.decode("utf-8", "backslashreplace"), None, datetime(2026, 1, 2, tzinfo=UTC), raw)
    verdict = judge(
        event, SourceFormat("web", JSON, 100), Routing(made, [], conditions=asked).plan("web", channel), 0.0
    )
    taken = [step.route for step in verdict.because] if isinstance(verdict, Routed) else []
    subject = Asked(opened(event, verdict.message), channel, 0.0)
    stopped_by = None
    for route in made:
        found = checks(route, asked.get(route.id), subject, stopped_by)
        assert all(check.held for check in found) == (route.id in taken)
        if route.final and route.id in taken:
            stopped_by = route.id
    for failure in verdict.failures:
        (route,) = (each for each in made if each.id == failure.route)
        found = checks(route, asked[route.id], subject)
        assert [check.step for check in found if check.saw.startswith("it failed")] == [Step.WHEN]
