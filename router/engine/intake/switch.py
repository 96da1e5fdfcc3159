"""The objects between the sources and the pipeline, with which a reload replaces the pipeline; floor 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from router.engine.intake.pipeline import Pipeline
from router.errors import Reason
from router.events import Event, RawBatch


class CurrentPipeline:
    """The holder of the current pipeline, for events that do not come from a source: fallbacks, summaries, replays."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None

    def now(self) -> Pipeline:
        """Return the current pipeline."""
        assert self.pipeline is not None
        return self.pipeline

    def hand_over(self, sink: str, event: Event) -> None:
        """Enqueue a fallback delivery for this sink. Raises `KeyError` if the sink does not exist."""
        self.now().hand_over(sink, event)


class Intake:
    """The receiver of one source's batches, which passes them to a pipeline as soon as `open` has set one.

    Implements `contracts.Receiver`. A reload connects a new source before the new configuration takes effect. Until
    `open` is called, batches with a receipt are kept. The source limits the number of kept batches. Batches without a
    receipt (pub/sub) are discarded, because the current configuration does not subscribe to their channels.
    """

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None
        self._held: list[Callable[[Pipeline], None]] = []

    def open(self, pipeline: Pipeline) -> None:
        """Pass the kept batches, and all later ones, to this pipeline."""
        self._pipeline = pipeline
        held, self._held = self._held, []
        for pass_on in held:
            pass_on(pipeline)

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Implements `contracts.Receiver`."""
        if self._pipeline is not None:
            self._pipeline.receive(source, batches)
        elif kept := [batch for batch in batches if batch.receipt is not None]:
            self._held.append(partial(Pipeline.receive, source=source, batches=kept))

    def refuse(self, source: str, batch: RawBatch, reason: Reason, detail: str) -> None:
        """Implements `contracts.Receiver`."""
        if self._pipeline is not None:
            self._pipeline.refuse(source, batch, reason, detail)
        elif batch.receipt is not None:
            self._held.append(partial(Pipeline.refuse, source=source, batch=batch, reason=reason, detail=detail))
