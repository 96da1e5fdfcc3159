"""The command sink, which runs a program for each event.

If the call is cancelled, the sink ends the program with all its processes.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Sequence

from router.api import Event, PermanentError, Sink, SinkContext, TransientError, json_line

from .command_options import CommandOptions
from .program import KEPT, Ended, Run

TRY_AGAIN = 75
"""The exit code that asks for a retry: EX_TEMPFAIL of sysexits.h."""

GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL. The router abandons a call that still runs one second after its cancellation."""

REAPED = 0.3
"""Seconds to wait until killed processes have ended."""

LONGEST = 500
"""The largest number of characters of the output that a result or an error quotes."""

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|key|auth", re.IGNORECASE)
_LEAST_SECRET = 4


class CommandSink(Sink):
    """Runs one program for each delivery. The exit code of the program decides the result of the delivery."""

    runs_programs = True

    _context: SinkContext

    def __init__(self, options: CommandOptions) -> None:  # noqa: ARG002  # each delivery has its own options
        self._runs: set[Run] = set()
        self._warned = False

    async def open(self, context: SinkContext) -> None:
        """Store the context; no program is run."""
        self._context = context

    async def deliver(self, event: Event, options: CommandOptions) -> str | None:
        """Run the program; return the last line of its output."""
        line = json_line(event) + b"\n"
        run = Run(_encoded(options.argv), env=options.environment, cwd=options.cwd, line=line)
        self._runs.add(run)
        ending = asyncio.ensure_future(self._context.run_blocking(run.run))
        ending.add_done_callback(lambda _: self._runs.discard(run))
        try:
            ended: Ended = await asyncio.shield(ending)
        except asyncio.CancelledError:
            await _stop(run, ending)
            raise
        if ended.left_behind:
            self._warn()
        return _judge(ended, options)

    async def close(self) -> None:
        """Kill the programs of abandoned calls, which may still be running."""
        for run in self._runs:
            run.send(signal.SIGKILL)

    def _warn(self) -> None:
        """Warn once about processes that programs leave in the background."""
        if not self._warned:
            self._warned = True
            self._context.log.warning(
                "the program ended and left processes in the background; they were killed",
                cure="let the program wait for them, or start them in a session of their own (setsid)",
            )


def _judge(ended: Ended, options: CommandOptions) -> str | None:
    """Return the last line of output of a program that succeeded.

    Raises the delivery error for a program that failed.
    """
    if ended.code == 0:
        return _quoted(ended.stdout, options, lines=1) or None
    how = f"exit code {ended.code}" if ended.code > 0 else f"killed by {_name(-ended.code)}"
    errors = _quoted(ended.stderr, options)
    message = f"{how}: {errors}" if errors else how
    if ended.code > 0 and ended.code != TRY_AGAIN:
        raise PermanentError(message)
    raise TransientError(message)


def _quoted(output: bytes, options: CommandOptions, lines: int | None = None) -> str:
    """Return the end of an output on one line, at most `LONGEST` characters, without the secrets of `env`.

    `lines` is the largest number of lines at the end that are used; None means all lines.
    """
    text = output.decode("utf-8", "backslashreplace")
    for name, value in sorted(options.env.items(), key=lambda each: -len(each[1])):
        if len(value) >= _LEAST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    shown = [" ".join(_printable(line).split()) for line in text.splitlines()]
    if len(output) == KEPT:
        shown[0] = _without_first_word(shown[0])
    shown = [line for line in shown if line]
    found = " ".join(shown if lines is None else shown[-lines:])
    return found if len(found) <= LONGEST else f"… {_without_first_word(found[-LONGEST:])}".strip()


def _without_first_word(text: str) -> str:
    """Return a text without its first word. The beginning of the text was cut off, so its first word may be incomplete.

    An incomplete word may be the end of a secret. The end alone would not be recognised and hidden.
    """
    return text.partition(" ")[2]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _encoded(argv: Sequence[str]) -> list[bytes]:
    """Return arguments as bytes. Raises `PermanentError` for an argument that can't be passed to a program."""
    for place, text in enumerate(argv):
        if "\0" in text:
            raise PermanentError(
                f"argv[{place}] contains a NUL character, which is not possible in an argument of a program"
            )
    try:
        return [text.encode() for text in argv]
    except UnicodeEncodeError:
        raise PermanentError(
            "an argument contains half of a character (a lone surrogate), which UTF-8 can't represent"
        ) from None


async def _stop(run: Run, ending: asyncio.Future[Ended]) -> None:
    """End a run after its call was cancelled: send SIGTERM, then SIGKILL.

    A second cancellation kills the program at once.
    """
    try:
        if run.begun:
            run.send(signal.SIGTERM)
            await asyncio.wait({ending}, timeout=GRACE)
            run.send(signal.SIGKILL)
            await asyncio.wait({ending}, timeout=REAPED)
    finally:
        run.send(signal.SIGKILL)
        ending.cancel()
        ending.add_done_callback(lambda done: done.cancelled() or done.exception())  # no other code retrieves it
