"""The parts of a running router, and the objects that they share; floor 5."""

from __future__ import annotations

import msgspec

from router.broker.dead_letters.dead_letter_writer import DeadLetterWriter
from router.broker.groups.crash_isolation import CrashIsolation
from router.contracts import Queue, Source, Switchable
from router.core.accounts.books import Books, SinkBook
from router.core.ids import Ids
from router.engine.calling.context import Context
from router.engine.composition_queues import Durable
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.engine.dead_letters.replays import Replays
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.worker import SinkWorker
from router.engine.expression_failures import ExpressionFailures
from router.engine.intake.switch import CurrentPipeline, Intake
from router.engine.lookups.lookup_set import LookupSet
from router.engine.runtime import Runtime
from router.ops.loading import Loaded
from router.ops.logs import redacted
from router.ops.metrics import SinkMeter


class Shared(msgspec.Struct, frozen=True):
    """The objects that live as long as the process, across reloads."""

    runtime: Runtime
    books: Books
    outcomes: dict[str, Outcomes]
    """The outcomes by sink name. The books of these outcomes are also in `books`, and the meters in `meters`."""
    meters: dict[str, SinkMeter]
    ids: Ids
    current: CurrentPipeline
    letters: DeadLetterSummaries
    writer: DeadLetterWriter | None
    """The writer of dead letters; None with `deliver: print`, which writes nothing to Redis."""
    durable: Durable | None
    """The shared objects of the Redis queues; None with `deliver: print`."""
    replays: Replays | None
    """The replay of dead letters; None with `deliver: print`."""
    isolation: CrashIsolation
    """The crash isolation, which all sources and Redis queues share."""
    failures: ExpressionFailures = msgspec.field(default_factory=ExpressionFailures)

    def outcomes_of(self, name: str) -> Outcomes:
        """Return the outcomes of a sink. All workers and queues of the sink use the same object, also after reloads."""
        if name not in self.outcomes:
            self.outcomes[name] = Outcomes(
                name,
                book=self.books.sinks.setdefault(name, SinkBook()),
                meter=self.meters.setdefault(name, SinkMeter()),
                dead_letters=self.letters,
                clock=self.runtime.clock,
                hand_over=self.current.hand_over,
                redact=redacted,
                letters_shown=self.writer is None,
            )
        return self.outcomes[name]

    def forget_sink(self, name: str) -> None:
        """Forget the outcomes of a new sink, because the configuration with this sink was rejected."""
        for known in (self.outcomes, self.books.sinks, self.meters):
            known.pop(name, None)


class Parts(msgspec.Struct):
    """The parts of one router, connected with each other. A reload replaces some of them."""

    loaded: Loaded
    shared: Shared
    sources: dict[str, SourcePart]
    sinks: dict[str, SinkPart]
    lookups: LookupSet
    """The lookups of the current configuration."""
    leaving_sources: list[Source] = msgspec.field(default_factory=list)
    """Sources that a reload removed or replaced, and that still have entries in flight."""
    leaving_sinks: dict[str, SinkPart] = msgspec.field(default_factory=dict)
    """Sinks that a reload removed from the configuration and that still have deliveries."""
    retiring: list[SinkPart] = msgspec.field(default_factory=list)
    """Sinks with a worker that is being replaced or removed."""

    def every_source(self) -> list[Source]:
        """Return the sources of the current configuration, and removed or replaced sources that still have entries in
        flight.
        """
        return [*(part.source for part in self.sources.values()), *self.leaving_sources]

    def every_sink(self) -> dict[str, SinkPart]:
        """Return the sinks of the current configuration, and removed sinks that still have deliveries, by name."""
        return {**self.leaving_sinks, **self.sinks}

    def every_part(self) -> list[SinkPart]:
        """Return the sinks of the current configuration, and all other sinks with a worker that has not ended."""
        return [*self.retiring, *self.sinks.values()]

    def every_queue(self) -> list[Queue]:
        """Return the queues of `every_part`, each once.

        A worker that retires may share its queue with its successor.
        """
        return list(dict.fromkeys(part.worker.queue for part in self.every_part()))


class SourcePart(msgspec.Struct, frozen=True):
    """A source with the intake that receives its batches."""

    source: Source
    intake: Intake
    switchable: Switchable | None = None
    """The source itself if it can change its channels while it reads, else None."""


class SinkPart(msgspec.Struct, frozen=True):
    """A sink: its type, its worker with the queue, and the context of its plugin."""

    type: str
    worker: SinkWorker
    context: Context
