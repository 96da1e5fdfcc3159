"""Metrics for Prometheus; floor 4.

Each scrape reads the books, so no number is counted in two places. The books do not contain attempts, durations and
ages of events. A `SinkMeter` counts these in plain numbers, in a fraction of a microsecond per call. The histogram of
prometheus_client would take 2 µs, and can't add many equal values at once. prometheus_client is imported at the first
scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from router.core.accounts.books import Books, SinkBook
from router.core.accounts.snapshot import Snapshot
from router.errors import DEAD, DROPPED, SUPPRESSED, Reason
from router.events import Outcome

if TYPE_CHECKING:
    from prometheus_client import Metric

T = TypeVar("T")

PREFIX = "event_router_"

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Histogram bounds for the duration of a call of a sink, in seconds."""

AGE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""Histogram bounds for an event's age at delivery, in seconds: from milliseconds to the default `retry.max_age`."""

REJECTED = frozenset({Reason.TOO_LARGE, Reason.DECODE, Reason.FIELD, Reason.SCHEMA, Reason.POISON})
"""Reasons of rejected events."""

_OF_SINKS: Mapping[Outcome, frozenset[Reason]] = {
    Outcome.DEAD_LETTERED: DEAD - {Reason.TOO_LARGE, Reason.DECODE, Reason.FIELD, Reason.SCHEMA, Reason.UNMATCHED},
    Outcome.DROPPED: DROPPED,
    Outcome.SUPPRESSED: SUPPRESSED,
}

RESULTS = ("delivered", "transient", "permanent", "sink_fault", "partial", "gone")
"""The results of an attempt."""


