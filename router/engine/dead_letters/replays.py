"""The replay of dead letters; floor 5.

`event-router dlq replay` moves a letter from the stream of dead letters to the replay stream. A stream source reads the
replay stream with a consumer group. The source acknowledges each complete entry, and claims entries of dead routers. A
letter that names a sink is put into the queue of this sink. A letter without a sink passes through the whole pipeline
again. If the source, route or sink of a letter does not exist any more, the letter becomes a dead letter again.
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
from router.core.accounts.dead_letter_filter import delivery_of, format_of, received_at
from router.core.validation import DETAIL_BYTES
from router.engine.log_limits import LogLimits
from router.errors import ConfigError, Reason, UnavailableError
from router.escaping import cut
from router.events import DeadLetter, Event, RawBatch

log = structlog.stdlib.get_logger(__name__)

NAME = "replay"
"""The name of the source in the log."""

TRY_AGAIN = 30.0
"""Seconds between two attempts to start the replay, while Redis refuses a command that the replay needs."""

LAST_SWEEP = 1.0
"""Seconds allowed for the last sweep, at the end of the process."""


class ReplayPipeline(Protocol):
    """The methods of the current pipeline (`engine.intake.pipeline.Pipeline`) that a replay uses."""

    def again(self, source: str, batch: RawBatch, received_at: datetime) -> None:
        """Pass an event through the whole pipeline. Raises `KeyError` for an unknown source."""

    def deliver(self, events: Sequence[Event]) -> None:
        """Put deliveries into the queues of their sinks."""

    def format_of(self, source: str) -> str | None:
        """Return the format of a source; None for an unknown source."""

    def leads(self, route: str, sink: str) -> bool:
        """Return whether the current configuration has this route, and the route leads to this sink."""


class At(NamedTuple):
    """The place of a letter: the receipt of its batch, and its position in the batch."""

    receipt: Receipt
    position: int


class Replays:
    """The replay of dead letters while the router runs. If the replay fails, the router starts and runs without it.

    `source` is a stream source that reads the replay stream. Its receiver is a `Replayer`.
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
        """Start replaying in the background."""
        self._task = asyncio.create_task(self._run(), name="replays")

    async def stop(self) -> None:
        """Stop reading letters."""
        if self._task is None:
            return
        await self.source.stop(0)
        if not self._started:
            await cancelled([self._task])
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Acknowledge and remove the replayed letters. Call this method after the drain."""
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
            log.exception(
                "the replay of dead letters ended because of a fault of the router; restart the router to start it again"
            )


class Replayer:
    """The receiver of the entries of the replay stream. Implements `contracts.Receiver`."""

    def __init__(self, pipeline: Callable[[], ReplayPipeline], dead_letters: DeadLetters, clock: Clock) -> None:
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._clock = clock
        self._notes = LogLimits(log, clock)
        self._unreadable = Tally(
            clock, "dead letters can't be replayed, because this router can't read them: they stay in the replay stream"
        )

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:  # noqa: ARG002  # there is only one source
        """Replay the letters of these batches. Never waits, and raises no exception because of a letter."""
        pipeline = self._pipeline()
        deliveries: list[Event] = []
        for batch in batches:
            for position, letter in enumerate(_letters(batch)):
                if letter is None:  # the entry stays pending: a newer router may be able to read it
                    self._unreadable.add(1)
                    continue
                at = At(batch.receipt, position)
                payload_format = format_of(letter, pipeline.format_of(letter.source))
                if letter.sink is None:
                    self._replay_event(pipeline, letter, at)
                elif not pipeline.leads(letter.route or "", letter.sink):
                    self._orphaned(
                        letter, f"the configuration has no route {letter.route!r} to a sink {letter.sink!r}", at
                    )
                elif payload_format is None:
                    self._back(letter, Reason.DECODE, "can't be replayed: the payload can't be decoded", at)
                else:
                    at.receipt.expect(position, 1)
                    deliveries.append(_delivery(letter, payload_format, at))
        if deliveries:
            pipeline.deliver(deliveries)

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:  # noqa: ARG002  # as above
        """Turn the letters in refused entries into dead letters again. The stream source has refused these entries."""
        for position, letter in enumerate(_letters(batch)):
            if letter is not None:
                self._back(letter, reason, detail, At(batch.receipt, position))

    def _replay_event(self, pipeline: ReplayPipeline, letter: DeadLetter, at: At) -> None:
        """Pass the event of a letter through the whole pipeline."""
        if pipeline.format_of(letter.source) is None:
            self._orphaned(letter, f"there is no source {letter.source!r}", at)
            return
        headers = None if letter.headers is None else dict(letter.headers)
        pattern = None if letter.pattern is None else letter.pattern.encode("utf-8", "surrogateescape")
        channel = letter.channel.encode("utf-8", "surrogateescape")
        batch = RawBatch(channel, pattern, [letter.payload], [letter.event_id], [headers], *at)
        pipeline.again(letter.source, batch, received_at(letter))

    def _orphaned(self, letter: DeadLetter, why: str, at: At) -> None:
        before = letter.reason if letter.reason == Reason.ORPHANED else f"{letter.reason}: {letter.detail}"
        self._back(letter, Reason.ORPHANED, f"can't be replayed: {why} (before the replay: {before})", at, why)

    def _back(self, letter: DeadLetter, reason: Reason, detail: str, at: At, logged: str | None = None) -> None:
        """Turn a letter into a dead letter again, with the same id. Its entry is settled when the letter is written.

        `logged` is the text for the log; None means that `detail` is logged. It must be given if `detail` may quote a
        payload.
        """
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
            detail=logged or detail,
        )
        self._dead_letters.add([again])


def _letters(batch: RawBatch) -> list[DeadLetter | None]:
    """Return the letter in each entry of a batch.

    The letter is None if a newer router wrote the entry, or if the entry is not a letter.
    """
    headers: Sequence[Mapping[str, str] | None] = batch.headers or [None] * len(batch.payloads)
    found: list[DeadLetter | None] = []
    for payload, header in zip(batch.payloads, headers, strict=True):
        fields = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in (header or {}).items()}
        fields[b"payload"] = payload
        letter = letter_of(fields)
        found.append(None if newer(fields) or unreadable(fields, letter) else letter)
    return found


def _delivery(letter: DeadLetter, payload_format: str, at: At) -> Event:
    """Return the delivery of a letter. Its attempts start again at 1."""
    return msgspec.structs.replace(
        delivery_of(letter), format=payload_format, _receipt=at.receipt, _position=at.position
    )
