"""From raw messages to deliveries: every event ends in exactly one place."""

import json
import tracemalloc
from datetime import UTC, datetime

import msgspec
import pytest
from structlog.testing import capture_logs as capturing

from router.config.models import RouteConfig, RouteSink
from router.core.accounts.books import Books, SinkBook, SourceBook
from router.core.conditions import Condition, When, compile_match
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.core.rendering import TemplateEnvironment
from router.core.routing import Routing, SchemaRule
from router.core.validation import DETAIL_BYTES, compile_schema
from router.engine.clock import SystemClock
from router.engine.expression_failures import ExpressionFailures
from router.engine.intake.channels import MOST_CHANNELS
from router.engine.intake.pipeline import Pipeline
from router.errors import Reason
from router.events import CLOUDEVENTS, JSON, TEXT, RawBatch
from tests.support.engine import Letters

SCHEMA = compile_schema(
    {"type": "object", "required": ["user_id", "message"], "properties": {"user_id": {"type": "integer"}}},
    uri="schema:///n.json",
    retrieve=lambda _uri: None,
)


@pytest.fixture
def capture_logs():
    with capturing() as lines:
        yield lines


class Run:
    """A pipeline with sinks `log` and `mail` that keep what they are handed."""

    def __init__(
        self,
        routes=None,
        *,
        mode="enforce",
        unmatched=(),
        keep_unmatched=False,
        max_bytes=1000,
        text=False,
        format=JSON,  # noqa: A002  # the configuration's word
        id_path=(),
        schema=SCHEMA,
        schema_channels=("notification",),
        clock=None,
        conditions=None,
    ):
        self.inboxes = {"log": [], "mail": []}
        self.puts = []
        self.letters = Letters()
        self.failures = ExpressionFailures()
        self.books = Books({"web": SourceBook()}, {name: SinkBook() for name in self.inboxes})
        routes = routes or [RouteConfig(id="all", sinks=[RouteSink(sink="log")])]
        rules = [SchemaRule(schema_channels, "n.json", mode, None if mode == "off" else schema)]
        routing = Routing(routes, rules, unmatched, conditions=conditions)
        self.books.use_routes(routing.in_force)
        self.pipeline = Pipeline(
            formats=[SourceFormat("web", TEXT if text else format, max_bytes, id_path)],
            routing=routing,
            inboxes={name: self._put(name) for name in self.inboxes},
            dead_letters=self.letters,
            books=self.books,
            clock=clock or SystemClock(),
            ids=Ids("test"),
            keep_unmatched=keep_unmatched,
            failures=self.failures,
        )

    def _put(self, name):
        def put(events, size):
            assert size == sum(len(event.raw) for event in events)
            self.puts.append(name)
            self.inboxes[name] += events

        return put

    def receive(self, *payloads, channel=b"notification", pattern=None):
        self.pipeline.receive("web", [RawBatch(channel, pattern, list(payloads))])

    @property
    def book(self):
        return self.books.sources["web"]


GOOD = b'{"user_id": 42, "message": "hi"}'


ROUTE_LOG = RouteConfig(id="all", sinks=[RouteSink(sink="log")])
ROUTE_BOTH = RouteConfig(id="both", sinks=[RouteSink(sink="log"), RouteSink(sink="mail")])
ROUTE_ELSEWHERE = RouteConfig(id="all", sinks=[RouteSink(sink="log")], channels=["elsewhere"])


@pytest.mark.parametrize(
    "configured",
    [
        {},
        {"mode": "warn"},
        {"mode": "off"},
        {"text": True, "mode": "off"},
        {"format": CLOUDEVENTS},
        {"id_path": ("user_id",)},
        {"routes": [ROUTE_BOTH]},
        {"routes": [ROUTE_LOG, ROUTE_BOTH]},
        {"routes": [ROUTE_ELSEWHERE]},
        {"routes": [ROUTE_ELSEWHERE], "keep_unmatched": True},
        {"routes": [ROUTE_ELSEWHERE], "unmatched": [RouteSink(sink="mail")]},
        {"conditions": {"all": Condition(compile_match({"user_id": 42}))}},
    ],
    ids=lambda configured: "-".join(configured) or "plain",
)
def test_messages_that_come_alone_end_as_in_a_chunk(configured):
    bad = [b"no JSON", b'{"user_id": "x", "message": 1}', b"\xff", b'"' + b"x" * 1000 + b'"', b"[" * 1000, b""]
    payloads = [GOOD, *bad, b'{"user_id": 7, "message": "ho"}', GOOD]
    together, alone = Run(**configured), Run(**configured)
    together.receive(*payloads)
    for payload in payloads:
        alone.receive(payload)
    assert msgspec.to_builtins(alone.books) == msgspec.to_builtins(together.books)
    ends = [
        {
            name: [(event.raw, event.route, event.channel, event.format, event.headers) for event in events]
            for name, events in run.inboxes.items()
        }
        for run in (alone, together)
    ]
    assert ends[0] == ends[1]
    letters = [
        sorted((letter.payload, letter.reason, letter.detail) for letter in run.letters.kept)
        for run in (alone, together)
    ]
    assert letters[0] == letters[1]