class Histogram:
    """A histogram: counts values by size. `bounds` are the upper limits of its intervals, in ascending order."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The number of values in each interval. The last element counts the values above all bounds."""
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Add a value `count` times."""
        self.counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative buckets of the exposition format: (upper bound, number of values)."""
        bounds = [*map(repr, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class SinkMeter:
    """The attempts of one sink, with their durations and the ages of events."""

    __slots__ = ("ages", "attempts", "seconds")

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.seconds = Histogram(CALL_SECONDS)
        self.ages = Histogram(AGE_SECONDS)

    def attempt(self, result: str, count: int = 1) -> None:
        """Count attempts with this result, one of `RESULTS`."""
        self.attempts[result] += count

    def observe_call(self, seconds: float) -> None:
        """Count a call of the sink, for one delivery or a batch, with its duration."""
        self.seconds.observe(seconds)

    def aged(self, seconds: float, count: int) -> None:
        """Count delivered events of the same age."""
        self.ages.observe(max(seconds, 0.0), count)

    def delivered(self, received_at: Iterable[tuple[datetime, int]], now: float) -> None:
        """Count successful deliveries. `received_at` yields pairs: a time, and the number of events received at this
        time.

        `now` is seconds since the epoch.
        """
        total = 0
        for at, count in received_at:
            total += count
            self.aged(now - at.timestamp(), count)
        self.attempts["delivered"] += total


class Measured(msgspec.Struct, frozen=True):
    """The numbers for a scrape: the books of this process, its meters by sink name, and a snapshot of the router."""

    books: Books
    meters: Mapping[str, SinkMeter]
    snapshot: Callable[[], Snapshot]


class Exposition:
    """Renders the metrics of one router."""

    def __init__(self, measured: Measured) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  # takes a tenth of a second

        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(measured))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type: OpenMetrics if `Accept` asks for it, else plain text."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # takes a tenth of a second

        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector:
    """The collector that reads the books at each scrape."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family of the router."""
        snapshot = self._measured.snapshot()
        yield from _of_router(snapshot)
        yield from _of_sources(snapshot, self._measured.books)
        yield _of_routes(self._measured.books)
        yield from _of_sinks(snapshot, self._measured.books)
        yield from _of_meters(self._measured.meters)


Labels = tuple[str, ...]
Row = tuple[Labels, float]


def _family(kind: str, name: str, help: str, labels: Labels, rows: Iterable[tuple[Any, ...]]) -> Metric:  # noqa: A002  # its name in the format
    from prometheus_client import core  # noqa: PLC0415  # takes a tenth of a second

    family: Metric = getattr(core, f"{kind}MetricFamily")(PREFIX + name, help, labels=labels)
    for row in rows:
        family.add_metric(*row)  # type: ignore[attr-defined]  # all three families have this method
    return family


_counter = partial(_family, "Counter")
_gauge = partial(_family, "Gauge")
_histogram = partial(_family, "Histogram")


def _rows(things: Mapping[str, T], number: Callable[[T], float]) -> list[Row]:
    """Return a row for each item, labelled with its name."""
    return [((name,), float(number(thing))) for name, thing in things.items()]


def _of_router(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("build_info", "The version of event-router.", ("version",), [((snapshot.version,), 1)])
    yield _gauge("ready", "Whether the router is ready, as /readyz says.", (), [((), snapshot.ready)])
    yield _gauge("books_balanced", "Whether every event and delivery is accounted for.", (), [((), snapshot.balanced)])
    config = snapshot.config
    yield _gauge(
        "config_last_reload_successful",
        "Whether the last load of the configuration succeeded.",
        (),
        [((), config.error is None)],
    )
    yield _gauge(
        "config_last_reload_success_timestamp_seconds",
        "The time of the last successful load of the configuration.",
        (),
        [((), config.succeeded_at)],
    )


def _of_sources(snapshot: Snapshot, books: Books) -> Iterator[Metric]:
    own, sources, labels = books.sources, snapshot.sources, ("source",)
    yield _counter("events_received", "Events received from a source.", labels, _rows(own, lambda b: b.received))
    rejected = [
        ((name, reason), number) for name, book in own.items() for reason, number in _complete(book.rejected, REJECTED)
    ]
    yield _counter("events_rejected", "Rejected events, by reason.", ("source", "reason"), rejected)
    yield _counter("events_unmatched", "Events that no route took.", labels, _rows(own, lambda b: b.unmatched))
    warned = _rows(own, lambda b: b.schema_warnings)
    yield _counter(
        "schema_warnings", "Events that did not fit a schema with mode warn, and were accepted.", labels, warned
    )
    yield _gauge("source_up", "Whether a source is connected and reads.", labels, _rows(sources, lambda s: s.up))
    deaf = {name: source for name, source in sources.items() if source.type == "pubsub"}
    yield _counter("pubsub_gaps", "The number of times a subscription was lost.", labels, _rows(deaf, lambda s: s.gaps))
    seconds = _rows(deaf, lambda s: s.gap_seconds)
    yield _counter("pubsub_gap_seconds", "The seconds in which a source had no subscription.", labels, seconds)
    ahead = _rows(deaf, lambda s: s.read_ahead_bytes)
    yield _gauge("source_read_ahead_bytes", "Bytes that were read and are not processed yet.", labels, ahead)
    streams = {name: source for name, source in sources.items() if source.type == "stream"}
    trimmed = _rows(streams, lambda s: s.trimmed)
    yield _counter(
        "stream_trimmed", "Stream entries that were trimmed before they reached the router.", labels, trimmed
    )


def _of_routes(books: Books) -> Metric:
    return _counter("route_events", "Events that a route took.", ("route",), _rows(books.routes, lambda b: b.events))


def _of_sinks(snapshot: Snapshot, books: Books) -> Iterator[Metric]:
    rows = [((name, *labels), number) for name, book in books.sinks.items() for labels, number in _outcomes(book)]
    labels = ("sink", "outcome", "reason")
    yield _counter("deliveries", "Settled deliveries, by outcome and reason.", labels, rows)
    opened = _rows(snapshot.sinks, lambda sink: sink.breaker_open)
    yield _gauge(
        "breaker_open", "Whether the circuit breaker of a sink is open, because the sink fails.", ("sink",), opened
    )
    waiting = _rows(snapshot.sinks, lambda sink: sink.pending)
    yield _gauge("queue_events", "Deliveries in the queue of a sink, including those in flight.", ("sink",), waiting)


def _outcomes(book: SinkBook) -> Iterator[Row]:
    yield (str(Outcome.DELIVERED), ""), book.delivered
    yield (str(Outcome.PRINTED), ""), book.printed
    yield (str(Outcome.HANDED_OVER), ""), book.handed_over
    counted = {
        Outcome.DEAD_LETTERED: book.dead_lettered,
        Outcome.DROPPED: book.dropped,
        Outcome.SUPPRESSED: book.suppressed,
    }
    for outcome, counter in counted.items():
        for reason, number in _complete(counter, _OF_SINKS[outcome]):
            yield (str(outcome), reason), number


def _complete(counter: Mapping[Reason, int], known: frozenset[Reason]) -> list[tuple[str, int]]:
    """Return all known reasons with their numbers, including 0.

    PromQL's `increase()` misses the first event of a new series.
    """
    return [(str(reason), counter.get(reason, 0)) for reason in sorted(known | counter.keys())]


def _of_meters(meters: Mapping[str, SinkMeter]) -> Iterator[Metric]:
    attempts = [
        ((name, result), float(number)) for name, meter in meters.items() for result, number in meter.attempts.items()
    ]
    labels, of_sink = ("sink", "result"), ("sink",)
    yield _counter("delivery_attempts", "Attempts to deliver, by result.", labels, attempts)
    calls = [((name,), meter.seconds.buckets(), meter.seconds.sum) for name, meter in meters.items()]
    yield _histogram(
        "delivery_seconds", "The duration of a call of a sink, for one delivery or a batch.", of_sink, calls
    )
    ages = [((name,), meter.ages.buckets(), meter.ages.sum) for name, meter in meters.items()]
    yield _histogram("event_age_seconds", "The age of an event when it is delivered.", of_sink, ages)
