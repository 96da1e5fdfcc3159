"""The way of a batch: decode, validate, route, hand to the sinks' queues; floor 5.

`receive` is called by the sources, once for each chunk they read, and never waits. This is the hot path: what can be
known for a channel is computed once and kept in a plan, what can be done for a batch is not done for each event. What is
decided here agrees with `core.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from router import events
from router.contracts import Clock, DeadLetters
from router.core import verdict
from router.core.accounts.books import Books, SourceBook
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.core.routing import Plan, Routing, Target
from router.engine.dead_letters import dead_letter_factory
from router.engine.delivery import delivery_log
from router.engine.intake.channels import Channels, Ending, Known, Prepared, pattern_text
from router.engine.log_limits import LogLimits
from router.errors import Reason, RejectedError
from router.events import Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

Put = Callable[[list[Event], int], None]
"""Hands deliveries to a sink, and the bytes of their payloads together."""


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RejectedError)


class _Run(msgspec.Struct, eq=False):
    """Events that came one after the other and become the same, but for the route where each goes to one sink alone.

    `size` is that of their payloads.
    """

    ending: Ending
    accepted: list[Event]
    size: int = 0


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
        formats: Sequence[SourceFormat],
        routing: Routing,
        inboxes: Mapping[str, Put],
        dead_letters: DeadLetters,
        books: Books,
        clock: Clock,
        ids: Ids,
        keep_unmatched: bool,
    ) -> None:
        self._channels = {each.name: Channels(each, routing, keep_unmatched=keep_unmatched) for each in formats}
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
        self._take(self._channels[source], self._channels[source].known, batches, moment)

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        """Take messages of one channel that came before, at `received_at`: they go the whole way.

        What is known of their channel then is not kept: by now it may come from another subscription. Raises `KeyError`
        when there is no such source.
        """
        now = self._clock.now()
        moment = _Moment(now, received_at, self._ids.prefix(now))
        channels = self._channels[source]
        self._take(channels, {}, [batch], moment)

    def deliver(self, events: Sequence[Event]) -> None:
        """Put deliveries that were made before into the queues of their sinks. Raises `KeyError` without such a sink."""
        by_sink: dict[str, list[Event]] = {}
        for event in events:
            by_sink.setdefault(event.sink, []).append(event)
        for sink, deliveries in by_sink.items():
            self._put(sink, deliveries, sum(len(event.raw) for event in deliveries))

    def hand_over(self, sink: str, event: Event) -> None:
        """Put a delivery that another sink gave up into the queue of this one. Raises `KeyError` without that sink."""
        self._put(sink, [event], len(event.raw))

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Make dead letters of entries that the source itself can't hand on. Never waits; the receipt hears of each."""
        self._books.sources[source].received += len(batch.payloads)
        now = self._clock.now()
        moment = _Moment(now, datetime.fromtimestamp(now, UTC), "")
        for position in range(len(batch.payloads)):
            event = self._refused(self._channels[source].source, batch, position, moment)
            self._reject(event, verdict.Rejected(reason, detail, detail))

    def format_of(self, source: str) -> str | None:
        """How the payloads of a source are read, None when there is no such source."""
        channels = self._channels.get(source)
        return channels.source.format if channels else None

    def leads(self, route: str, sink: str) -> bool:
        """Whether a delivery by this route to this sink is one that the configuration still knows."""
        return sink in self._inboxes and self._routing.knows(route, sink)

    def _take(
        self, channels: Channels, known: dict[bytes, Known], batches: Sequence[RawBatch], moment: _Moment
    ) -> None:
        """Take what a source read at one time: refuse what does not fit, put the rest into the queues."""
        source = channels.source
        book = self._books.sources[source.name]
        runs, refused = self._accept(channels, known, batches, moment)
        book.received += len(refused)
        for batch, position, plan in refused:
            event = self._refused(source, batch, position, moment)
            found = verdict.judge(event.raw, source, plan)
            assert isinstance(found, verdict.Rejected)
            self._reject(event, found)
        ready: dict[str, list[Event]] = {}
        sizes: dict[str, int] = {}
        for run in runs:
            ending, accepted = run.ending, run.accepted
            if not accepted:
                continue
            book.received += len(accepted)
            if ending.matched:
                book.routed += len(accepted)
            else:
                self._unmatched(book, ending, accepted)
            if ending.alone and ending.alone not in ready:
                ready[ending.alone], sizes[ending.alone] = accepted, run.size
                continue
            for number, target in enumerate(ending.targets):
                ready.setdefault(target.sink, []).extend(_copies(accepted, target) if number else accepted)
                sizes[target.sink] = sizes.get(target.sink, 0) + run.size
        for sink, deliveries in ready.items():
            self._put(sink, deliveries, sizes[sink])

    def _accept(
        self, channels: Channels, known: dict[bytes, Known], batches: Sequence[RawBatch], moment: _Moment
    ) -> tuple[list[_Run], list[tuple[RawBatch, int, Plan]]]:
        """Return the first delivery of every good message, in order, and which messages can't be taken.

        The hot path: nothing of our own is called for an event, nor for a batch of a channel that is known.
        """
        source, decode, ids = channels.source, channels.decode, self._ids
        name, format_, most, (_, received_at, prefix) = source.name, source.format, source.max_bytes, moment
        runs: list[_Run] = []
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
                except _UNREADABLE:
                    pass
                bad = bad or []
                bad.append(len(payloads) - left.__length_hint__() - 1)  # cheaper than to count the good ones
            if bad is not None:
                refused += [(batch, position, prepared.plan) for position in bad]
                good = _without(payloads, bad)
            if messages is not None:
                places = _without(range(len(payloads)), bad or ())
                ids.count = count
                self._make(runs, channels, found, batch, zip(places, messages, strict=True), moment)
                count, ending = ids.count, None
                continue
            if prepared.ending is not ending:
                assert prepared.ending is not None
                ending = prepared.ending
                run = _run(runs, ending)
                accepted, route, sink = run.accepted, ending.route, ending.sink
            if len(good) == 1:  # a comprehension for one would cost as much as the event
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

    def _make(  # noqa: PLR0917  # the loop's state, handed on by the loop alone
        self,
        runs: list[_Run],
        channels: Channels,
        known: Known,
        batch: RawBatch,
        messages: Iterable[tuple[int, Any]],
        moment: _Moment,
    ) -> None:
        """Make the first delivery of messages that are more than a payload, or whose payload decides; by their positions."""
        channel, pattern, prepared = known
        source, plain, warns, ending = channels.source, channels.source.plain, prepared.warns, prepared.ending
        payloads, ids, headers, receipt, first = batch.payloads, batch.ids, batch.headers, batch.receipt, batch.first
        run = None if ending is None else _run(runs, ending)
        for position, message in messages:
            payload = message if plain else message.payload
            if warns is not None and not warns.is_valid(payload):
                self._warn(prepared, source.name, channel, payload)
            if prepared.ending is None:
                ending = channels.ending(prepared.plan, payload)
                run = _run(runs, ending)
            assert ending is not None
            assert run is not None
            raw, format_ = payloads[position], source.format
            id_ = ids[position] if ids else None
            header = headers[position] if headers else None
            if not plain:
                id_ = message.id or id_
                header = {**(header or {}), **(message.headers or {})} or None
                format_ = message.format
                if ending.sink:  # the letter of an event that gets no further holds the whole message
                    raw = message.data
            if receipt is not None:
                receipt.expect(first + position, ending.expected)
            run.size += len(raw)
            run.accepted.append(
                Event(
                    id_ or self._ids.next(moment.now),
                    source.name,
                    channel,
                    pattern,
                    moment.received_at,
                    raw,
                    ending.route,
                    ending.sink,
                    format_,
                    header,
                    _receipt=receipt,
                    _position=first + position,
                )
            )

    def _put(self, sink: str, deliveries: list[Event], size: int) -> None:
        put = self._inboxes[sink]
        self._books.sinks[sink].planned += len(deliveries)
        put(deliveries, size)

    def _warn(self, prepared: Prepared, source: str, channel: str, payload: Any) -> None:
        """Tell of a payload that does not fit a schema of mode `warn`."""
        rule = prepared.plan.schema
        assert rule is not None
        assert rule.schema is not None
        found = verdict.places(rule.schema.errors(payload))
        message = "event does not fit its schema, mode warn lets it pass"
        self._notes.say(message, source, rule.file, source=source, channel=channel, detail=found)

    def _refused(self, source: SourceFormat, batch: RawBatch, position: int, moment: _Moment) -> Event:
        """Make the event of a message that can't be taken: one dead letter of it is to be expected."""
        if batch.receipt is not None:
            batch.receipt.expect(batch.first + position, 1)
        return Event(
            batch.ids[position] if batch.ids else self._ids.next(moment.now),
            source.name,
            events.text(batch.channel),
            pattern_text(batch.pattern),
            moment.received_at,
            batch.payloads[position],
            format=source.format if source.plain else events.JSON,
            headers=batch.headers[position] if batch.headers else None,
            _receipt=batch.receipt,
            _position=batch.first + position,
        )

    def _reject(self, event: Event, why: verdict.Rejected) -> None:
        """Count an event that can't be taken, keep its letter, and log what may be told."""
        self._books.sources[event.source].rejected[why.reason] += 1
        self._notes.say(
            "event rejected",
            event.source,
            why.reason,
            event_id=event.id,
            source=event.source,
            channel=event.channel,
            reason=str(why.reason),
            detail=why.told,
        )
        delivery_log.not_routed([event], "rejected", why.reason, why.detail)
        self._keep(event, why.reason, why.detail)

    def _unmatched(self, book: SourceBook, ending: Ending, accepted: list[Event]) -> None:
        """Count events that no route takes; tell of them and keep them where they go nowhere else."""
        book.unmatched += len(accepted)
        if ending.sink:
            return
        first = accepted[0]
        self._notes.say(
            "no route takes the events of this channel",
            first.source,
            times=len(accepted),
            channels=[event.channel for event in accepted[1:]],
            event_id=first.id,
            source=first.source,
            channel=first.channel,
        )
        delivery_log.not_routed(accepted, "unmatched")
        if self._keep_unmatched:
            for event in accepted:
                self._keep(event, Reason.UNMATCHED, "no route takes this channel")

    def _keep(self, event: Event, reason: Reason, detail: str) -> None:
        """Add the letter of an event that gets no further; the source hears of it when it is written."""
        letter = dead_letter_factory.of_delivery(event, reason, detail, now=self._clock.now(), attempts=0)
        receipt, position = event._receipt, event._position
        if receipt is not None:
            letter = msgspec.structs.replace(letter, written=partial(receipt.settle, position))
        self._dead_letters.add([letter])


def _run(runs: list[_Run], ending: Ending) -> _Run:
    """Return the run that events with this ending belong to: the last one, or a new one."""
    if runs:
        last = runs[-1].ending
        if last is ending or (last.alone and last.alone == ending.alone):
            return runs[-1]
    runs.append(_Run(ending, []))
    return runs[-1]


def _without(items: Sequence[T], bad: Sequence[int]) -> list[T]:
    """Return the items without those at some positions, which are in ascending order."""
    left = list(items)
    for position in reversed(bad):
        del left[position]
    return left


def _copies(accepted: Iterable[Event], target: Target) -> list[Event]:
    """Return copies of deliveries, bound for another sink or by another route."""
    return [
        Event(
            e.id,
            e.source,
            e.channel,
            e.pattern,
            e.received_at,
            e.raw,
            target.route,
            target.sink,
            e.format,
            e.headers,
            _receipt=e._receipt,
            _position=e._position,
        )
        for e in accepted
    ]
