"""The observation of plugin code, for conformance checks; floor 7.

The observation covers log lines, leftover tasks, leftover sockets, and places that block the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import structlog.testing

from router.engine.calling.accidents import described
from router.engine.calling.slots import GRACE
from router.engine.calling.stall import StallWatch
from router.ops.loading import Loaded
from router.ops.redaction import Redactor
from router.testing.configuration import code_of
from router.testing.report import Findings

RULES_OF_ALL_PLUGINS = {
    "blocking": "the event loop is never blocked",
    "secrets": "no secret is logged",
    "tasks": "no task is left after close",
    "sockets": "no socket is left after close",
}
"""The rules that an observation judges, both for sinks and for lookups, by the names of their checks."""

LOOK_EVERY = 0.01
"""Seconds between two checks of a condition."""


async def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until a condition holds, at most for the given number of seconds; return whether the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(LOOK_EVERY)
    return True


class Observation:
    """An observation of the code in the files `code`, during an `async with` block.

    `secrets` are the texts that must not be logged.
    """

    def __init__(self, *, code: Iterable[Path], secrets: Iterable[str]) -> None:
        self._code = {str(file) for file in code}
        self.stalls: list[str] = []
        """The places at which the code blocked the event loop."""
        self._redactor = Redactor(secrets)
        self._watch = StallWatch(map(Path, self._code), report=self._blocked)
        self._lines: list[str] = []
        self._entries: list[Any] = []
        self._exit = contextlib.ExitStack()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sockets: set[tuple[int, int]] = set()

    async def __aenter__(self) -> Self:
        """Begin the observation."""
        self._entries = self._exit.enter_context(structlog.testing.capture_logs())
        self._exit.enter_context(_logged(self._lines, self._code))
        self._sockets = set(_sockets())
        self._watch.start()
        self._tasks = set(asyncio.all_tasks())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """End the observation, and end the tasks that the code left running."""
        self._watch.stop()
        await until(lambda: not self._new_tasks(), GRACE)
        for task in self._new_tasks():
            _end(task)
        await until(lambda: not self._new_tasks(), GRACE)
        self._exit.close()

    def _blocked(self, place: str, *, of_plugin: bool) -> None:
        if of_plugin:
            self.stalls.append(place)

    def revealed_secrets(self, errors: Iterable[BaseException]) -> list[str]:
        """Return the log lines and error texts that contain a secret, with the secret hidden."""
        lines = [", ".join(f"{key}={value}" for key, value in entry.items()) for entry in self._entries]
        texts = [*self._lines, *lines, *("".join(described(error)) for error in errors)]
        return list(dict.fromkeys(hidden for text in texts if (hidden := self._redactor.text(text)) != text))

    async def left_tasks(self) -> list[str]:
        """Return the coroutines of the tasks that still run after `GRACE` seconds."""
        await until(lambda: not self._new_tasks(), GRACE)
        return [_named(task) for task in self._new_tasks()]

    async def left_sockets(self) -> list[str]:
        """Return descriptions of the sockets that are open after `GRACE` seconds and were not open before.

        The connections that a server in this process has accepted do not count, because they belong to the stand-in.
        """
        await until(lambda: not _sockets().keys() - self._sockets, GRACE)
        return [description for known, description in _sockets().items() if known not in self._sockets]

    def _new_tasks(self) -> list[asyncio.Task[Any]]:
        known = self._tasks | {asyncio.current_task()}
        return [task for task in asyncio.all_tasks() if task not in known and not task.done()]


@contextlib.asynccontextmanager
async def observed(
    findings: Findings,
    loaded: Loaded,
    made: Callable[..., Any] | None,
    errors: Sequence[BaseException],
) -> AsyncIterator[Observation]:
    """Observe the plugin that registered `made`. Record where it blocks the event loop, and which secrets it reveals.

    At the end of the block, `errors` must have the errors that the plugin has raised.
    """
    async with Observation(code=code_of(loaded, made), secrets=loaded.secrets) as seen:
        yield seen
    for place in seen.stalls:
        findings.fail(
            "blocking", f"the event loop was blocked at {place}: write `def` instead of `async def`, or use `await`"
        )
    for line in seen.revealed_secrets(errors):
        findings.fail("secrets", f"this line contained the secret (shown as ***): {line}")


async def judge_left(seen: Observation, findings: Findings) -> None:
    """Record a fault for the tasks and sockets that a closed plugin has left open."""
    for task in await seen.left_tasks():
        findings.fail("tasks", f"this task was left after close: {task}")
    for each in await seen.left_sockets():
        findings.fail("sockets", f"this socket was left after close: {each}")


class _Lines(logging.Handler):
    """A log handler that records the lines of code in certain files, written with the standard library's logging."""

    def __init__(self, lines: list[str], files: set[str]) -> None:
        super().__init__()
        self._into = lines
        self._files = files

    def emit(self, record: logging.LogRecord) -> None:
        """Record one line, with its traceback if there is one.

        Lines of other code are ignored, because a stand-in may log too.
        """
        if record.pathname in self._files:
            with contextlib.suppress(Exception):  # the arguments do not fit the format of the line
                self._into.append(self.format(record))


@contextlib.contextmanager
def _logged(lines: list[str], files: set[str]) -> Iterator[None]:
    root, handler = logging.getLogger(), _Lines(lines, files)
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))  # the daemon's default level
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _named(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return f"{getattr(coroutine, '__qualname__', coroutine)} ({task.get_name()})"


def _end(task: asyncio.Task[Any]) -> None:
    """End a task, even if it swallows its cancellation.

    A task that goes on would hang the shutdown of the event loop.
    """
    task.add_done_callback(lambda over: over.cancelled() or over.exception())  # no other code retrieves the exception
    close = getattr(task.get_coro(), "close", None)
    with contextlib.suppress(RuntimeError, ValueError):  # the coroutine ignores `close`, or runs now
        if close is not None:
            close()
    task.cancel()


def _sockets() -> dict[tuple[int, int], str]:
    """Return the open sockets by descriptor and inode, without connections that a server in this process accepted.

    Unnamed pairs of sockets are left out too, because each event loop has a pair. A stand-in has its own event loop.
    """
    found: list[tuple[int, int]] = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # numbers, not paths
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is already closed
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.append((int(name), status.st_ino))
    with contextlib.ExitStack() as opened:
        known: dict[tuple[int, int], socket.socket] = {}
        for number, inode in found:
            with contextlib.suppress(OSError):  # another thread has closed the socket since the listing
                known[number, inode] = opened.enter_context(socket.socket(fileno=os.dup(number)))
        listening = {_own(each) for each in known.values() if _listens(each)}
        accepted = {key for key, each in known.items() if not _listens(each) and _own(each) in listening}
        pairs = {key for key, each in known.items() if _is_pair(each)}
        return {key: _description(each) for key, each in known.items() if key not in accepted | pairs}


def _listens(each: socket.socket) -> bool:
    try:
        return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _own(each: socket.socket) -> object:
    """Return the port or path of a socket. A listening socket and its accepted connections have the same one."""
    try:
        name = each.getsockname()
    except OSError:
        return None
    return name[1] if isinstance(name, tuple) else name or None


def _is_pair(each: socket.socket) -> bool:
    try:
        return each.family == socket.AF_UNIX and not each.getsockname() and not each.getpeername()
    except OSError:
        return False


def _description(each: socket.socket) -> str:
    try:
        peer = each.getpeername()
    except OSError:
        return "a socket without a peer"
    return f"a connection to {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a connection to a local socket"
