"""The way of a batch: decode, validate, route, hand to the sinks' queues; floor 5.

`receive` is called by the sources, once for each chunk they read, and never waits. This is the hot path: what can be
known for a channel is computed once and kept in a plan, what can be done for a batch is not done for each event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from router import events
from router.contracts import Clock, DeadLetters
from router.core import decoding
from router.core.books import Books, SourceBook
from router.core.ids import Ids
from router.core.routing import Plan, Routing, SchemaRule
from router.engine import letters
from router.engine.notes import Notes
from router.errors import Reason
from router.events import DeadLetter, Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

MOST_PLANS = 10_000
"""Channels whose plan is kept, per source: a pattern may match channels without end."""

Put = Callable[[list[Event], int], None]
"""Hands deliveries to a sink, and the bytes of their payloads together."""


class Lane(msgspec.Struct, frozen=True):
    """A source as the pipeline sees it: how its payloads are read."""

    name: str
    format: str
    max_bytes: int


class _Prepared(msgspec.Struct, frozen=True, eq=False):
    """The plan of a channel with everything the loop needs at hand.

    `accepts` is None where every payload fits. `route` and `sink` are the first delivery's, empty where there is none.
    """

    channel: str
    plan: Plan
    accepts: Callable[[Any], bool] | None
    route: str
    sink: str


class Pipeline:
    """Takes raw messages from sources and hands deliveries to sinks.

    `inboxes` gives the `Put` of each sink. `keep_unmatched` makes dead letters of the events that no route took.
    """

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        routing: Routing,
        inboxes: Mapping[str, Put],
        dead_letters: DeadLetters,
        books: Books,
        clock: Clock,
        ids: Ids,
        keep_unmatched: bool,
    ) -> None:
        self._lanes = {lane.name: lane for lane in lanes}
        self._plans: dict[str, dict[bytes, _Prepared]] = {lane.name: {} for lane in lanes}
        self._routing = routing
        self._inboxes = inboxes
        self._dead_letters = dead_letters
        self._books = books
        self._clock = clock
        self._ids = ids
        self._keep_unmatched = keep_unmatched
        self._notes = Notes(log, clock)

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Take raw messages of a source, in the order they came. Never waits, never raises for a payload."""
        lane = self._lanes[source]
        plans = self._plans[source]
        book = self._books.sources[source]
        now = self._clock.now()
        received_at = datetime.fromtimestamp(now, UTC)
        prefix = self._ids.prefix(now)
        ready: dict[str, list[Event]] = {}
        sizes: dict[str, int] = {}
        for batch in batches:
            prepared = plans.get(batch.channel) or self._prepare(lane, batch.channel)
            accepted, size = self._accept(lane, prepared, batch, received_at, prefix)
            book.received += len(batch.payloads)
            if not accepted:
                continue
            if prepared.plan.matched:
                book.routed += len(accepted)
            else:
                self._unmatched(book, prepared, accepted, now)
            for sink, deliveries in self._deliveries(prepared, accepted):
                if sink in ready:
                    ready[sink] += deliveries
                    sizes[sink] += size
                else:
                    ready[sink] = deliveries
                    sizes[sink] = size
        for sink, deliveries in ready.items():
            self._inboxes[sink](deliveries, sizes[sink])

    def _accept(
        self, lane: Lane, prepared: _Prepared, batch: RawBatch, received_at: datetime, prefix: str
    ) -> tuple[list[Event], int]:
        """The first delivery of every good message, and the bytes of their payloads; the others become dead letters."""
        payloads = batch.payloads
        refused: list[bytes] = []
        if max(map(len, payloads)) > lane.max_bytes:
            refused = [raw for raw in payloads if len(raw) > lane.max_bytes]
            payloads = [raw for raw in payloads if len(raw) <= lane.max_bytes]
        source, format_, channel, route, sink = lane.name, lane.format, prepared.channel, prepared.route, prepared.sink
        pattern = None if batch.pattern is None else events.text(batch.pattern)
        decode, accepts, count = events.DECODERS[format_], prepared.accepts, self._ids.count
        accepted: list[Event] = []
        append, make = accepted.append, Event
        for raw in payloads:
            try:
                if accepts is None:
                    decode(raw)
                elif not accepts(decode(raw)):
                    refused.append(raw)
                    continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                refused.append(raw)
                continue
            count += 1
            append(make(f"{prefix}{count}", source, channel, pattern, received_at, raw, route, sink, format_))
        self._ids.count = count
        size = sum(map(len, payloads))
        if refused:
            size -= sum(len(raw) for raw in refused if len(raw) <= lane.max_bytes)
            self._reject(lane, prepared, refused, pattern, received_at)
        return accepted, size

    def _deliveries(self, prepared: _Prepared, accepted: list[Event]) -> list[tuple[str, list[Event]]]:
        """The deliveries by sink, in route order: the first is at hand, the others are copies of it."""
        targets = prepared.plan.targets
        if not targets:
            return []
        found = [(prepared.sink, accepted)]
        for target in targets[1:]:
            route, sink = target.route, target.sink
            found.append(
                (
                    sink,
                    [
                        Event(e.id, e.source, e.channel, e.pattern, e.received_at, e.raw, route, sink, e.format)
                        for e in accepted
                    ],
                )
            )
        return found

    def _prepare(self, lane: Lane, channel: bytes) -> _Prepared:
        plan = self._routing.plan(lane.name, channel)
        first = plan.targets[0] if plan.targets else None
        name = events.text(channel)
        prepared = _Prepared(
            channel=name,
            plan=plan,
            accepts=self._accepts(lane, name, plan.schema),
            route=first.route if first else "",
            sink=first.sink if first else "",
        )
        plans = self._plans[lane.name]
        if len(plans) >= MOST_PLANS:
            del plans[next(iter(plans))]
        plans[channel] = prepared
        return prepared

    def _accepts(self, lane: Lane, channel: str, rule: SchemaRule | None) -> Callable[[Any], bool] | None:
        if rule is None or rule.schema is None:
            return None
        schema = rule.schema
        if rule.mode == "enforce":
            return schema.is_valid

        def accepts_all(payload: Any) -> bool:
            if not schema.is_valid(payload):
                found = schema.errors(payload)
                places = ", ".join(f"{violation.pointer or '/'} {violation.keyword}" for violation in found)
                message = "event does not fit its schema, mode warn lets it pass"
                self._notes.say(message, lane.name, channel, source=lane.name, channel=channel, detail=places)
            return True

        return accepts_all

    def _reject(
        self, lane: Lane, prepared: _Prepared, refused: list[bytes], pattern: str | None, received_at: datetime
    ) -> None:
        """Make dead letters of messages that can't be taken."""
        now = self._clock.now()
        found: list[DeadLetter] = []
        rejected = self._books.sources[lane.name].rejected
        for raw in refused:
            reason, detail, told = self._fault(lane, prepared, raw)
            rejected[reason] += 1
            self._notes.say(
                "event rejected",
                lane.name,
                prepared.channel,
                reason,
                source=lane.name,
                channel=prepared.channel,
                reason=str(reason),
                detail=told,
            )
            found.append(
                letters.of_raw(
                    self._ids.next(now),
                    raw,
                    reason,
                    detail,
                    source=lane.name,
                    channel=prepared.channel,
                    pattern=pattern,
                    received_at=received_at,
                )
            )
        self._dead_letters.add(found)

    def _fault(self, lane: Lane, prepared: _Prepared, raw: bytes) -> tuple[Reason, str, str]:
        """Why a message was refused: reason, the letter's detail, and what may be logged of it (no payload)."""
        error = decoding.rejection(raw, lane.format, lane.max_bytes)
        if error:
            return error.reason, error.detail, error.detail
        rule = prepared.plan.schema
        assert rule is not None
        assert rule.schema is not None
        found = rule.schema.errors(events.decode(raw, lane.format))
        told = ", ".join(f"{violation.pointer or '/'} {violation.keyword}" for violation in found)
        return Reason.SCHEMA, letters.violations(found), told

    def _unmatched(self, book: SourceBook, prepared: _Prepared, accepted: list[Event], now: float) -> None:
        book.unmatched += len(accepted)
        if prepared.plan.targets:
            return
        first = accepted[0]
        message = "no route takes the events of this channel"
        self._notes.say(message, first.source, prepared.channel, source=first.source, channel=prepared.channel)
        if self._keep_unmatched:
            detail = "no route takes this channel"
            self._dead_letters.add(
                [
                    letters.of_delivery(event.id, event, Reason.UNMATCHED, detail, now=now, attempts=0)
                    for event in accepted
                ]
            )
