"""The way of a batch: decode, validate, route, hand to the sinks' queues; floor 5.

`receive` is called by the sources, once for each chunk they read, and never waits. This is the hot path: what can be
known for a channel is computed once and kept in a plan, what can be done for a batch is not done for each event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
import structlog

from router import events
from router.contracts import Clock, DeadLetters, Receipt
from router.core import decoding
from router.core.accounts.books import LONGEST_CHANNEL, Books, SourceBook
from router.core.ids import Ids
from router.core.routing import Routing, SchemaRule, Target
from router.core.validation import Violation
from router.engine.dead_letters import dead_letter_factory
from router.engine.delivery import delivery_log
from router.engine.log_limits import LogLimits
from router.errors import Reason, RejectedError
from router.events import Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

MOST_PLANS = 10_000
"""Channels whose plan is kept, per source: a pattern may match channels without end."""

Put = Callable[[list[Event], int], None]
"""Hands deliveries to a sink, and the bytes of their payloads together."""


class SourceFormat(msgspec.Struct, frozen=True):
    """A source as the pipeline sees it: how its payloads are read.

    `id_path` leads to the event's id in the payload, empty where the configuration names none.
    """

    name: str
    format: str
    max_bytes: int
    id_path: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether a message is its payload and nothing of the event stands in it: the fast way."""
        return self.format != events.CLOUDEVENTS and not self.id_path

    @property
    def decode(self) -> Callable[[bytes], Any]:
        """The decoder of its format."""
        return events.DECODERS[self.format]


class _Prepared(msgspec.Struct, frozen=True, eq=False):
    """The plan of a channel with everything the loop needs at hand.

    Of several subscriptions that match a channel one always wins, so `pattern` is the channel's as well. `accepts` is None
    where every payload fits. `route` and `sink` are the first delivery's, empty where there is none; `others` the rest.
    """

    channel: str
    pattern: str | None
    schema: SchemaRule | None
    matched: bool
    accepts: Callable[[Any], bool] | None
    route: str
    sink: str
    others: tuple[Target, ...]


class _Moment(NamedTuple):
    """What all events of one chunk share."""

    now: float
    received_at: datetime
    prefix: str