def test_a_good_event_goes_to_its_sink():
    run = Run()
    run.receive(GOOD)
    (event,) = run.inboxes["log"]
    assert (event.source, event.channel, event.pattern, event.route, event.sink) == (
        "web",
        "notification",
        None,
        "all",
        "log",
    )
    assert event.raw == GOOD
    assert event.received_at.utcoffset().total_seconds() == 0
    assert (run.book.received, run.book.routed, run.book.unmatched) == (1, 1, 0)


def test_a_bad_event_is_a_letter_that_names_every_error_and_its_neighbours_are_delivered():
    run = Run()
    run.receive(*[GOOD] * 500, b'{"user_id": "42"}', *[GOOD] * 500)
    assert len(run.inboxes["log"]) == 1000
    (letter,) = run.letters.kept
    assert (letter.reason, letter.source, letter.channel, letter.payload) == (
        "schema",
        "web",
        "notification",
        b'{"user_id": "42"}',
    )
    assert {(one["pointer"], one["keyword"]) for one in json.loads(letter.detail)} == {
        ("/user_id", "type"),
        ("/message", "required"),
    }
    assert run.book.rejected == {Reason.SCHEMA: 1}
    assert run.book.received == 1001 == run.book.routed + run.book.rejected.total()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(b"{", "decode"), (b"", "decode"), (b"\xff", "decode"), (b'"' + b"x" * 1000 + b'"', "too_large")],
)
def test_what_can_not_be_read_is_a_letter(raw, reason):
    run = Run()
    run.receive(GOOD, raw, GOOD)
    assert [letter.reason for letter in run.letters.kept] == [reason]
    assert run.letters.kept[0].payload == raw
    assert len(run.inboxes["log"]) == 2


def test_every_delivery_that_goes_to_a_queue_is_planned_in_its_sinks_book():
    run = Run()
    run.receive(GOOD, b"{", GOOD)
    (first, _) = run.inboxes["log"]
    run.pipeline.deliver([first])
    run.pipeline.hand_over("log", first)
    assert run.books.sinks["log"].planned == len(run.inboxes["log"]) == 4


def test_text_needs_no_json():
    run = Run(text=True)
    run.receive(b"whoami", channel=b"command")
    assert [event.payload for event in run.inboxes["log"]] == ["whoami"]


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_a_schema_that_does_not_enforce_lets_pass(mode):
    run = Run(mode=mode)
    run.receive(b'{"user_id": "42"}', b"{broken")
    run.receive(GOOD)
    assert len(run.inboxes["log"]) == 2
    assert [letter.reason for letter in run.letters.kept] == ["decode"]
    assert run.book.schema_warnings == (mode == "warn")


def test_fan_out_keeps_the_order_and_the_id():
    routes = [
        RouteConfig(id="first", sinks=[RouteSink(sink="log"), RouteSink(sink="mail")]),
        RouteConfig(id="second", sinks=[RouteSink(sink="log")], expires="15m"),
    ]
    run = Run(routes)
    run.receive(b'{"user_id": 1, "message": ""}', b'{"user_id": 2, "message": ""}')
    mails = run.inboxes["mail"]
    assert [event.payload["user_id"] for event in mails] == [1, 2]
    logs = {(event.id, event.route) for event in run.inboxes["log"]}
    assert logs == {(mail.id, route) for mail in mails for route in ("first", "second")}
    assert run.book.routed == 2


