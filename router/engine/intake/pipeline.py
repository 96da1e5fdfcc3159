"""The pipeline: decodes, validates and routes batches of messages, and enqueues their deliveries; floor 5.

Sources call `receive` once for each chunk that they read. This method never waits. It is the hot path of the router.
Values that depend only on the channel are computed once and cached. Work that can be done once per batch is not done
for each event. The decisions are the same as those of `core.verdict`, which decides on a single message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from router.contracts import Clock, DeadLetters
from router.core import verdict
from router.core.accounts.books import Books
from router.core.conditions.condition import Subject
from router.core.decoding import SourceFormat
from router.core.delivery.shared_deliveries import Deliveries, LineCache
from router.core.ids import Ids
from router.core.routing import Plan, Routing
from router.engine.expression_failures import ExpressionFailures
from router.engine.intake.channels import (
    UNREADABLE,
    Alone,
    Channels,
    Ending,
    Known,
    Prepared,
)
from router.engine.intake.runs import Moment, Run, fan_out, run_of, without
from router.engine.intake.unrouted_events import UnroutedEvents
from router.engine.log_limits import LogLimits
from router.errors import Reason
from router.events import Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

Put = Callable[[Sequence[Event], int], None]
"""A function that enqueues deliveries for a sink. The second argument is the total size of their payloads in bytes."""


_About = tuple[str, str, str, str | None, datetime, bytes, str, str, str, Mapping[str, str] | None]
"""The fields of an event, from its id to its headers."""


class Pipeline:
    """The receiver of raw messages from sources. It enqueues deliveries for sinks.

    `inboxes` has the `Put` of each sink. If `keep_unmatched` is True, events that no route takes become dead letters.
    `failures` counts each `when` that can't be evaluated. If dead letters are printed (`letters_shown`), the log does not
    repeat them.
    """

    def __init__(
        self,
        *,
        formats: Sequence[SourceFormat],
        routing: Routing,
        inboxes: Mapping[str, Put],
        dead_letters: DeadLetters,
        books: Books,
        clock: Clock,
        ids: Ids,
        keep_unmatched: bool,
        failures: ExpressionFailures,
        letters_shown: bool = False,
    ) -> None:
        self._failures = failures
        self._channels = {
            each.name: Channels(each, routing, books.routes, keep_unmatched=keep_unmatched) for each in formats
        }
        self._routing = routing
        self._inboxes = inboxes
        self._books = books
        self._clock = clock
        self._ids = ids
        self._notes = LogLimits(log, clock)
        self._unrouted = UnroutedEvents(
            dead_letters=dead_letters,
            books=books,
            clock=clock,
            ids=ids,
            notes=self._notes,
            keep_unmatched=keep_unmatched,
            letters_shown=letters_shown,
        )
        self._lines = LineCache()

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Process raw messages of a source, in the order of their arrival. Never waits, and never raises because of a payload."""
        now = self._clock.now()
        moment = Moment(now, datetime.fromtimestamp(now, UTC), self._ids.prefix(now))
        channels = self._channels[source]
        if len(batches) == 1 and len(batches[0].payloads) == 1 and (found := channels.alone(batches[0])):
            self._take_alone(channels.source, found, batches[0].payloads[0], moment)
        else:
            self._take(channels, channels.known, batches, moment)

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        """Process again messages of one channel that a source received at the time `received_at`.

        The channel is not added to the cache: since that time, the pattern that matches the channel may have changed.
        Raises `KeyError` if the source does not exist.
        """
        now = self._clock.now()
        moment = Moment(now, received_at, self._ids.prefix(now))
        channels = self._channels[source]
        self._take(channels, {}, [batch], moment)

    def deliver(self, events: Sequence[Event]) -> None:
        """Enqueue replayed deliveries or summaries for their sinks. Raises `KeyError` if a sink does not exist."""
        by_sink: dict[str, list[Event]] = {}
        for event in events:
            by_sink.setdefault(event.sink, []).append(event)
        for sink, deliveries in by_sink.items():
            self._put(sink, deliveries, sum(len(event.raw) for event in deliveries))

    def hand_over(self, sink: str, event: Event) -> None:
        """Enqueue a fallback delivery for this sink. Raises `KeyError` if the sink does not exist."""
        self._put(sink, [event], len(event.raw))

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Turn the entries of a batch into dead letters, because the source can't turn them into events. Never waits.

        Each entry is settled in its receipt when its dead letter is written.
        """
        self._books.sources[source].received += len(batch.payloads)
        now = self._clock.now()
        moment = Moment(now, datetime.fromtimestamp(now, UTC), "")
        for position in range(len(batch.payloads)):
            event = self._unrouted.refused(self._channels[source].source, batch, position, moment)
            self._unrouted.reject(event, verdict.Rejected(reason, detail, detail))

    def format_of(self, source: str) -> str | None:
        """Return the format of a source's payloads; None if the source does not exist."""
        channels = self._channels.get(source)
        return channels.source.format if channels else None

    def leads(self, route: str, sink: str) -> bool:
        """Return whether the current configuration has this route, and the route leads to this sink."""
        return sink in self._inboxes and self._routing.knows(route, sink)

    def _take_alone(self, source: SourceFormat, alone: Alone, raw: bytes, moment: Moment) -> None:
        """Enqueue the delivery of a valid message that is the only message of its chunk.

        `_take` would take twice as long.
        """
        self._ids.count += 1
        channel, pattern, ending = alone
        id_, route, sink = f"{moment.prefix}{self._ids.count}", ending.route, ending.sink
        event = Event(id_, source.name, channel, pattern, moment.received_at, raw, route, sink, source.format)
        book = self._books.sources[source.name]
        book.received += 1
        book.routed += 1
        for taken in ending.routes:
            taken.events += 1
        self._put(sink, [event], len(raw))

    def _take(self, channels: Channels, known: dict[bytes, Known], batches: Sequence[RawBatch], moment: Moment) -> None:
        """Process one chunk of a source: reject invalid messages, and enqueue the deliveries of valid messages."""
        source = channels.source
        book = self._books.sources[source.name]
        runs, refused = self._accept(channels, known, batches, moment)
        book.received += len(refused)
        for batch, position, plan in refused:
            event = self._unrouted.refused(source, batch, position, moment)
            found = verdict.judge(event, source, plan, moment.now)
            assert isinstance(found, verdict.Rejected)
            self._unrouted.reject(event, found)
        ready: dict[str, list[Sequence[Event]]] = {}
        sizes: dict[str, int] = {}
        for run in runs:
            ending, accepted = run.ending, run.accepted
            if not accepted:
                continue
            book.received += len(accepted)
            run.count()
            if ending.matched:
                book.routed += len(accepted)
            else:
                self._unrouted.unmatched(book, ending, accepted)
            for sink, deliveries in [(ending.alone, accepted)] if ending.alone else fan_out(run, self._lines):
                ready.setdefault(sink, []).append(deliveries)
                sizes[sink] = sizes.get(sink, 0) + run.size
        for sink, bundles in ready.items():
            self._put(sink, bundles[0] if len(bundles) == 1 else Deliveries.of(bundles), sizes[sink])

    def _accept(
        self, channels: Channels, known: dict[bytes, Known], batches: Sequence[RawBatch], moment: Moment
    ) -> tuple[list[Run], list[tuple[RawBatch, int, Plan]]]:
        """Return the valid messages as runs, in order, and the invalid messages.

        A run has the first delivery of each message. An invalid message is returned as its batch, its position and its
        plan. This method is the hot path. For each event, it calls no function of the router. If the channel is cached,
        it calls no function of the router for each batch either.
        """
        source, decode, ids = channels.source, channels.decode, self._ids
        name, format_, most, (_, received_at, prefix) = source.name, source.format, source.max_bytes, moment
        runs: list[Run] = []
        refused: list[tuple[RawBatch, int, Plan]] = []
        ending: Ending | None = None
        count = ids.count
        for batch in batches:
            found = known.get(batch.channel) or channels.find(batch, known)
            channel, pattern, prepared = found
            accepts = prepared.accepts
            messages: list[Any] | None = None
            if not prepared.bare or batch.receipt is not None or batch.ids is not None:
                messages = []
            payloads = good = batch.payloads
            bad: list[int] | None = None
            left: Any = iter(payloads)
            for raw in left:
                try:
                    if len(raw) <= most:
                        message = decode(raw)
                        if accepts is None or accepts(message):
                            if messages is not None:
                                messages.append(message)
                            continue
                except UNREADABLE:
                    pass
                bad = bad or []
                bad.append(len(payloads) - left.__length_hint__() - 1)  # cheaper than counting every message
            if bad is not None:
                refused += [(batch, position, prepared.plan) for position in bad]
                good = without(payloads, bad)
            if messages is not None:
                places = without(range(len(payloads)), bad or ())
                ids.count = count
                self._make(runs, channels, found, batch, zip(places, messages, strict=True), moment)
                count, ending = ids.count, None
                continue
            if prepared.ending is not ending:
                assert prepared.ending is not None
                ending = prepared.ending
                run = run_of(runs, ending)
                accepted, route, sink = run.accepted, ending.route, ending.sink
            if len(good) == 1:  # for a single event, a comprehension would double the cost
                raw = good[0]
                accepted.append(
                    Event(f"{prefix}{count + 1}", name, channel, pattern, received_at, raw, route, sink, format_)
                )
                run.size += len(raw)
            else:
                accepted += [
                    Event(f"{prefix}{number}", name, channel, pattern, received_at, raw, route, sink, format_)
                    for number, raw in enumerate(good, count + 1)
                ]
                run.size += sum(map(len, good))
            count += len(good)
        ids.count = count
        return runs, refused

    def _make(  # noqa: PLR0917  # the state of the loop in `_accept`, the only caller
        self,
        runs: list[Run],
        channels: Channels,
        known: Known,
        batch: RawBatch,
        messages: Iterable[tuple[int, Any]],
        moment: Moment,
    ) -> None:
        """Add the first delivery of each message to `runs`.

        `messages` are decoded messages with their positions in the batch. This method is called for messages with a
        receipt, an id or an envelope. It is also called for channels with conditions or with a schema of mode `warn`.
        """
        channel, pattern, prepared = known
        source, plain, warns, ending = channels.source, channels.source.plain, prepared.warns, prepared.ending
        payloads, ids, headers, receipt, first = batch.payloads, batch.ids, batch.headers, batch.receipt, batch.first
        name, came = source.name, batch.received_at or moment.received_at
        run = None if ending is None else run_of(runs, ending)
        for position, message in messages:
            payload = message if plain else message.payload
            if warns is not None and not warns.is_valid(payload):
                self._warn(prepared, name, channel, payload)
            raw = data = payloads[position]
            id_, form = ids[position] if ids else None, source.format
            header = headers[position] if headers else None
            if not plain:
                id_ = message.id or id_
                header = {**(header or {}), **(message.headers or {})} or None
                data, form = message.data, message.format
            id_ = id_ or self._ids.next(moment.now)
            if prepared.ending is None:
                about = (id_, name, channel, pattern, came, data, "", "", form, header)
                ending = self._decide(channels, prepared, payload, about, moment.now)
                run = run_of(runs, ending)
            assert ending is not None
            assert run is not None
            route, sink, at = ending.route, ending.sink, first + position
            if sink:  # an event without a delivery needs the whole message for its dead letter
                raw = data
            if receipt is not None:
                receipt.expect(at, ending.expected)
            run.size += len(raw)
            run.accepted.append(
                Event(id_, name, channel, pattern, came, raw, route, sink, form, header, _receipt=receipt, _position=at)
            )

    def _put(self, sink: str, deliveries: Sequence[Event], size: int) -> None:
        put = self._inboxes[sink]
        self._books.sinks[sink].planned += len(deliveries)
        put(deliveries, size)

    def _warn(self, prepared: Prepared, source: str, channel: str, payload: Any) -> None:
        """Count and log a payload that does not fit a schema of mode `warn`."""
        self._books.sources[source].schema_warnings += 1
        rule = prepared.plan.schema
        assert rule is not None
        assert rule.schema is not None
        found = verdict.places(rule.schema.errors(payload))
        message = "event does not fit its schema; it is routed, because the schema has the mode warn"
        self._notes.say(message, source, rule.file, source=source, channel=channel, detail=found)

    def _decide(self, channels: Channels, prepared: Prepared, payload: Any, about: _About, now: float) -> Ending:
        """Return the ending of an event, for a channel with conditions.

        Count and log each `when` that can't be evaluated. `about` has the fields of the event. The event is created
        only if a condition needs it.
        """
        if not prepared.asks_event:
            return channels.ending(prepared.plan, payload)
        event = Event(*about, _payload=payload)
        subject = Subject(event, now)
        ending = channels.ending(prepared.plan, payload, subject)
        for failure in subject.failures:
            self._failures.add(
                f"routes.{failure.route}.when",
                failure.error,
                "the route does not take the event",
                event_id=event.id,
                source=event.source,
                channel=event.channel,
                route=failure.route,
            )
        return ending
