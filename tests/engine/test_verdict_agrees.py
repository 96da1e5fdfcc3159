"""The pipeline's fast loop and `core.verdict` decide the same, whatever comes and however it is bundled."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from router.config.models import RouteConfig, RouteSink
from router.core.accounts.books import Books, SinkBook, SourceBook
from router.core.conditions import Condition, When, compile_match
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.core.rendering import TemplateEnvironment
from router.core.routing import Routing, SchemaRule
from router.core.validation import compile_schema
from router.core.verdict import Rejected, Unmatched, judge
from router.engine.clock import SystemClock
from router.engine.expression_failures import ExpressionFailures
from router.engine.intake.channels import NO_ROUTE_OF_CHANNEL, NO_ROUTE_OF_EVENT
from router.engine.intake.pipeline import Pipeline
from router.events import CLOUDEVENTS, JSON, TEXT, Event, RawBatch
from tests.support.engine import Letters

SINKS = ("log", "mail", "chat")
CHANNELS = (b"a.b", b"a.c", b"b", b"\xff")
PATTERNS = ("a.*", "a.b", "b", "*", "[ab]*", "*.c")
SCHEMAS = [
    compile_schema(schema, uri="schema:///s", retrieve=lambda _uri: None)
    for schema in ({"type": "integer"}, {"type": ["integer", "object"], "required": ["n"]}, {"minLength": 2})
]

payloads = st.one_of(
    st.integers(-5, 5).map(lambda n: b"%d" % n),
    st.integers(-5, 5).map(lambda n: b'{"n": %d, "id": "i%d"}' % (n, n)),
    st.sampled_from([b"", b"{", b"null", b"[]", b"\xff", b"[" * 50_000, b'"' + b"x" * 60_000 + b'"']),
)
envelopes = payloads.map(lambda data: b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":%b}' % data)

MATCHES = [
    {"n": 1},
    {"n": {"gte": 0, "lt": 4}},
    {"n": {"gt": 1}},
    {"n": {"exists": False}},
    {"id": {"prefix": "i"}},
    {"n": [1, 2], "id": {"regex": "^i.$"}},
    {"any": [{"n": -1}, {"id": {"suffix": "2"}}]},
]
WHENS = ["payload.n > 1", "payload == 1", "event.channel == 'a.b'", "route == 'r1'", "payload.n / 0 > 1"]
ENVIRONMENT = TemplateEnvironment()
conditions = st.none() | st.builds(
    Condition,
    st.none() | st.sampled_from(MATCHES).map(compile_match),
    st.none() | st.sampled_from(WHENS).map(lambda source: When(source, ENVIRONMENT)),
)


@st.composite
def routings(draw):
    names = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True)
    sinks = st.lists(st.sampled_from(SINKS), min_size=1, max_size=3, unique=True)
    routes = [
        RouteConfig(
            id=f"r{number}",
            sinks=[RouteSink(sink=sink) for sink in draw(sinks)],
            channels=draw(st.none() | names),
            sources=draw(st.none() | st.just(["web"]) | st.just(["shop"])),
            expires=draw(st.sampled_from([None, None, "{{ payload.until }}"])),
            final=draw(st.sampled_from([False, False, True])),
            enabled=draw(st.sampled_from([True, True, True, False])),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    schemas = [
        SchemaRule(draw(names), f"{number}.json", mode, None if mode == "off" else draw(st.sampled_from(SCHEMAS)))
        for number, mode in enumerate(
            draw(st.lists(st.sampled_from(["enforce", "enforce", "warn", "off"]), max_size=3))
        )
    ]
    unmatched = [RouteSink(sink=sink) for sink in draw(st.just([]) | sinks)]
    asked = {route.id: condition for route in routes if (condition := draw(conditions)) is not None}
    return Routing(routes, schemas, unmatched, conditions=asked)


class Hears:
    """A receipt that keeps what is expected of each position."""

    def __init__(self):
        self.expected = {}

    def expect(self, position, deliveries):
        assert position not in self.expected
        self.expected[position] = deliveries

    def settle(self, position):
        raise AssertionError("nothing is over yet")


@given(
    routing=routings(),
    source=st.sampled_from(
        [
            SourceFormat("web", JSON, 60_000),
            SourceFormat("web", TEXT, 60_000),
            SourceFormat("web", JSON, 60_000, ("id",)),
            SourceFormat("web", CLOUDEVENTS, 60_000),
        ]
    ),
    chunks=st.lists(
        st.lists(st.tuples(st.sampled_from(CHANNELS), st.lists(payloads | envelopes, min_size=1, max_size=5))),
        min_size=1,
        max_size=3,
    ),
    acknowledged=st.booleans(),
    keep=st.booleans(),
)
def test_the_pipeline_does_what_the_verdict_says(routing, source, chunks, acknowledged, keep):
    inboxes = {sink: [] for sink in SINKS}
    books = Books({"web": SourceBook()}, {sink: SinkBook() for sink in SINKS})
    books.use_routes(routing.in_force)
    letters = Letters()
    evaluations = ExpressionFailures()

    def put(sink):
        def take(events, size):
            assert size == sum(len(event.raw) for event in events)
            inboxes[sink] += events

        return take

    pipeline = Pipeline(
        formats=[source],
        routing=routing,
        inboxes={sink: put(sink) for sink in SINKS},
        dead_letters=letters,
        books=books,
        clock=SystemClock(),
        ids=Ids("test"),
        keep_unmatched=keep,
        failures=evaluations,
    )
    deliveries, kept, counts, failures = [], Counter(), Counter(), 0
    taken, warned = Counter(), 0
    for chunk in chunks:
        batches = [
            RawBatch(channel, None, messages, None, None, Hears() if acknowledged else None)
            for channel, messages in chunk
        ]
        pipeline.receive("web", batches)
        for batch in batches:
            plan = routing.plan("web", batch.channel)
            for position, raw in enumerate(batch.payloads):
                name = batch.channel.decode("utf-8", "backslashreplace")
                event = Event("", source.name, name, None, datetime.now(UTC), raw)
                found = judge(event, source, plan, 0.0)
                if isinstance(found, Rejected):
                    counts["rejected"] += 1
                    expected = 1
                    kept[str(found.reason), raw, found.detail] += 1
                else:
                    unmatched = isinstance(found, Unmatched)
                    failures += len(found.failures)
                    warned += bool(found.violations)
                    taken.update(() if unmatched else (step.route for step in found.because))
                    counts["unmatched" if unmatched else "routed"] += 1
                    made = [(t.sink, t.route, batch.channel, found.message.data) for t in found.deliveries]
                    deliveries += made
                    expected = len(made)
                    if unmatched and not made and keep:
                        expected = 1
                        reason = NO_ROUTE_OF_EVENT if plan.steps else NO_ROUTE_OF_CHANNEL
                        kept["unmatched", raw, reason] += 1
                if acknowledged:
                    assert batch.receipt.expected[position] == expected
    seen = [(e.sink, e.route, e.channel, e.raw) for sink in SINKS for e in inboxes[sink]]
    wanted = [(s, r, c.decode("utf-8", "backslashreplace"), raw) for s, r, c, raw in deliveries]
    for sink in SINKS:
        for route in {each[1] for each in wanted}:  # of a route, a sink gets the events in the order they came
            mine = [each for each in wanted if each[:2] == (sink, route)]
            assert [each for each in seen if each[:2] == (sink, route)] == mine
    assert Counter(seen) == Counter(wanted)
    assert Counter((letter.reason, letter.payload, letter.detail) for letter in letters.kept) == kept
    assert evaluations.counts.total() == failures
    book = books.sources["web"]
    assert (book.rejected.total(), book.unmatched, book.routed) == tuple(
        counts[name] for name in ("rejected", "unmatched", "routed")
    )
    assert book.received == counts.total()
    assert book.schema_warnings == warned
    assert {name: route.events for name, route in books.routes.items()} == {
        name: taken[name] for name in routing.in_force
    }