def test_routes_to_the_same_sinks_whose_messages_differ_make_one_delivery_each():
    expires = (None, "15m", "1h")
    routes = [
        RouteConfig(id=f"r{n}", sinks=[RouteSink(sink="log"), RouteSink(sink="mail")], expires=each)
        for n, each in enumerate(expires)
    ]
    run = Run(routes)
    run.receive(GOOD, GOOD)
    for name in ("log", "mail"):
        assert sorted(event.route for event in run.inboxes[name]) == ["r0", "r0", "r1", "r1", "r2", "r2"]
        assert len({event.key for event in run.inboxes[name]}) == 6


def test_routes_that_send_the_same_message_to_a_sink_make_one_delivery_by_the_first_of_them():
    routes = [
        RouteConfig(id="first", sinks=[RouteSink(sink="mail")]),
        RouteConfig(id="second", sinks=[RouteSink(sink="log"), RouteSink(sink="mail")]),
        RouteConfig(id="third", sinks=[RouteSink(sink="log")]),
    ]
    run = Run(routes)
    run.receive(GOOD, GOOD)
    assert {name: [event.route for event in events] for name, events in run.inboxes.items()} == {
        "mail": ["first", "first"],
        "log": ["second", "second"],
    }
    assert run.book.routed == 2
    assert run.books.sinks["log"].planned == 2


def test_a_when_that_can_not_be_evaluated_takes_no_event_and_is_counted_and_told_of_once_for_each_kind():
    routes = [RouteConfig(id=name, sinks=[RouteSink(sink="log")]) for name in ("shares", "numbers")]
    environment = TemplateEnvironment()
    conditions = {
        "shares": Condition(when=When("100 / payload.user_id > 5", environment)),
        "numbers": Condition(compile_match({"user_id": {"lt": 10}})),
    }
    run = Run(routes, conditions=conditions)
    with capturing() as logs:
        run.receive(*(b'{"user_id": %d, "message": "secret"}' % n for n in (0, 0, 5, 50, 0)))
    assert [(event.payload["user_id"], event.route) for event in run.inboxes["log"]] == [
        (0, "numbers"),
        (0, "numbers"),
        (5, "shares"),
        (0, "numbers"),
    ]
    assert run.failures.counts == {"routes.shares.when": 3}
    assert run.book.unmatched == 1
    lines = [line for line in logs if line["event"] == "an expression could not be evaluated"]
    (line,) = lines
    assert line["expression"] == "routes.shares.when"
    assert line["effect"] == "the route does not take the event"
    assert line["event_id"] == run.inboxes["log"][0].id
    assert "secret" not in str(line)


def routes_to(sink, *ids, **keys):
    return [RouteConfig(id=name, sinks=[RouteSink(sink=sink)], **keys) for name in ids]


def counts(run):
    return {name: book.events for name, book in run.books.routes.items()}


def test_routes_count_the_events_that_they_take_also_where_another_one_makes_the_delivery():
    routes = [
        *routes_to("log", "everything", "hasty"),
        *routes_to("mail", "last", channels=["notification"], final=True),
        *routes_to("log", "behind"),
        *routes_to("log", "off", enabled=False),
    ]
    run = Run(routes, conditions={"hasty": Condition(compile_match({"user_id": 7}))})
    assert counts(run) == {"everything": 0, "hasty": 0, "last": 0, "behind": 0}
    run.receive(*[GOOD] * 3, GOOD.replace(b"42", b"7"), b"{", GOOD)
    run.receive(*[GOOD] * 2, channel=b"other")
    assert counts(run) == {"everything": 7, "hasty": 1, "last": 5, "behind": 2}
    assert len(run.inboxes["log"]) == 7
    run.pipeline.again("web", RawBatch(b"notification", None, [GOOD]), datetime.now(UTC))
    assert counts(run) == {"everything": 8, "hasty": 1, "last": 6, "behind": 2}


def test_routes_to_one_sink_whose_events_come_in_turn_are_told_apart():
    """Their events go to the sink together: by payload, by channel, and by several routes at once."""
    routes = [*routes_to("log", "odd", "small"), *routes_to("log", "a", channels=["a"]), *routes_to("log", "b")]
    conditions = {
        "odd": Condition(compile_match({"odd": True})),
        "small": Condition(compile_match({"n": {"lt": 5}})),
        "b": Condition(compile_match({"b": 1})),
    }
    run = Run(routes, conditions=conditions, schema_channels=("none",))
    events = [json.dumps({"odd": bool(n % 2), "n": n}).encode() for n in range(11)]
    run.receive(*events)
    batch = [RawBatch(b"ab"[n % 2 :][:1], None, [each]) for n, each in enumerate(events)]
    run.pipeline.receive("web", batch)
    assert counts(run) == {"odd": 10, "small": 10, "a": 6, "b": 0}
    assert run.puts == ["log", "log"]
    assert run.book.unmatched == 3


