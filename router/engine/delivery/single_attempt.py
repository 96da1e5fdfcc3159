"""A single attempt of one delivery by one sink, without queue, retries and books; floor 5."""

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
    """The result of a single attempt: the sink's answer, or its error; `seconds` is the duration of the call.

    `opened` is False if the sink could not be opened, so that it was not called. `abandoned` is True if a call did not
    return: its task still runs.
    """

    answer: str | None = None
    error: Exception | None = None
    seconds: float = 0.0
    opened: bool = True
    abandoned: bool = False


class SingleAttempt:
    """An attempt of a sink that is opened for it. Opening, attempt and closing may take `limit` seconds each."""

    def __init__(self, caller: SinkCalls, limit: float, clock: Clock) -> None:
        self._caller = caller
        self._limit = limit
        self._clock = clock
        self._abandoned = False

    async def make(self, event: Event, options: Any) -> AttemptResult:
        """Open the sink, make the attempt, and close the sink. A plugin that does not return is abandoned."""
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
            return AttemptResult(seconds=seconds)  # no address has failed
        delivery_log.raised(event.sink, result, redacted)
        return AttemptResult(None, result, seconds, opened, self._abandoned)

    async def _close(self, sink: str) -> None:
        """Close the sink. Its errors concern no delivery and are only logged."""
        try:
            await self._limited(self._caller.close())
        except Exception as error:  # noqa: BLE001  # any error of the plugin is logged
            log.warning("the sink did not close", sink=sink, error=error_text(error, redacted))

    async def _limited(self, call: Coroutine[Any, Any, R]) -> R:
        """Await a call of the plugin. Raises its errors, and `TransientError` if it is late.

        `Slots` do the same for the calls of a daemon, by one timer and without a task for each call. A single call needs
        neither: it has a task of its own.
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
            task.exception()  # the plugin may answer its cancellation with an error, which must be retrieved
        raise TransientError(f"timed out after {self._limit:g} s")