class Pipeline:
    """Takes raw messages from sources and hands deliveries to sinks.

    `inboxes` gives the `Put` of each sink. `keep_unmatched` makes dead letters of the events that no route took.
    """

    def __init__(
        self,
        *,
        lanes: Sequence[SourceFormat],
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
        self._notes = LogLimits(log, clock)

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Take raw messages of a source, in the order they came. Never waits, never raises for a payload."""
        now = self._clock.now()
        moment = _Moment(now, datetime.fromtimestamp(now, UTC), self._ids.prefix(now))
        self._take(self._lanes[source], self._plans[source], batches, moment)

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        """Take messages of one channel that came before, at `received_at`: they go the whole way.

        What is planned for them is not kept: by now the channel may come from another subscription. Raises `KeyError`
        when there is no such source.
        """
        lane = self._lanes[source]
        now = self._clock.now()
        moment = _Moment(now, received_at, self._ids.prefix(now))
        self._take(lane, {batch.channel: self._planned(lane, batch)}, [batch], moment)

    def deliver(self, events: Sequence[Event]) -> None:
        """Put deliveries that were made before into the queues of their sinks. Raises `KeyError` without such a sink."""
        by_sink: dict[str, list[Event]] = {}
        for event in events:
            by_sink.setdefault(event.sink, []).append(event)
        for sink, deliveries in by_sink.items():
            self._put(sink, deliveries, sum(len(event.raw) for event in deliveries))

    def format_of(self, source: str) -> str | None:
        """How the payloads of a source are read, None when there is no such source."""
        lane = self._lanes.get(source)
        return lane.format if lane else None

    def leads(self, route: str, sink: str) -> bool:
        """Whether a delivery by this route to this sink is one that the configuration still knows."""
        return sink in self._inboxes and self._routing.knows(route, sink)

    def _take(
        self, lane: SourceFormat, plans: Mapping[bytes, _Prepared], batches: Sequence[RawBatch], moment: _Moment
    ) -> None:
        book = self._books.sources[lane.name]
        ready: dict[str, list[Event]] = {}
        sizes: dict[str, int] = {}
        for batch in batches:
            prepared = plans.get(batch.channel) or self._prepare(lane, batch)
            book.received += len(batch.payloads)
            whole: list[bytes] | None = None
            if not lane.plain:
                accepted, size, whole = self._accept_read(lane, prepared, batch, moment)
            elif batch.receipt is None:
                accepted, size = self._accept(lane, prepared, batch.payloads, moment)
            else:
                accepted, size = self._accept_acknowledged(lane, prepared, batch, moment)
            if not accepted:
                continue
            if prepared.matched:
                book.routed += len(accepted)
            else:
                self._unmatched(book, prepared, accepted, whole)
            sink = prepared.sink
            if sink in ready:
                ready[sink] += accepted
                sizes[sink] += size
            elif sink:
                ready[sink] = accepted
                sizes[sink] = size
            if prepared.others:
                self._fan_out(prepared.others, tuple(accepted), size, ready, sizes)
        for sink, deliveries in ready.items():
            self._put(sink, deliveries, sizes[sink])

    def _put(self, sink: str, deliveries: list[Event], size: int) -> None:
        put = self._inboxes[sink]
        self._books.sinks[sink].planned += len(deliveries)
        put(deliveries, size)

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Make dead letters of entries that the source itself can't hand on. Never waits; the receipt hears of each."""
        lane = self._lanes[source]
        self._books.sources[source].received += len(batch.payloads)
        prepared = self._plans[source].get(batch.channel) or self._prepare(lane, batch)
        now = self._clock.now()
        received_at = datetime.fromtimestamp(now, UTC)
        for position, raw in enumerate(batch.payloads):
            id_ = batch.ids[position] if batch.ids else self._ids.next(now)
            headers = batch.headers[position] if batch.headers else None
            if batch.receipt is not None:
                batch.receipt.expect(position, 1)
            event = Event(
                id_,
                source,
                prepared.channel,
                prepared.pattern,
                received_at,
                raw,
                headers=headers,
                _receipt=batch.receipt,
                _position=position,
            )
            self._refuse(lane, event, reason, detail, detail)

    def hand_over(self, sink: str, event: Event) -> None:
        """Put a delivery that another sink gave up into the queue of this one. Raises `KeyError` without that sink."""
        self._put(sink, [event], len(event.raw))

    def _accept(
        self, lane: SourceFormat, prepared: _Prepared, payloads: list[bytes], moment: _Moment
    ) -> tuple[list[Event], int]:
        """The first delivery of every good message, and the bytes of their payloads; the others become dead letters."""
        size = sum(map(len, payloads))
        refused: list[bytes] = []
        if size > lane.max_bytes and max(map(len, payloads)) > lane.max_bytes:
            refused = [raw for raw in payloads if len(raw) > lane.max_bytes]
            payloads = [raw for raw in payloads if len(raw) <= lane.max_bytes]
            size = sum(map(len, payloads))
        source, format_, channel, pattern = lane.name, lane.format, prepared.channel, prepared.pattern
        route, sink, decode, accepts = prepared.route, prepared.sink, lane.decode, prepared.accepts
        received_at, prefix, count = moment.received_at, moment.prefix, self._ids.count
        accepted: list[Event] = []
        append, make = accepted.append, Event
        for raw in payloads:
            try:
                if accepts is None:
                    decode(raw)
                elif not accepts(decode(raw)):
                    refused.append(raw)
                    size -= len(raw)
                    continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                refused.append(raw)
                size -= len(raw)
                continue
            count += 1
            append(make(f"{prefix}{count}", source, channel, pattern, received_at, raw, route, sink, format_))
        self._ids.count = count
        if refused:
            self._reject(lane, prepared, refused, received_at)
        return accepted, size

    def _accept_acknowledged(
        self, lane: SourceFormat, prepared: _Prepared, batch: RawBatch, moment: _Moment
    ) -> tuple[list[Event], int]:
        """The same for a source that waits to hear of each entry: `_accept` with ids, headers and a receipt."""
        receipt: Receipt = batch.receipt
        payloads = batch.payloads
        deliveries = self._expected(prepared)
        decode, accepts = lane.decode, prepared.accepts
        ids = batch.ids or [self._ids.next(moment.now) for _ in payloads]
        headers: Iterable[dict[str, str] | None] = batch.headers or repeat(None)
        source, format_, channel, pattern = lane.name, lane.format, prepared.channel, prepared.pattern
        route, sink, received_at, max_bytes = prepared.route, prepared.sink, moment.received_at, lane.max_bytes
        accepted: list[Event] = []
        append, make = accepted.append, Event
        size = 0
        for position, (raw, id_, header) in enumerate(zip(payloads, ids, headers, strict=False)):
            try:
                good = len(raw) <= max_bytes and (accepts is None or accepts(decode(raw)))
                if good and accepts is None:
                    decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                good = False
            event = make(
                id_,
                source,
                channel,
                pattern,
                received_at,
                raw,
                route,
                sink,
                format_,
                header,
                _receipt=receipt,
                _position=position,
            )
            if good:
                size += len(raw)
                receipt.expect(position, deliveries)
                append(event)
            else:
                receipt.expect(position, 1)
                self._reject_entry(lane, prepared, event)
        return accepted, size

    def _accept_read(
        self, lane: SourceFormat, prepared: _Prepared, batch: RawBatch, moment: _Moment
    ) -> tuple[list[Event], int, list[bytes]]:
        """The same for messages in which more than the payload stands: one by one, of any kind of source.

        Returns the messages as published too: a letter of an event that gets no further holds the whole one.
        """
        receipt: Receipt | None = batch.receipt
        deliveries = self._expected(prepared)
        ids: Iterable[str | None] = batch.ids or repeat(None)
        headers: Iterable[dict[str, str] | None] = batch.headers or repeat(None)
        accepted: list[Event] = []
        whole: list[bytes] = []
        size = 0
        for position, (raw, id_, header) in enumerate(zip(batch.payloads, ids, headers, strict=False)):
            event = Event(
                id_ or self._ids.next(moment.now),
                lane.name,
                prepared.channel,
                prepared.pattern,
                moment.received_at,
                raw,
                prepared.route,
                prepared.sink,
                headers=header,
                _receipt=receipt,
                _position=position,
            )
            read = self._read(lane, prepared, event)
            if receipt is not None:
                receipt.expect(position, 1 if read is None else deliveries)
            if read is None:
                self._reject_entry(lane, prepared, event)
                continue
            size += len(read.raw)
            accepted.append(read)
            whole.append(raw)
        return accepted, size, whole

    @staticmethod
    def _read(lane: SourceFormat, prepared: _Prepared, event: Event) -> Event | None:
        """The event with what stands in its message; None when it can't be taken."""
        try:
            message = decoding.read(event.raw, lane.format, lane.max_bytes, lane.id_path)
        except RejectedError:
            return None
        if prepared.accepts is not None and not prepared.accepts(message.payload):
            return None
        headers = {**(event.headers or {}), **(message.headers or {})} or None
        return msgspec.structs.replace(
            event, id=message.id or event.id, raw=message.data, format=message.format, headers=headers
        )

    def _expected(self, prepared: _Prepared) -> int:
        """How many things have to be over before an entry is complete: its deliveries, or its dead letter."""
        if prepared.sink:
            return 1 + len(prepared.others)
        return int(self._keep_unmatched)

    @staticmethod
    def _fan_out(
        targets: tuple[Target, ...],
        accepted: tuple[Event, ...],
        size: int,
        ready: dict[str, list[Event]],
        sizes: dict[str, int],
    ) -> None:
        """Add the deliveries beyond the first: copies of it, bound for other sinks or by other routes."""
        for target in targets:
            route, sink = target.route, target.sink
            copies = [
                Event(
                    e.id,
                    e.source,
                    e.channel,
                    e.pattern,
                    e.received_at,
                    e.raw,
                    route,
                    sink,
                    e.format,
                    e.headers,
                    _receipt=e._receipt,
                    _position=e._position,
                )
                for e in accepted
            ]
            ready.setdefault(sink, []).extend(copies)
            sizes[sink] = sizes.get(sink, 0) + size

    def _prepare(self, lane: SourceFormat, batch: RawBatch) -> _Prepared:
        """Make the plan of a channel, and keep it unless the name is very long: producers choose it."""
        prepared = self._planned(lane, batch)
        plans = self._plans[lane.name]
        if len(batch.channel) <= LONGEST_CHANNEL:
            if len(plans) >= MOST_PLANS:
                del plans[next(iter(plans))]
            plans[batch.channel] = prepared
        return prepared

    def _planned(self, lane: SourceFormat, batch: RawBatch) -> _Prepared:
        plan = self._routing.plan(lane.name, batch.channel)
        first = plan.targets[0] if plan.targets else Target("", "")
        name = events.text(batch.channel)
        return _Prepared(
            channel=name,
            pattern=None if batch.pattern is None else events.text(batch.pattern),
            schema=plan.schema,
            matched=plan.matched,
            accepts=self._accepts(lane, name, plan.schema),
            route=first.route,
            sink=first.sink,
            others=plan.targets[1:],
        )

    def _accepts(self, lane: SourceFormat, channel: str, rule: SchemaRule | None) -> Callable[[Any], bool] | None:
        if rule is None or rule.schema is None:
            return None
        schema = rule.schema
        if rule.mode == "enforce":
            return schema.is_valid

        def accepts_all(payload: Any) -> bool:
            if not schema.is_valid(payload):
                found = schema.errors(payload)
                message = "event does not fit its schema, mode warn lets it pass"
                self._notes.say(message, lane.name, rule.file, source=lane.name, channel=channel, detail=_places(found))
            return True

        return accepts_all

    def _reject(self, lane: SourceFormat, prepared: _Prepared, refused: list[bytes], received_at: datetime) -> None:
        """Make dead letters of messages that can't be taken."""
        now = self._clock.now()
        for raw in refused:
            event = Event(
                self._ids.next(now), lane.name, prepared.channel, prepared.pattern, received_at, raw, format=lane.format
            )
            self._reject_entry(lane, prepared, event)

    def _reject_entry(self, lane: SourceFormat, prepared: _Prepared, event: Event) -> None:
        """Make a dead letter of an event that can't be taken."""
        self._refuse(lane, event, *self._fault(lane, prepared, event.raw))

    def _refuse(self, lane: SourceFormat, event: Event, reason: Reason, detail: str, told: str) -> None:
        """Count it, keep its letter, and log what may be `told`."""
        self._books.sources[lane.name].rejected[reason] += 1
        self._notes.say(
            "event rejected",
            lane.name,
            reason,
            event_id=event.id,
            source=lane.name,
            channel=event.channel,
            reason=str(reason),
            detail=told,
        )
        delivery_log.not_routed([event], "rejected", reason, detail)
        self._keep(msgspec.structs.replace(event, route="", sink=""), reason, detail)

    def _keep(self, event: Event, reason: Reason, detail: str) -> None:
        """Add the letter of an event that gets no further; the source hears of it when it is written."""
        letter = dead_letter_factory.of_delivery(event.id, event, reason, detail, now=self._clock.now(), attempts=0)
        receipt, position = event._receipt, event._position
        if receipt is not None:
            letter = msgspec.structs.replace(letter, written=partial(receipt.settle, position))
        self._dead_letters.add([letter])

    def _fault(self, lane: SourceFormat, prepared: _Prepared, raw: bytes) -> tuple[Reason, str, str]:
        """Why a message was refused: reason, the letter's detail, and what may be logged of it (no payload)."""
        error = decoding.rejection(raw, lane.format, lane.max_bytes)
        if error:
            return error.reason, error.detail, error.told
        rule = prepared.schema
        assert rule is not None
        assert rule.schema is not None
        found = rule.schema.errors(decoding.decode(raw, lane.format, lane.max_bytes))
        return Reason.SCHEMA, dead_letter_factory.violations(found), _places(found)

    def _unmatched(
        self, book: SourceBook, prepared: _Prepared, accepted: list[Event], whole: list[bytes] | None
    ) -> None:
        """Count events that no route takes. `whole` are their messages as published, None where those are the payloads."""
        book.unmatched += len(accepted)
        if prepared.sink:
            return
        first = accepted[0]
        message = "no route takes the events of this channel"
        about: dict[str, Any] = {"event_id": first.id, "source": first.source, "channel": prepared.channel}
        self._notes.say(message, first.source, times=len(accepted), **about)
        delivery_log.not_routed(accepted, "unmatched")
        if self._keep_unmatched:
            messages = whole or [event.raw for event in accepted]
            for event, raw in zip(accepted, messages, strict=True):
                self._keep(msgspec.structs.replace(event, raw=raw), Reason.UNMATCHED, "no route takes this channel")


def _places(found: Sequence[Violation]) -> str:
    """What the log says of a payload that does not fit its schema: where, and by which keyword."""
    return ", ".join(f"{violation.place} {violation.keyword}" for violation in found)
