"""The processes of sinks registered with `execution="process"`; floor 5.

A process finds the sink by the name of its type. It loads the plugin from the file contents that the router has read,
so an edited file has no effect before a reload. No object of a plugin is pickled. A process makes one delivery at a
time. So a crash of a process, or a kill after a timeout, affects no other delivery.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from router.engine.calling import accidents
from router.engine.calling.calls import answer_of
from router.engine.calling.threads import DaemonThreads
from router.errors import GoneError, PartialError, PermanentError, PluginError, SinkError, TransientError, text_of
from router.events import Event
from router.options import SinkOptions
from router.plugin_contracts import SinkType
from router.plugin_loading.plugin_manager import Plugins, load_again, load_plugins

_MOST_IDLE = 64  # the largest number of idle processes; usually the sink's concurrency is a lower limit
_LONGEST_END = 1.0  # seconds to wait for the end of a killed process

_Failure = tuple[str, str, dict[str, Any]]
"""An error in the form that is sent between processes: class name, text, other arguments."""

_ACCIDENT = accidents.RemoteError.__name__
_ERRORS = {kind.__name__: kind for kind in (TransientError, PermanentError, GoneError, SinkError, PluginError)}


class PluginProcesses:
    """The processes of one sink, started on demand. There is one process for each concurrent delivery."""

    def __init__(self, kind: SinkType) -> None:
        self._kind = kind
        self._idle: list[_Child] = []
        self._threads = DaemonThreads(f"process of {kind.name}", 1000)

    async def deliver(self, event: Event, options: SinkOptions) -> str | None:
        """Deliver one event in a separate process, and return the sink's answer or None.

        If the call is cancelled, the process is killed. Raises the error of the sink, or `TransientError` if the
        process can't be started or ends.
        """
        child = self._idle.pop() if self._idle else _Child(self._kind)
        try:
            outcome = await self._threads.run(child.call, event, options)
        except (TransientError, asyncio.CancelledError):
            child.kill()
            raise
        answer = outcome if isinstance(outcome, str) else None
        error = None if outcome is None or answer is not None else _error(outcome)
        # Do not use the process again after a `SinkError`: the process may have failed to load the plugin for lack of
        # memory.
        if len(self._idle) < _MOST_IDLE and not isinstance(error, SinkError):
            self._idle.append(child)
        else:
            await self._end([child])
        if error is not None:
            raise error
        return answer

    async def close(self) -> None:
        """End the idle processes and the threads."""
        idle, self._idle = self._idle, []
        await self._end(idle)
        self._threads.close()

    async def _end(self, children: Sequence[_Child]) -> None:
        """Kill processes and wait for their end, so that no zombie processes are left."""
        for child in children:
            child.kill()
        await asyncio.gather(*(self._threads.run(child.join) for child in children))


class _Child:
    def __init__(self, kind: SinkType) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind.name, kind.origin, kind.sources), daemon=True)
        self._started = False
        self._killed = False
        self._theirs = theirs

    def call(self, event: Event, options: SinkOptions) -> Any:
        """Send one delivery to the process, wait for the outcome, and return the outcome.

        This method is called in a thread. Raises `TransientError` if the process can't be started or ends.
        """
        try:
            if not self._started:
                self._start()
            self._connection.send((event, options.model_dump(by_alias=True)))
            return self._connection.recv()
        except (OSError, EOFError) as error:
            raise TransientError(f"the sink's process {self._ended(error)}") from error

    def _start(self) -> None:
        self._process.start()
        self._theirs.close()
        self._started = True
        if self._killed:  # `kill` was called during the start and could not kill the process yet
            self._process.kill()

    def _ended(self, error: Exception) -> str:
        """Kill the process if it is still running, and wait for its end.

        Return a description of the end for the error's text.
        """
        if not self._started:
            return f"could not be started: {text_of(error)}"
        self._process.kill()
        self._process.join(_LONGEST_END)
        return f"ended (exit code {self._process.exitcode})"

    def kill(self) -> None:
        """Kill the process."""
        self._killed = True
        if self._started:
            self._process.kill()
        self._connection.close()

    def join(self) -> None:
        """Wait for the end of the killed process, for at most `_LONGEST_END` seconds.

        This method is called in a thread.
        """
        if self._started:
            self._process.join(_LONGEST_END)


def _serve(connection: Connection, name: str, origin: str, sources: Mapping[Path, bytes]) -> None:
    """Run a sink's process: load only its plugin, then deliver until the router closes the connection."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal sends Ctrl-C to all processes, but only the router handles it
    drop_in = Path(origin)
    if drop_in.is_absolute():
        plugins = load_again(drop_in, sources)
    else:  # a built-in plugin or a package
        plugins = load_plugins(disable=lambda plugin: plugin.named != origin)
    kind = plugins.sinks.get(name)
    while True:
        try:
            event, options = connection.recv()
        except EOFError:
            return
        if kind is None:
            connection.send(_failure(SinkError(_unloaded(name, plugins))))
        else:
            connection.send(_outcome(kind, event, kind.options.model_validate(options)))


def _unloaded(name: str, plugins: Plugins) -> str:
    """Return the reason why a plugin process has no sink type `name`, although the router itself has loaded this
    type.
    """
    why = [plugin.error for plugin in plugins.failures if plugin.error]
    return f"its process could not load the plugin: {'; '.join(why) or f'the plugin registers no sink type {name}'}"


def _outcome(kind: SinkType, event: Event, options: SinkOptions) -> _Failure | dict[str, _Failure] | str | None:
    """Call the sink. Return its answer, or its error in the form that can be sent to the router."""
    try:
        return answer_of(kind.sink(event, options))
    except PartialError as error:
        return {address: _failure(each) for address, each in error.failures.items()}
    except Exception as error:  # noqa: BLE001  # any error is sent to the router
        return _failure(error)


def _failure(error: Exception) -> _Failure:
    kind = next((known for known in _ERRORS.values() if isinstance(error, known)), None)
    if kind is None:
        more = {"place": accidents.place_of(error), "trace": accidents.trace_of(error) or ""}
        return _ACCIDENT, accidents.described(error)[0], more
    return kind.__name__, text_of(error), {n: getattr(error, n) for n in ("retry_after", "scope") if hasattr(error, n)}


def _error(failure: _Failure | dict[str, _Failure]) -> Exception:
    if isinstance(failure, dict):
        # The checker of types can't know the class of each error, because the class is found by its name.
        return PartialError({address: _error(each) for address, each in failure.items()})  # type: ignore[misc]
    name, text, more = failure
    return accidents.RemoteError(text, **more) if name == _ACCIDENT else _ERRORS[name](text, **more)
