"""A single attempt to make one delivery, without a queue, retries or books; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import structlog

from router.contracts import Clock
from router.engine.calling.accidents import error_text
from router.engine.calling.calls import SinkCalls
from router.engine.calling.slots import GRACE, contained
from router.engine.delivery import delivery_log
from router.errors import PartialError, TransientError
from router.events import Event
from router.ops.logs import redacted
from router.plugin_contracts import Result

log = structlog.stdlib.get_logger(__name__)

R = TypeVar("R")


class AttemptResult(msgspec.Struct, frozen=True):
    """The result of a single attempt: the sink's answer, or its error. `seconds` is the duration of the call.

    `opened` is False if the sink could not be opened. Then no attempt was made. `abandoned` is True if a call did not
    return. Then its task still runs.
    """

    answer: str | None = None
    error: Exception | None = None
    seconds: float = 0.0
    opened: bool = True
    abandoned: bool = False


class SingleAttempt:
    """A single attempt of one sink: opening the sink, the attempt, and closing the sink.

    Each of these steps may take `limit` seconds.
    """

    def __init__(self, caller: SinkCalls, limit: float, clock: Clock) -> None:
        self._caller = caller
        self._limit = limit
        self._clock = clock
        self._abandoned = False

    async def make(self, event: Event, options: Any) -> AttemptResult:
        """Open the sink, make the attempt, close the sink, and return the result. A plugin that does not return is abandoned."""
        began = self._clock.monotonic()
        try:
            await self._limited(self._caller.open())
        except Exception as error:  # noqa: BLE001  # any error of the plugin is the result
            return self._result(event, began, error, opened=False)
        began = self._clock.monotonic()
        try:
            results = await self._limited(self._caller.deliver([(event, options)]))
        except Exception as error:  # noqa: BLE001  # as above
            made = self._result(event, began, error)
        else:
            made = self._result(event, began, results[0] if results else None)
        await self._close(event.sink)
        return msgspec.structs.replace(made, abandoned=self._abandoned)

    def _result(self, event: Event, began: float, result: Result, *, opened: bool = True) -> AttemptResult:
        """Return the result of a call that began at this monotonic time."""
        seconds = self._clock.monotonic() - began
        if not isinstance(result, Exception):
            return AttemptResult(result, seconds=seconds)
        if isinstance(result, PartialError) and not result.failures:
            return AttemptResult(seconds=seconds)  # no address has failed, so this is a success
        delivery_log.raised(event.sink, result, redacted)
        return AttemptResult(None, result, seconds, opened, self._abandoned)

    async def _close(self, sink: str) -> None:
        """Close the sink. Errors are only logged, because they do not affect the delivery."""
        try:
            await self._limited(self._caller.close())
        except Exception as error:  # noqa: BLE001  # any error of the plugin is logged
            log.warning("the sink did not close", sink=sink, error=error_text(error, redacted))

    async def _limited(self, call: Coroutine[Any, Any, R]) -> R:
        """Await a call of the plugin; return its result.

        Raises the errors of the call, and `TransientError` if the call is late. For the many calls of a daemon, `Slots`
        uses one timer and no extra tasks. For a single call, a task of its own is simpler.
        """
        task = asyncio.create_task(contained(call))
        done, _ = await asyncio.wait({task}, timeout=self._limit)
        if done:
            if task.cancelled():
                raise TransientError("the plugin cancelled itself")
            return task.result()
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=GRACE)
        if not done:
            self._abandoned = True
            log.error("the plugin ignored its timeout; its call was abandoned", timeout=self._limit)
        elif not task.cancelled():
            task.exception()  # if the cancelled plugin raised an error, asyncio would log it unless it is retrieved
        raise TransientError(f"timed out after {self._limit:g} s")