def test_plain_channels_of_different_routes_to_one_sink_are_told_apart():
    run = Run([*routes_to("log", "a", channels=["a"]), *routes_to("log", "b", channels=["b"])], schema_channels=("c",))
    run.pipeline.receive("web", [RawBatch(name, None, [b"1"] * 2) for name in (b"a", b"a", b"b", b"a", b"none", b"b")])
    assert counts(run) == {"a": 6, "b": 4}
    assert [event.route for event in run.inboxes["log"]] == ["a"] * 4 + ["b"] * 2 + ["a"] * 2 + ["b"] * 2


@pytest.mark.parametrize(("most", "bounded"), [(2_000, True), (1_000_000, False)])
def test_events_that_are_all_taken_by_other_routes_do_not_fill_the_memory(monkeypatch, most, bounded):
    monkeypatch.setattr("router.engine.intake.channels.MOST_ENDINGS", most)
    routes = [RouteConfig(id=f"r{n}", sinks=[RouteSink(sink="log")]) for n in range(12)]
    conditions = {f"r{n}": Condition(compile_match({f"flags.{n}": 1})) for n in range(12)}
    run = Run(routes, conditions=conditions, schema_channels=("other",))
    payloads = [b'{"flags": [%b]}' % b",".join(b"%d" % (n >> bit & 1) for bit in range(12)) for n in range(1, 4096)]
    run.receive(*payloads[:1])
    tracemalloc.start()
    try:
        run.receive(*payloads)
        routed = [event.route for event in run.inboxes["log"][1:]]
        run.inboxes["log"].clear()
        assert (tracemalloc.get_traced_memory()[0] < 600_000) is bounded
    finally:
        tracemalloc.stop()
    assert routed == [f"r{(n & -n).bit_length() - 1}" for n in range(1, 4096)]


def test_an_event_that_meets_no_condition_is_unmatched_and_its_letter_says_why():
    conditions = {"all": Condition(compile_match({"user_id": 1}))}
    run = Run(conditions=conditions, keep_unmatched=True)
    run.receive(GOOD.replace(b"42", b"1"), GOOD)
    run.receive(GOOD, channel=b"elsewhere")
    assert [(letter.reason, letter.detail) for letter in run.letters.kept] == [
        ("unmatched", "the conditions of no route are met")
    ] * 2


def test_one_sink_is_handed_the_events_of_several_channels_together_and_in_order():
    run = Run()
    batches = [RawBatch(channel, None, [b"%d" % n]) for n, channel in enumerate([b"a", b"b", b"a", b"c"])]
    run.pipeline.receive("web", batches)
    assert [event.payload for event in run.inboxes["log"]] == [0, 1, 2, 3]
    assert run.puts == ["log"]


def test_the_pattern_that_matched_is_on_the_event():
    run = Run()
    run.receive(b"1", channel=b"orders.new", pattern=b"orders.*")
    assert run.inboxes["log"][0].pattern == "orders.*"


def test_unmatched_is_counted():
    run = Run([RouteConfig(id="x", channels=["x"], sinks=[RouteSink(sink="log")])])
    run.receive(b"1", b"2", channel=b"y")
    assert (run.book.received, run.book.unmatched, run.book.routed) == (2, 2, 0)
    assert run.letters.kept == []


def test_unmatched_may_be_kept():
    run = Run([RouteConfig(id="x", channels=["x"], sinks=[RouteSink(sink="log")])], keep_unmatched=True)
    run.receive(b"1", channel=b"y")
    (letter,) = run.letters.kept
    assert (letter.reason, letter.sink, letter.route, letter.key) == ("unmatched", None, None, None)


def test_unmatched_may_have_sinks():
    routes = [RouteConfig(id="x", channels=["x"], sinks=[RouteSink(sink="log")])]
    run = Run(routes, unmatched=[RouteSink(sink="mail")])
    run.receive(b"1", channel=b"y")
    assert [event.route for event in run.inboxes["mail"]] == ["unmatched"]
    assert run.book.unmatched == 1


