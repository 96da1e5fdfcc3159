"""Processes for sinks that were registered with `execution="process"`; floor 5.

A process knows a sink by the drop-in it came from and its type; nothing of a plugin is pickled. One process serves one
delivery at a time, so that one that crashes or is killed for its timeout takes no other delivery with it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from router.engine.calling import accidents
from router.engine.calling.threads import DaemonThreads
from router.errors import PartialError, PermanentError, SinkError, TransientError, text_of
from router.events import Event
from router.options import SinkOptions
from router.plugin_contracts import SinkType
from router.plugin_loading.plugin_manager import load_plugins

_MOST_IDLE = 64  # processes kept for the next delivery; concurrency bounds them first

_Told = tuple[str, str, dict[str, Any]]
"""A failure on its way between processes: class name, text, and its other arguments."""

_ACCIDENT = accidents.RemoteError.__name__
_ERRORS = {kind.__name__: kind for kind in (TransientError, PermanentError, SinkError)}


class PluginProcesses:
    """The processes of one sink: started when needed, as many as deliveries are under way."""

    def __init__(self, kind: SinkType) -> None:
        self._kind = kind
        self._idle: list[_Child] = []
        self._threads = DaemonThreads(f"process of {kind.name}", 1000)

    async def deliver(self, event: Event, options: SinkOptions) -> str | None:
        """Deliver one event in a process of its own and return the answer; cancelled, the process is killed.

        Raises what the sink raised there, or `TransientError` when the process ended.
        """
        child = self._idle.pop() if self._idle else _Child(self._kind)
        try:
            told = await self._threads.run(child.call, event, options)
        except (OSError, EOFError) as error:
            child.kill()
            raise TransientError(f"the sink's process ended ({child.exit_code()})") from error
        except asyncio.CancelledError:
            child.kill()
            raise
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(child)
        else:
            child.kill()
        if told is None or isinstance(told, str):
            return told
        raise _error(told)

    def close(self) -> None:
        """End the processes."""
        for child in self._idle:
            child.kill()
        self._idle.clear()
        self._threads.close()


class _Child:
    def __init__(self, kind: SinkType) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        folder = str(Path(kind.origin).parent) if Path(kind.origin).is_absolute() else None
        self._process = context.Process(target=_serve, args=(theirs, folder, kind.name), daemon=True)
        self._started = False
        self._theirs = theirs

    def call(self, event: Event, options: SinkOptions) -> Any:
        """Hand one delivery over and wait for its outcome; runs in a thread."""
        if not self._started:
            self._process.start()
            self._theirs.close()
            self._started = True
        self._connection.send((event, options.model_dump()))
        return self._connection.recv()

    def kill(self) -> None:
        """End the process now."""
        if self._started:
            self._process.kill()
        self._connection.close()

    def exit_code(self) -> str:
        self._process.join(1)
        return f"exit code {self._process.exitcode}"


def _serve(connection: Connection, folder: str | None, name: str) -> None:
    """Serve as a sink's process: load the plugin, then deliver what comes until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the router's to answer
    kind = load_plugins([Path(folder)] if folder else []).sinks[name]
    while True:
        try:
            event, options = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(kind, event, kind.options.model_validate(options)))


def _outcome(kind: SinkType, event: Event, options: SinkOptions) -> _Told | dict[str, _Told] | str | None:
    """Return the answer of the sink, or what it raised."""
    try:
        answer = kind.sink(event, options)
    except PartialError as error:
        return {address: _told(failure) for address, failure in error.failures.items()}
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told to the router
        return _told(error)
    return answer if isinstance(answer, str) else None


def _told(error: Exception) -> _Told:
    kind = next((known for known in _ERRORS.values() if isinstance(error, known)), None)
    if kind is None:
        more = {"place": accidents.place_of(error), "trace": accidents.trace_of(error) or ""}
        return _ACCIDENT, f"{type(error).__name__}: {text_of(error)}", more
    return kind.__name__, text_of(error), {n: getattr(error, n) for n in ("retry_after", "scope") if hasattr(error, n)}


def _error(told: _Told | dict[str, _Told]) -> Exception:
    if isinstance(told, dict):
        return PartialError({address: _error(one) for address, one in told.items()})  # type: ignore[misc]  # told apart by name
    name, text, more = told
    return accidents.RemoteError(text, **more) if name == _ACCIDENT else _ERRORS[name](text, **more)
