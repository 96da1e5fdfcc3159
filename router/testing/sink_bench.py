"""One sink that runs in the router's own worker, for the conformance check of the sink; floor 7."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec
from msgspec.structs import replace

from router.config.models import BreakerConfig, RetryConfig
from router.engine.calling.calls import SinkCalls
from router.engine.calling.slots import GRACE
from router.engine.composition import sink_part
from router.engine.lookups.lookup_set import NO_LOOKUPS
from router.errors import Reason
from router.events import DeadLetter, Event, size_of
from router.ops.loading import Loaded
from router.testing.configuration import NAME
from router.testing.in_process import KeptLetters, runtime, shared_of
from router.testing.observing import until
from router.testing.watched_sink import Call, WatchedSink

PATIENCE = 5.0
"""Seconds within which deliveries must be settled, in addition to the timeout of an attempt."""

_numbers = count(1)


class SinkBench:
    """A sink as it is configured, but with quick retries, without a rate limit and without a fallback.

    `limit` replaces the timeout of a delivery, in seconds, once the sink is open.
    """

    def __init__(self, loaded: Loaded, limit: float | None = None) -> None:
        host = loaded.config.sinks[NAME].host
        self.timeout = host.timeout if limit is None else limit
        """Seconds for one attempt."""
        changes: dict[str, Any] = {
            "retry": RetryConfig.model_construct(initial=0.01, max_delay=0.02),
            "breaker": BreakerConfig.model_construct(failures=5, reset=0.02),
            "rate": None,
            "fallback": [],
        }
        sink = loaded.config.sinks[NAME].model_copy(update={"host": host.model_copy(update=changes)})
        config = loaded.config.model_copy(update={"sinks": {**loaded.config.sinks, NAME: sink}})
        self._loaded = replace(loaded, config=config)
        self._kept = KeptLetters()
        self.watched: WatchedSink
        self._shared = shared_of(self._loaded, runtime(redis_url=str(config.redis.url)), self._kept)
        self._part = sink_part(NAME, self._loaded, self._shared, NO_LOOKUPS, wrap=self._watch)
        self._worker = self._part.worker

    def _watch(self, caller: SinkCalls) -> SinkCalls:
        self.watched = WatchedSink(caller, self._opened)
        return self.watched

    def _opened(self) -> None:
        self._worker.timeout = self.timeout

    @property
    def calls(self) -> list[Call]:
        """The calls of the sink so far."""
        return self.watched.calls

    @property
    def letters(self) -> list[DeadLetter]:
        """The dead letters so far."""
        return self._kept.letters

    @property
    def suppressed(self) -> list[Reason]:
        """The reasons for which deliveries were suppressed so far."""
        return list(self._shared.books.sinks[NAME].suppressed)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker during the block, and close the sink at the end."""
        self._worker.start()
        try:
            yield
        finally:
            await self._worker.close()
            await self._part.context.close()

    async def release(self) -> None:
        """Close the connections of calls that still ran when the sink was closed.

        Such calls swallow their cancellation.
        """
        await self._part.context.close()

    def put(self, event: Event, number: int = 1) -> None:
        """Put a number of deliveries of an event into the queue, each with its own id."""
        events = [fresh(event) for _ in range(number)]
        self._worker.queue.put(events, size_of(events))

    async def settled(self) -> bool:
        """Wait until all deliveries are settled; return whether they are."""
        return await until(lambda: not self._worker.queue.events, self.timeout + GRACE + PATIENCE)

    async def called(self, calls: int, patience: float = PATIENCE) -> Call | None:
        """Wait until the next call after the first `calls` calls has ended; return this next call.

        Return None if the call has not ended `patience` seconds after its time limit. Also return None if there is no
        such call, because the delivery could not be prepared.
        """

        def over() -> bool:
            return self.calls[calls].ended if len(self.calls) > calls else not self._worker.queue.events

        ended = await until(over, self.timeout + GRACE + patience)
        return self.calls[calls] if ended and len(self.calls) > calls else None


def fresh(event: Event, **changes: Any) -> Event:
    """Return a copy of an event with a new id. The payload of the copy is decoded again."""
    changed = {"id": f"check-{next(_numbers)}", "route": "all", "sink": NAME, "_payload": msgspec.UNSET, **changes}
    return msgspec.structs.replace(event, **changed)