def test_what_is_known_of_channels_is_bounded_however_many_a_pattern_matches():
    """They were remembered oldest out, and each one more cost the routes again: with 1,000 of them a millisecond."""
    run = Run()
    tracemalloc.start()
    try:
        for n in range(2 * MOST_CHANNELS):
            run.receive(b"1", channel=b"a channel with a name of its own, number %d" % n)
            run.inboxes["log"].clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.book.routed == 2 * MOST_CHANNELS
    assert after < MOST_CHANNELS * 600


class Receipt:
    """What a source that acknowledges would hear."""

    def __init__(self):
        self.expected = {}
        self.settled = []

    def expect(self, position, deliveries):
        assert position not in self.expected
        self.expected[position] = deliveries

    def settle(self, position):
        self.settled.append(position)


def test_a_source_that_acknowledges_hears_of_every_entry():
    run = Run([RouteConfig(id="r", channels=["notification"], sinks=[RouteSink(sink="log"), RouteSink(sink="mail")])])
    receipt = Receipt()
    batch = RawBatch(
        b"notification",
        None,
        [GOOD, b"{", b'"' + b"x" * 2000 + b'"', b'{"user_id": "1"}'],
        ids=["s/1-0", "s/2-0", "s/3-0", "s/4-0"],
        headers=[{"traceparent": "x"}, None, None, None],
        receipt=receipt,
    )
    run.pipeline.receive("web", [batch, RawBatch(b"elsewhere", None, [b"1"], receipt=(other := Receipt()))])
    assert receipt.expected == {0: 2, 1: 1, 2: 1, 3: 1}
    assert other.expected == {0: 0}
    log, mail = run.inboxes["log"][0], run.inboxes["mail"][0]
    assert (log.id, log.headers, log._receipt, log._position) == ("s/1-0", {"traceparent": "x"}, receipt, 0)
    assert (mail.id, mail.headers, mail._receipt, mail._position) == ("s/1-0", {"traceparent": "x"}, receipt, 0)
    assert [(letter.event_id, letter.reason) for letter in run.letters.kept] == [
        ("s/2-0", "decode"),
        ("s/3-0", "too_large"),
        ("s/4-0", "schema"),
    ]
    assert receipt.settled == []
    for letter in run.letters.kept:
        letter.written()
    assert receipt.settled == [1, 2, 3]


def test_a_batch_may_begin_anywhere_in_its_receipt():
    run, receipt = Run(), Receipt()
    run.pipeline.receive("web", [RawBatch(b"notification", None, [GOOD, b"{"], ["a", "b"], None, receipt, 5)])
    assert receipt.expected == {5: 1, 6: 1}
    assert [event._position for event in run.inboxes["log"]] == [5]
    run.letters.kept[0].written()
    assert receipt.settled == [6]


def test_ids_are_unique_across_letters_and_events():
    run = Run()
    for _ in range(3):
        run.receive(GOOD, b"{", GOOD)
    ids = [event.id for event in run.inboxes["log"]] + [letter.event_id for letter in run.letters.kept]
    assert len(set(ids)) == 9


class Waiting:
    """A receipt that keeps what it hears."""

    def __init__(self):
        self.expected = {}
        self.settled = []

    def expect(self, position, deliveries):
        assert position not in self.expected
        self.expected[position] = deliveries

    def settle(self, position):
        self.settled.append(position)


def envelope(id_, data=GOOD, more=b""):
    return b'{"specversion":"1.0","id":"%s","source":"/s","type":"t"%s,"data":%s}' % (id_, more, data)


def test_a_cloudevent_is_its_data():
    run = Run(format=CLOUDEVENTS)
    run.receive(
        envelope(b"1"), b"{}", envelope(b"2", b'{"user_id": "no"}'), envelope(b"3", more=b',"traceparent":"tp"')
    )
    first, second = run.inboxes["log"]
    assert (first.id, first.raw, first.format, first.payload["user_id"]) == ("/s#1", GOOD, JSON, 42)
    assert second.headers["traceparent"] == "tp"
    assert second.headers["ce-id"] == "3"
    assert [letter.reason for letter in run.letters.kept] == [Reason.DECODE, Reason.SCHEMA]
    assert run.letters.kept[1].payload == envelope(b"2", b'{"user_id": "no"}')
    assert (run.book.received, run.book.routed, run.book.rejected.total()) == (4, 2, 2)


