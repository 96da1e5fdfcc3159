"""The parts of a running router, and what they share; floor 5."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.broker.dead_letters.dead_letter_writer import DeadLetterWriter
from router.broker.groups.crash_isolation import CrashIsolation
from router.contracts import Source, Switchable
from router.core.accounts.books import Books, SinkBook
from router.core.ids import Ids
from router.engine.calling.context import Context
from router.engine.composition_queues import Durable
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.engine.dead_letters.replays import Replays
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.worker import SinkWorker
from router.engine.expression_failures import ExpressionFailures
from router.engine.intake.switch import Intake, Way
from router.engine.runtime import Runtime
from router.ops.loading import Loaded
from router.ops.logs import redacted
from router.ops.metrics import SinkMeter


@dataclass(frozen=True, slots=True)
class Shared:
    """What stays the same as long as the process lives, whatever is reloaded."""

    around: Runtime
    books: Books
    outcomes: dict[str, Outcomes]
    """What ends deliveries, by sink; its books are in `books` too, its meters in `meters`."""
    meters: dict[str, SinkMeter]
    ids: Ids
    way: Way
    letters: DeadLetterSummaries
    writer: DeadLetterWriter | None
    """None under `deliver: print`: then nothing is written to Redis."""
    durable: Durable | None
    """What the Redis queues share; None under `deliver: print`."""
    replays: Replays | None
    """What takes the dead letters that are to go again; None under `deliver: print`."""
    isolation: CrashIsolation
    """Of everything whose deliveries may end the process."""
    failures: ExpressionFailures = field(default_factory=ExpressionFailures)

    def outcomes_of(self, name: str) -> Outcomes:
        """Return what ends the deliveries of a sink: the same for all workers and queues that the sink ever has."""
        if name not in self.outcomes:
            self.outcomes[name] = Outcomes(
                name,
                book=self.books.sinks.setdefault(name, SinkBook()),
                meter=self.meters.setdefault(name, SinkMeter()),
                dead_letters=self.letters,
                clock=self.around.clock,
                hand_over=self.way.hand_over,
                redact=redacted,
            )
        return self.outcomes[name]

    def forget_sink(self, name: str) -> None:
        """Forget what `outcomes_of` made for a sink that never came into force."""
        for known in (self.outcomes, self.books.sinks, self.meters):
            known.pop(name, None)


@dataclass(slots=True)
class Parts:
    """The parts of one router, joined. A reload puts others in their place."""

    loaded: Loaded
    shared: Shared
    sources: dict[str, SourcePart]
    sinks: dict[str, SinkPart]
    leaving_sources: list[Source] = field(default_factory=list)
    """Those that a reload took out and that have something in hand still."""
    leaving_sinks: dict[str, SinkPart] = field(default_factory=dict)
    """Those that a reload took out of the configuration and that have something to do still."""
    retiring: list[SinkPart] = field(default_factory=list)
    """Those that make room for others of their name, or for nobody."""

    def every_source(self) -> list[Source]:
        """Those in force, and those that leave."""
        return [*(part.source for part in self.sources.values()), *self.leaving_sources]

    def every_sink(self) -> dict[str, SinkPart]:
        """Those in force, and those that leave."""
        return {**self.leaving_sinks, **self.sinks}

    def every_part(self) -> list[SinkPart]:
        """The sinks in force, and all whose workers have not ended."""
        return [*self.retiring, *self.sinks.values()]


@dataclass(frozen=True, slots=True)
class SourcePart:
    """One source, and what it hands its batches to."""

    source: Source
    intake: Intake
    switchable: Switchable | None = None
    """The source, where it can take other channels while it reads."""


@dataclass(frozen=True, slots=True)
class SinkPart:
    """One sink of a type: its worker, with the queue, and what the plugin was given to work with."""

    type: str
    worker: SinkWorker
    context: Context
