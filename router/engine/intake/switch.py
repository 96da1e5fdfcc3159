"""What stands between the sources and the pipeline, so that another configuration can take the pipeline's place; floor 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from router.engine.intake.pipeline import Pipeline
from router.errors import Reason
from router.events import Event, RawBatch


class Way:
    """Leads to the pipeline in force, for what does not come from a source: fallbacks, summaries, replays."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None

    def now(self) -> Pipeline:
        """The pipeline in force."""
        assert self.pipeline is not None
        return self.pipeline

    def hand_over(self, sink: str, event: Event) -> None:
        """Put a delivery that another sink gave up into the queue of its fallback. Raises `KeyError` without that sink."""
        self.now().hand_over(sink, event)


class Intake:
    """Implements `contracts.Receiver` for one source: hands its batches to the pipeline that it is opened to.

    Before that, what is acknowledged is held, which its source bounds; what is not (pub/sub) is let go, for the
    configuration that wants it is not in force yet.
    """

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None
        self._held: list[Callable[[Pipeline], None]] = []

    def open(self, pipeline: Pipeline) -> None:
        """Hand everything to this pipeline from now on, first what was held."""
        self._pipeline = pipeline
        held, self._held = self._held, []
        for hand_on in held:
            hand_on(pipeline)

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