def test_the_letter_of_an_unmatched_cloudevent_holds_the_whole_message():
    run = Run(
        [RouteConfig(id="r", channels=["other"], sinks=[RouteSink(sink="log")])],
        format=CLOUDEVENTS,
        keep_unmatched=True,
    )
    run.receive(envelope(b"1"))
    (letter,) = run.letters.kept
    assert (letter.reason, letter.payload, letter.event_id) == (Reason.UNMATCHED, envelope(b"1"), "/s#1")


def test_cloudevents_of_a_source_that_waits():
    run = Run(format=CLOUDEVENTS)
    receipt = Waiting()
    batch = RawBatch(b"notification", None, [envelope(b"1"), b"[]"], ["s/1-0", "s/2-0"], [{"a": "b"}, None], receipt)
    run.pipeline.receive("web", [batch])
    (event,) = run.inboxes["log"]
    assert (event.id, event.headers["a"], event.headers["type"]) == ("/s#1", "b", "t")
    assert (event._receipt, event._position) == (receipt, 0)
    assert receipt.expected == {0: 1, 1: 1}
    (letter,) = run.letters.kept
    assert letter.event_id == "s/2-0"
    letter.written()
    assert receipt.settled == [1]


def test_an_id_in_the_payload():
    run = Run(mode="off", id_path=("order", "id"))
    run.receive(b'{"order": {"id": "A-1"}}', b"{}")
    first, second = run.inboxes["log"]
    assert first.id == "A-1"
    assert second.id.startswith("0")


def test_what_a_source_refuses_is_received_and_rejected():
    run = Run()
    receipt = Waiting()
    batch = RawBatch(b"jobs", None, [b"one", b"two"], headers=[{"a": "b"}, None], receipt=receipt)
    run.pipeline.refuse("web", batch, Reason.POISON, "again and again")
    assert (run.book.received, run.book.rejected) == (2, {Reason.POISON: 2})
    assert [(letter.payload, letter.reason, letter.detail) for letter in run.letters.kept] == [
        (b"one", "poison", "again and again"),
        (b"two", "poison", "again and again"),
    ]
    assert run.letters.kept[0].headers == {"a": "b"}
    assert receipt.expected == {0: 1, 1: 1}
    for letter in run.letters.kept:
        letter.written()
    assert receipt.settled == [0, 1]


STRINGS = compile_schema(
    {"additionalProperties": {"type": "string"}}, uri="schema:///s.json", retrieve=lambda _uri: None
)


@pytest.mark.parametrize("char", ["k", "ü", '"', "\x01", "😀"])
@pytest.mark.parametrize("mode", ["enforce", "warn"])
def test_neither_a_letter_nor_the_log_grows_with_the_names_in_a_payload(char, mode, capture_logs):
    """Twenty names of 45 KB each: quoted in full they made a letter, and a line of the log, of twenty times the payload."""
    run = Run(mode=mode, schema=STRINGS, max_bytes=8_000_000)
    run.receive(json.dumps({f"{n}{char * 45_000}": n for n in range(20)}, ensure_ascii=False).encode())
    for letter in run.letters.kept:
        assert len(letter.detail.encode()) <= DETAIL_BYTES
        found = json.loads(letter.detail)
        assert {*found[0]} == {"pointer", "keyword", "message"}
        assert len(found) >= 2
    assert len(run.letters.kept) == (mode == "enforce")
    (line,) = capture_logs
    assert line["detail"] == ", ".join(["/* type"] * 20)


@pytest.mark.parametrize(
    "envelope",
    [
        {"specversion": "SECRET", "id": "1", "source": "s", "type": "t"},
        {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "SECRET": []},
        {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "SECRET" * 100_000: {}},
    ],
)
def test_what_a_message_holds_is_told_in_its_letter_and_not_in_the_log(envelope, capture_logs):
    run = Run(format=CLOUDEVENTS, max_bytes=2_000_000)
    run.receive(json.dumps(envelope).encode())
    (letter,) = run.letters.kept
    assert "SECRET" in letter.detail
    assert len(letter.detail) < 300
    assert "SECRET" not in str(capture_logs)
    assert capture_logs[0]["detail"].startswith("not a CloudEvent: ")


def test_a_long_channel_name_has_no_plan_that_is_kept():
    """Who publishes on channels that a glob matches chooses their names: ten thousand of a megabyte were remembered."""
    run = Run()
    tracemalloc.start()
    try:
        for number in range(50):
            run.receive(GOOD, channel=b"%d" % number + b"x" * 1_000_000)
            run.inboxes["log"].clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000_000
