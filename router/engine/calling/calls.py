"""The caller of sinks, which hides how a plugin implements its sink; floor 5.

A plugin registers an async function, a class, or a plain function. Plain functions are called in daemon threads or
processes of the sink. `Caller` has the same coroutines `open`, `deliver` and `close` for every kind of sink.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from router.core.plugin_signatures import takes_context
from router.engine.calling.threads import DaemonThreads
from router.errors import PluginError, class_and_text
from router.events import Event
from router.options import SinkOptions
from router.plugin_contracts import Result, SinkContext, SinkType
from router.wording import counted

if TYPE_CHECKING:
    from router.engine.calling.plugin_processes import PluginProcesses

Deliver = Callable[..., Awaitable[Any]]
Batch = Sequence[tuple[Event, Any]]


class SinkCalls(Protocol):
    """The calls that a worker makes to one sink."""

    takes_batches: bool
    """True if one call takes several deliveries."""

    async def open(self) -> None:
        """Open the sink."""

    async def deliver(self, batch: Batch) -> Sequence[Result] | None:
        """Deliver a batch; return a result for each delivery, or None if all deliveries succeeded."""

    async def close(self) -> None:
        """Close the sink."""


class Caller:
    """Implements `SinkCalls` for a configured sink.

    The constructor raises any exception that the `__init__` of the plugin's class raises.
    """

    def __init__(self, kind: SinkType, options: SinkOptions, context: SinkContext, threads: DaemonThreads) -> None:
        self._context = context
        self._threads = threads
        self._processes: PluginProcesses | None = None
        self._sink = _made(kind.sink, options)
        self.takes_batches = hasattr(self._sink, "deliver_batch")
        self._deliver = self._awaitable(self._sink.deliver_batch) if self.takes_batches else self._single(kind)

    def _single(self, kind: SinkType) -> Deliver:
        if kind.execution == "process":
            from router.engine.calling.plugin_processes import PluginProcesses  # noqa: PLC0415  # few sinks need it

            self._processes = PluginProcesses(kind)
            return self._processes.deliver
        function = kind.sink if self._sink is None else self._sink.deliver
        deliver = self._awaitable(function)
        if self._sink is None and takes_context(function):
            return lambda event, options: deliver(event, options, self._context)
        return deliver

    def _awaitable(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return an async function that calls `function`. A plain function is called in a thread of this sink."""
        if _is_async(function):
            return function

        async def in_thread(*args: Any) -> Any:
            result = await self._threads.run(function, *args)
            if inspect.iscoroutine(result):
                result.close()
                raise PluginError("the plugin returned a coroutine: write `async def` instead of `def`")
            return result

        return in_thread

    async def open(self) -> None:
        """Open the sink. Does nothing for functions."""
        await self._lifecycle("open", self._context)

    async def deliver(self, batch: Batch) -> Sequence[Result] | None:
        """Deliver a batch.

        For a sink that takes no batches, the batch must consist of one delivery. Returns a result for each delivery, or
        None if all deliveries succeeded. Raises the errors of the sink. Raises `PluginError` if `deliver_batch`
        returns anything but such results or None, and for a value of `deliver` that `answer_of` refuses.
        """
        if not self.takes_batches:
            answer = answer_of(await self._deliver(*batch[0]))
            return None if answer is None else [answer]
        results = await self._deliver(batch)
        if results is None:
            return None
        # `list` comes first because the check for an abstract class takes longer.
        if isinstance(results, str) or not isinstance(results, list | Sequence):
            raise PluginError(
                f"deliver_batch returned a value of type {type(results).__name__}: return None, or a list with one result "
                "for each delivery of the batch"
            )
        if len(results) != len(batch):
            raise PluginError(
                f"deliver_batch returned {counted(len(results), 'result')} for {counted(len(batch), 'delivery', 'deliveries')}: "
                "return one result for each delivery of the batch"
            )
        if not delivers_all(results) and not all(
            result is None or isinstance(result, str | Exception) for result in results
        ):
            raise PluginError("deliver_batch returned a result that is neither None, a str nor an exception")
        return results

    async def close(self) -> None:
        """Close the sink."""
        await self._lifecycle("close")
        if self._processes:
            await self._processes.close()

    async def _lifecycle(self, name: str, *args: Any) -> None:
        method = getattr(self._sink, name, None)
        if method is not None:
            await self._awaitable(method)(*args)


def answer_of(returned: Any) -> str | None:
    """Return the answer of a sink to one delivery: the returned value if it is a str, else None.

    Raises `PluginError` for a coroutine or an exception. A coroutine shows that the plugin lacks an `await`, an
    exception that it lacks a `raise`. In both cases, the event was not delivered. All other values are ignored.
    """
    if isinstance(returned, str):
        return returned
    if inspect.iscoroutine(returned):
        returned.close()
        raise PluginError("the plugin returned a coroutine that did not run: write `await` before the call")
    if isinstance(returned, BaseException):
        raise PluginError(f"the plugin returned an exception instead of raising it: {class_and_text(returned)}")
    return None


_ANSWERS = frozenset({str, NoneType})


def delivers_all(results: Sequence[Result]) -> TypeGuard[Sequence[str | None]]:
    """Return True if every result is None or a str.

    A sink that writes a whole batch at once, such as `log`, returns the same answer for every event. So the function
    counts the results that are equal to the first result. This is ten times as fast as checking the type of each result.
    """
    if results and type(results[0]) in _ANSWERS and results.count(results[0]) == len(results):
        return True
    return _ANSWERS.issuperset(map(type, results))


def _made(sink: Any, options: SinkOptions) -> Any:
    """Return an instance of the sink if it is a class, else None."""
    return sink(options) if isinstance(sink, type) else None


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
