"""Metrics: what is counted, and what a scrape reads, by the client library's own parser."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics import parser as strict
from prometheus_client.parser import text_string_to_metric_families

from router.core.accounts.books import Books, SinkBook, SourceBook
from router.core.accounts.snapshot import Fault, LoadStatus
from router.errors import DEAD, DROPPED, SUPPRESSED, Reason
from router.events import Outcome
from router.ops.metrics import AGE_SECONDS, CALL_SECONDS, RESULTS, Exposition, Histogram, Measured, SinkMeter
from tests.support.status import SINK, SNAPSHOT, SOURCE

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scraped(measured, accept=""):
    """Every sample of a scrape: (name, labels) → value."""
    body, content_type = Exposition(measured).render(accept)
    text = body.decode()
    parse = strict.text_string_to_metric_families if "openmetrics" in content_type else text_string_to_metric_families
    samples = {}
    for family in parse(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def at(samples, name, **labels):
    return samples[f"event_router_{name}", frozenset(labels.items())]


@pytest.fixture
def measured():
    books = Books({"web": SourceBook(received=20, unmatched=5, routed=10)}, {"audit": SinkBook(accepted=21)})
    books.sources["web"].rejected.update({Reason.SCHEMA: 4, Reason.DECODE: 1})
    books.sources["web"].schema_warnings = 2
    books.use_routes(["all", "urgent"])
    books.routes["all"].events = 9
    audit = books.sinks["audit"]
    audit.settle(5, Outcome.DELIVERED)
    audit.settle(2, Outcome.HANDED_OVER)
    audit.settle(3, Outcome.DEAD_LETTERED, Reason.PERMANENT)
    audit.settle(4, Outcome.SUPPRESSED, Reason.NO_ADDRESS)
    audit.drop(["a", "b"], Reason.FULL)
    source = replace(SOURCE, up=False, gaps=2, gap_seconds=1.5, read_ahead_bytes=3)
    return Measured(books, {"audit": SinkMeter()}, lambda: replace(SNAPSHOT, sources={"web": source}))


@pytest.mark.parametrize("accept", ["", OPEN_METRICS, "text/plain;version=1.0.0", "*/*"])
def test_counts_are_read_off_the_books(measured, accept):
    samples = scraped(measured, accept)
    assert at(samples, "events_received_total", source="web") == 20
    assert at(samples, "events_rejected_total", source="web", reason="schema") == 4
    assert at(samples, "events_unmatched_total", source="web") == 5
    assert at(samples, "schema_warnings_total", source="web") == 2
    assert at(samples, "route_events_total", route="all") == 9
    assert at(samples, "route_events_total", route="urgent") == 0
    assert at(samples, "deliveries_total", sink="audit", outcome="delivered", reason="") == 5
    assert at(samples, "deliveries_total", sink="audit", outcome="handed_over", reason="") == 2
    assert at(samples, "deliveries_total", sink="audit", outcome="dead_lettered", reason="permanent") == 3
    assert at(samples, "deliveries_total", sink="audit", outcome="suppressed", reason="no_address") == 4
    assert at(samples, "deliveries_total", sink="audit", outcome="dropped", reason="full") == 2
    assert at(samples, "queue_events", sink="audit") == SINK.pending
    assert at(samples, "breaker_open", sink="audit") == 0
    assert at(samples, "source_up", source="web") == 0
    assert at(samples, "pubsub_gaps_total", source="web") == 2
    assert at(samples, "pubsub_gap_seconds_total", source="web") == 1.5
    assert at(samples, "source_read_ahead_bytes", source="web") == 3
    assert at(samples, "build_info", version="1.2.3") == 1
    assert at(samples, "config_last_reload_successful") == 1
    assert at(samples, "config_last_reload_success_timestamp_seconds") == 1000


def test_counts_are_read_anew_at_each_scrape(measured):
    exposition = Exposition(measured)
    exposition.render("")
    measured.books.sources["web"].received += 1
    measured.books.sinks["late"] = SinkBook(delivered=1)
    text = exposition.render("")[0].decode()
    assert 'event_router_events_received_total{source="web"} 21.0' in text
    assert 'event_router_deliveries_total{outcome="delivered",reason="",sink="late"} 1.0' in text


def test_every_reason_has_a_series_before_it_first_happens(measured):
    samples = scraped(measured)
    reasons = {dict(labels)["reason"] for name, labels in samples if name == "event_router_deliveries_total"}
    of_sources = {dict(labels)["reason"] for name, labels in samples if name == "event_router_events_rejected_total"}
    assert reasons | of_sources == {str(reason) for reason in DEAD | SUPPRESSED | DROPPED} - {"unmatched"} | {""}


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        ({}, "ready", 1),
        ({"phase": "draining"}, "ready", 0),
        ({}, "books_balanced", 1),
        ({"sinks": {"audit": replace(SINK, accepted=99)}}, "books_balanced", 0),
        ({"config": LoadStatus(5.0, "wrong")}, "config_last_reload_successful", 0),
        ({"sinks": {}}, "books_balanced", 1),
        ({"sinks": {"audit": replace(SINK, fault=Fault(1.0, "x"))}}, "ready", 1),
    ],
)
def test_the_state_of_the_router(change, name, value):
    samples = scraped(Measured(Books({}, {}), {}, lambda: replace(SNAPSHOT, **change)))
    assert at(samples, name) == value


def test_gaps_are_those_of_subscriptions():
    snapshot = replace(SNAPSHOT, sources={"billing": replace(SOURCE, type="stream")})
    samples = scraped(Measured(Books({}, {}), {}, lambda: snapshot))
    assert at(samples, "source_up", source="billing") == 1
    assert at(samples, "stream_trimmed_total", source="billing") == 0
    assert not [name for name, _ in samples if "gap" in name]


def test_the_content_type_is_the_one_asked_for(measured):
    exposition = Exposition(measured)
    assert exposition.render("")[1].startswith("text/plain; version=0.0.4")
    body, content_type = exposition.render(OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_attempts_and_durations(measured):
    meter = measured.meters["audit"]
    meter.observe_call(0.001)
    meter.observe_call(0.0011)
    meter.observe_call(61.0)
    meter.attempt("transient")
    meter.attempt("permanent", 3)
    meter.aged(0.02, 500)
    meter.aged(90_000, 2)
    meter.aged(-5.0, 1)  # a clock that was set back
    samples = scraped(measured, OPEN_METRICS)
    assert at(samples, "delivery_seconds_count", sink="audit") == 3
    assert at(samples, "delivery_seconds_bucket", sink="audit", le="0.001") == 1
    assert at(samples, "delivery_seconds_bucket", sink="audit", le="0.0025") == 2
    assert at(samples, "delivery_seconds_bucket", sink="audit", le="60.0") == 2
    assert at(samples, "delivery_seconds_bucket", sink="audit", le="+Inf") == 3
    assert at(samples, "delivery_seconds_sum", sink="audit") == pytest.approx(61.0021)
    assert at(samples, "delivery_attempts_total", sink="audit", result="transient") == 1
    assert at(samples, "delivery_attempts_total", sink="audit", result="permanent") == 3
    assert at(samples, "delivery_attempts_total", sink="audit", result="delivered") == 0
    assert at(samples, "event_age_seconds_count", sink="audit") == 503
    assert at(samples, "event_age_seconds_bucket", sink="audit", le="0.001") == 1
    assert at(samples, "event_age_seconds_bucket", sink="audit", le="0.05") == 501
    assert at(samples, "event_age_seconds_bucket", sink="audit", le="86400.0") == 501


def test_deliveries_of_a_chunk_are_one_observation():
    meter, now = SinkMeter(), datetime(2026, 1, 1, tzinfo=UTC)
    early, late = now - timedelta(seconds=400), now - timedelta(seconds=0.2)
    meter.delivered([(early, 2), (late, 3), (early, 1)], now.timestamp())
    assert meter.attempts["delivered"] == 6
    counts = dict(zip((*AGE_SECONDS, "more"), meter.ages.counts, strict=True))
    assert {bound: number for bound, number in counts.items() if number} == {0.5: 3, 900.0: 3}
    assert meter.ages.sum == pytest.approx(1200.6)


@pytest.mark.parametrize("bounds", [CALL_SECONDS, AGE_SECONDS])
def test_a_value_on_a_bound_is_within_it(bounds):
    for place, bound in enumerate(bounds):
        histogram = Histogram(bounds)
        histogram.observe(bound)
        assert histogram.counts.index(1) == place
        histogram.observe(bound * 1.0001)
        assert histogram.counts[place + 1] == 1
    assert list(bounds) == sorted(bounds)


def test_every_result_has_a_series(measured):
    samples = scraped(measured)
    name = "event_router_delivery_attempts_total"
    assert {dict(labels)["result"] for found, labels in samples if found == name} == set(RESULTS)


def test_the_process_is_measured_too(measured):
    assert ("process_resident_memory_bytes", frozenset()) in scraped(measured)


def test_an_open_breaker_is_seen():
    snapshot = replace(SNAPSHOT, sinks={"audit": replace(SINK, breaker_open=True)})
    assert at(scraped(Measured(Books({}, {}), {}, lambda: snapshot)), "breaker_open", sink="audit") == 1


def test_what_was_trimmed_is_counted_of_streams_alone():
    sources = {"billing": replace(SOURCE, type="stream", trimmed=7), "web": SOURCE}
    samples = scraped(Measured(Books({}, {}), {}, lambda: replace(SNAPSHOT, sources=sources)))
    assert at(samples, "stream_trimmed_total", source="billing") == 7
    assert {dict(labels)["source"] for name, labels in samples if name == "event_router_stream_trimmed_total"} == {
        "billing"
    }
