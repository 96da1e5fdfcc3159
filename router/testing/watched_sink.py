"""The record of the calls that a worker makes to a sink under test; floor 7.

Each record has the arguments, the results, and the changes that the sink made to the arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from router.engine.calling.calls import Batch, SinkCalls
from router.engine.calling.slots import contained
from router.errors import TransientError
from router.events import Event
from router.ops.redaction import plain_options
from router.plugin_contracts import Result


class Call(msgspec.Struct):
    """A call of a sink. `error` is the exception that the call raised. `results` are the values that it returned."""

    events: list[Event]
    results: Sequence[Result] | None = None
    error: Exception | None = None
    ended: bool = False
    cancelled: bool = False
    """True if the call was cancelled because it took too long."""
    obeyed: bool = False
    """True if the call ended because of its cancellation."""
    changed: list[str] = msgspec.field(default_factory=list)
    """The parts of events and options that the sink has changed."""

    @property
    def errors(self) -> list[Exception]:
        """The failures of the whole call or of its deliveries."""
        if self.error is not None:
            return [self.error]
        return [result for result in self.results or () if isinstance(result, Exception)]


class WatchedSink:
    """An implementation of `SinkCalls` that passes each call on to the sink's own caller, and records it in `calls`.

    `when_open` is called after the sink was opened.
    """

    def __init__(self, caller: SinkCalls, when_open: Callable[[], None]) -> None:
        self._caller = caller
        self._when_open = when_open
        self.opened = False
        self.takes_batches = caller.takes_batches
        self.calls: list[Call] = []
        self.closed = False
        self.errors: list[Exception] = []
        """The errors that `open` and `close` raised."""

    async def open(self) -> None:
        """Open the sink."""
        try:
            await contained(self._caller.open())
        except Exception as error:
            self.errors.append(error)
            raise
        self.opened = True
        self._when_open()

    async def deliver(self, batch: Batch) -> Sequence[Result] | None:
        """Deliver a batch, and record the call and its results."""
        call = Call([event for event, _ in batch])
        before = [_seen(event, options) for event, options in batch]
        self.calls.append(call)
        try:
            call.results = await contained(self._caller.deliver(batch))
        except asyncio.CancelledError:
            call.obeyed = _is_cancelled()
            call.error = None if call.obeyed else TransientError("the plugin cancelled itself")
            raise
        except Exception as error:
            call.error = error
            raise
        finally:
            call.ended = True
            call.cancelled = _is_cancelled()
            for (event, options), earlier in zip(batch, before, strict=True):
                now = _seen(event, options)
                call.changed += [name for name, value in now.items() if value != earlier.get(name)]
        return call.results

    async def close(self) -> None:
        """Close the sink."""
        try:
            await contained(self._caller.close())
        except Exception as error:
            self.errors.append(error)
            raise
        self.closed = True


def _is_cancelled() -> bool:
    """Return whether the current task has been cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _seen(event: Event, options: Any) -> dict[str, Any]:
    """Return a copy of everything that a sink could change."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if not name.startswith("_")}
    headers = None if event.headers is None else dict(event.headers)
    return {**fields, "headers": headers, "payload": repr(event.payload), "options": plain_options(options, whole=True)}
