"""Log lines about events, a few a minute for each thing that happens; floor 5.

A flood of faulty events must not become a flood of lines: the first says what is wrong, another kind of fault is said too,
the numbers are in the books. Alike lines are told apart by what the configuration names, never by what a producer chooses:
530,000 channels that no route took were 530,000 lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from structlog.stdlib import BoundLogger

from router.contracts import Clock

MOST = 1_000
"""Things remembered as said; all others share one line for each message."""

CHANNELS = 10_000
"""Channels known by name between two lines. Of more than that, one that comes again may be counted again."""

QUIET = 60.0
"""Seconds between two lines that say the same."""

LONGEST = 256
"""Characters of a name by which alike messages are told apart: a record in Redis may name any route."""

KINDS = 10
"""Kinds of errors that are told of one thing in that time."""

_VARIES = re.compile(r"[0-9a-fA-F-]{8,}|\d+")
"""What makes alike texts differ: numbers and ids."""


def kind(text: str) -> str:
    """The text without what makes alike texts differ."""
    return _VARIES.sub("#", text)


class _Channels:
    """Counts different channels."""

    __slots__ = ("_counted", "_known")

    def __init__(self) -> None:
        self._counted = 0
        self._known: set[int] = set()

    def add(self, names: Iterable[object]) -> None:
        """Count those that are none of the known ones."""
        marks = set(map(hash, names))
        if len(self._known) >= CHANNELS and not marks <= self._known:
            self._counted += len(self._known)
            self._known.clear()
        self._known |= marks

    @property
    def number(self) -> int:
        """How many there were."""
        return self._counted + len(self._known)


@dataclass(slots=True)
class _Said:
    """A line that was written, and the events since for which none was."""

    quiet_until: float
    kinds: set[str]
    spared: int = 0
    channels: _Channels = field(default_factory=_Channels)

    def spare(self, times: int, channels: Iterable[object]) -> None:
        """Count events that get no line."""
        if times:
            self.spared += times
            self.channels.add(channels)

    def told(self) -> dict[str, int]:
        """Return what the next line says of them."""
        found = {"times_since_last_line": self.spared, "channels_since_last_line": self.channels.number}
        return {name: number for name, number in found.items() if number}


class LogLimits:
    """Says a thing when it first happens and then at most once a minute, with how often it did meanwhile."""

    def __init__(self, log: BoundLogger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, ...], _Said] = {}
        self._next_sweep = 0.0

    def say(
        self, message: str, *about: str, times: int = 1, channels: Iterable[str] | None = None, **fields: object
    ) -> None:
        """Log a warning. `about` tells alike messages apart (source, reason …); `fields` are those of this one.

        It has happened `times`, after the first time on these `channels`, or on `channel` again. Of the same thing another
        kind of `error` or `detail` is told at once. The next line has the number of different channels too.
        """
        now = self._clock.monotonic()
        key = self._place((message, *(one[:LONGEST] for one in about)), now)
        before = self._said.get(key)
        why = kind(str(fields.get("error", fields.get("detail", ""))))
        channel = [fields["channel"]] if "channel" in fields else []
        more = channel if channels is None else channels
        if before is not None and now < before.quiet_until:
            if why in before.kinds or len(before.kinds) >= KINDS:
                before.spare(times, chain(channel, more))
                return
            before.kinds.add(why)
            before.spare(times - 1, more)
        else:
            self._said[key] = after = _Said(now + QUIET, {why})
            after.spare(times - 1, more)
            if before is not None:
                fields |= before.told()
        self._log.warning(message, **fields)

    def _place(self, key: tuple[str, ...], now: float) -> tuple[str, ...]:
        """Return the key itself, or that of all others of its message when too many are remembered."""
        if key in self._said or len(self._said) < MOST:
            return key
        if now >= self._next_sweep:
            self._next_sweep = now + 1
            self._said = {other: said for other, said in self._said.items() if now < said.quiet_until}
        return key if len(self._said) < MOST else key[:1]
