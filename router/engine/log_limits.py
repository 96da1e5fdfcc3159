"""A rate limit for log lines about events: a few lines a minute for each subject; floor 5.

A flood of faulty events must not cause a flood of log lines. The first event and each new kind of error are logged; the
books have the numbers. A subject is identified by names from the configuration, never by names that a producer chooses.
Before this rule, 530,000 unmatched channels once caused 530,000 lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

import msgspec
from structlog.stdlib import BoundLogger

from router.contracts import Clock

MOST = 1_000
"""The largest number of remembered subjects. Beyond it, all further subjects with the same message share one limit."""

CHANNELS = 10_000
"""The largest number of channels that are remembered between two lines. Beyond it, a channel may be counted twice."""

QUIET = 60.0
"""Seconds between two lines about the same subject."""

LONGEST = 256
"""The number of characters of a name that are compared. Names of routes come from records in Redis too, so they may
have any length.
"""

KINDS = 10
"""The number of kinds of errors of one subject that are logged within `QUIET` seconds."""

_VARIES = re.compile(r"[0-9a-fA-F-]{8,}|\d+")
"""The pattern of numbers and ids. They may differ between errors of the same kind."""


def kind(text: str) -> str:
    """Return an error text with `#` in place of numbers and ids. Errors of the same kind then have the same text."""
    return _VARIES.sub("#", text)


class _Channels:
    """A counter of different channels with bounded memory."""

    __slots__ = ("_counted", "_known")

    def __init__(self) -> None:
        self._counted = 0
        self._known: set[int] = set()

    def add(self, names: Iterable[object]) -> None:
        """Count the channels among `names` that were not counted yet."""
        marks = set(map(hash, names))
        if len(self._known) >= CHANNELS and not marks <= self._known:
            self._counted += len(self._known)
            self._known.clear()
        self._known |= marks

    @property
    def number(self) -> int:
        """The number of different channels."""
        return self._counted + len(self._known)


class _Said(msgspec.Struct):
    """The state of a subject after its last log line.

    It counts the later events that were not logged, and their channels.
    """

    quiet_until: float
    kinds: set[str]
    spared: int = 0
    channels: _Channels = msgspec.field(default_factory=_Channels)

    def spare(self, times: int, channels: Iterable[object]) -> None:
        """Count events that are not logged."""
        if times:
            self.spared += times
            self.channels.add(channels)

    def fields(self) -> dict[str, int]:
        """Return the fields about unlogged events for the next line."""
        found = {"times_since_last_line": self.spared, "channels_since_last_line": self.channels.number}
        return {name: number for name, number in found.items() if number}


class LogLimits:
    """A log with limits.

    The first line about a subject is logged at once. After that, at most one line a minute is logged, with counts.
    """

    def __init__(self, log: BoundLogger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, ...], _Said] = {}
        self._next_sweep = 0.0

    def say(
        self, message: str, *about: str, times: int = 1, channels: Iterable[str] | None = None, **fields: object
    ) -> None:
        """Log a warning, unless the limit of its subject is reached.

        The message and `about` (source, reason …) are the subject. `fields` are the fields of the log line. `times` is
        the number of events. `channels` are the channels of all events but the first; None means that all events have
        the channel in the field `channel`. If the field `error` or `detail` has a new kind of text, the line is logged
        at once. The next regular line has the numbers of events and channels since the last one.
        """
        now = self._clock.monotonic()
        key = self._place((message, *(name[:LONGEST] for name in about)), now)
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
                fields |= before.fields()
        self._log.warning(message, **fields)

    def _place(self, key: tuple[str, ...], now: float) -> tuple[str, ...]:
        """Return the key of a subject.

        If too many subjects are remembered, return the key that all subjects with the same message share.
        """
        if key in self._said or len(self._said) < MOST:
            return key
        if now >= self._next_sweep:
            self._next_sweep = now + 1
            self._said = {other: said for other, said in self._said.items() if now < said.quiet_until}
        return key if len(self._said) < MOST else key[:1]
