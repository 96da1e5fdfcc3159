"""Dead letters that are to go again: taken from Redis, and put on their way; floor 5.

The command moves a letter from the stream of dead letters to another one. That is read here as any stream source reads
its own: by a consumer group, acknowledged last, with what a killed router left taken over. A letter with a sink goes to
that sink's queue, one without goes the whole way again; what the configuration no longer knows is a dead letter again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
import structlog

from router import events
from router.broker.dead_letters.dead_letter_store import letter_of, newer, unreadable
from router.broker.dead_letters.dead_letter_writer import Tally
from router.broker.dead_letters.replay_sweep import ReplaySweep
from router.broker.server.health import Health
from router.broker.server.link import cancelled
from router.broker.server.outage import Outage
from router.contracts import Clock, DeadLetters, Receipt, Source
from router.core.accounts.dead_letter_filter import delivery_of, received_at
from router.core.validation import DETAIL_BYTES
from router.engine.log_limits import LogLimits
from router.errors import ConfigError, Reason, UnavailableError
from router.escaping import cut
from router.events import DeadLetter, Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

NAME = "replay"
"""What the log calls it."""

TRY_AGAIN = 30.0
"""Seconds after which it is tried again, at most, where Redis refuses what replaying needs."""

LAST_SWEEP = 1.0
"""Seconds that the last round of the sweep may take at the end."""


class Way(Protocol):
    """The pipeline in force, as letters see it (`engine.intake.pipeline.Pipeline`)."""

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        """An event goes the whole way. Raises `KeyError` without that source."""

    def deliver(self, events: Sequence[Event]) -> None:
        """Deliveries go to the queues of their sinks."""

    def format_of(self, source: str) -> str | None:
        """Return how the payloads of a source are read."""

    def leads(self, route: str, sink: str) -> bool:
        """Return whether the configuration still knows such a delivery."""


class At(NamedTuple):
    """The entry that a letter came by."""

    receipt: Receipt
    position: int


class Replays:
    """Reads what is to be replayed while the router runs. It never keeps the router from starting, nor ends it.

    `source` reads the letters as any stream source does, and hands them to a `Replayer`.
    """

    def __init__(self, source: Source, sweep: ReplaySweep, clock: Clock) -> None:
        self.source = source
        self._sweep = sweep
        self._health = Health(
            source.address,
            Outage(clock),
            begins=partial(log.warning, "dead letters can't be replayed"),
            ends=partial(log.warning, "dead letters can be replayed again"),
            delays=(TRY_AGAIN, TRY_AGAIN),
        )
        self._task: asyncio.Task[None] | None = None
        self._started = False

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="replays")

    async def stop(self) -> None:
        """Take no more."""
        if self._task is None:
            return
        await self.source.stop()
        if not self._started:
            await cancelled([self._task])
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """After the drain: acknowledge what is over, and remove it."""
        if self._task is None:
            return
        await self.source.close()
        await self._sweep.close(LAST_SWEEP if self._started else 0.0)

    async def _run(self) -> None:
        while not self._started:
            try:
                await self.source.start()
                self._started = True
            except (ConfigError, UnavailableError) as error:
                await asyncio.sleep(self._health.failed(error))
        self._health.succeeded()
        self._sweep.start()
        try:
            await self.source.run()
        except Exception:
            log.exception("replaying dead letters ended by itself, which is a fault of the router")


class Replayer:
    """Implements `contracts.Receiver` for entries that are letters."""

    def __init__(self, way: Callable[[], Way], dead_letters: DeadLetters, clock: Clock) -> None:
        self._way = way
        self._dead_letters = dead_letters
        self._clock = clock
        self._notes = LogLimits(log, clock)
        self._unreadable = Tally(clock, "dead letters to be replayed can't be read: they stay where they are")

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:  # noqa: ARG002  # there is only one
        """Put these letters on their way. Never waits, never raises for a letter."""
        way = self._way()
        deliveries: list[Event] = []
        for batch in batches:
            for position, letter in enumerate(_letters(batch)):
                if letter is None:  # it stays pending: a newer router may know it
                    self._unreadable.add(1)
                    continue
                at = At(batch.receipt, position)
                payload_format = _format(letter.payload, way.format_of(letter.source))
                if letter.sink is None:
                    self._go_the_whole_way(way, letter, at)
                elif not way.leads(letter.route or "", letter.sink):
                    gone = f"no route {letter.route!r} leads to a sink {letter.sink!r}"
                    self._orphaned(letter, gone, at)
                elif payload_format is None:
                    self._back(letter, Reason.DECODE, "can't be replayed: the payload can't be decoded", at)
                else:
                    at.receipt.expect(position, 1)
                    deliveries.append(_delivery(letter, payload_format, at))
        if deliveries:
            way.deliver(deliveries)

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:  # noqa: ARG002  # as above
        """Make dead letters again of those that the stream source can't hand on."""
        for position, letter in enumerate(_letters(batch)):
            if letter is not None:
                self._back(letter, reason, detail, At(batch.receipt, position))

    def _go_the_whole_way(self, way: Way, letter: DeadLetter, at: At) -> None:
        if way.format_of(letter.source) is None:
            self._orphaned(letter, f"there is no source {letter.source!r}", at)
            return
        headers = None if letter.headers is None else dict(letter.headers)
        pattern = None if letter.pattern is None else letter.pattern.encode("utf-8", "surrogateescape")
        channel = letter.channel.encode("utf-8", "surrogateescape")
        batch = RawBatch(channel, pattern, [letter.payload], [letter.event_id], [headers], *at)
        way.again(letter.source, batch, received_at(letter))

    def _orphaned(self, letter: DeadLetter, gone: str, at: At) -> None:
        before = letter.reason if letter.reason == Reason.ORPHANED else f"{letter.reason}: {letter.detail}"
        self._back(letter, Reason.ORPHANED, f"can't be replayed: {gone} (before: {before})", at, gone)

    def _back(self, letter: DeadLetter, reason: Reason, detail: str, at: At, told: str | None = None) -> None:
        """Make it a dead letter again, under its id; it is over when that is written. The log is `told` no payload."""
        detail = cut(detail, DETAIL_BYTES)
        at.receipt.expect(at.position, 1)
        now = events.timestamp(datetime.fromtimestamp(self._clock.now(), UTC))
        written = partial(at.receipt.settle, at.position)
        again = msgspec.structs.replace(letter, reason=str(reason), detail=detail, failed_at=now, written=written)
        self._notes.say(
            "a dead letter can't be replayed",
            reason,
            event_id=letter.event_id,
            route=letter.route,
            sink=letter.sink,
            reason=str(reason),
            detail=told or detail,
        )
        self._dead_letters.add([again])


def _letters(batch: RawBatch) -> list[DeadLetter | None]:
    """The letters of a batch, None for one that a newer router wrote, or that is no letter."""
    headers: Sequence[Mapping[str, str] | None] = batch.headers or [None] * len(batch.payloads)
    found: list[DeadLetter | None] = []
    for payload, header in zip(batch.payloads, headers, strict=True):
        fields = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in (header or {}).items()}
        fields[b"payload"] = payload
        found.append(None if newer(fields) or unreadable(fields) else letter_of(fields))
    return found


def _delivery(letter: DeadLetter, payload_format: str, at: At) -> Event:
    """The delivery that the letter is of, its attempts counted anew."""
    return msgspec.structs.replace(
        delivery_of(letter), format=payload_format, _receipt=at.receipt, _position=at.position
    )


def _format(payload: bytes, of_source: str | None) -> str | None:
    """Return how the payload of a delivery is read: as its source's are; where that doesn't say, by what it is. None: in no way."""
    known = (events.JSON, events.TEXT)
    for one in (of_source,) if of_source in known else known:
        try:
            events.decode(payload, one)
        except (ValueError, RecursionError):
            continue
        return one
    return None
