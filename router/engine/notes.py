"""Log lines about events, at most one a minute for each thing that happens; floor 5.

A flood of faulty events must not become a flood of lines: the first says what is wrong, the numbers are in the books.
"""

from __future__ import annotations

from structlog.stdlib import BoundLogger

from router.contracts import Clock

MOST = 1_000
"""Things remembered as said."""

QUIET = 60.0
"""Seconds between two lines that say the same."""


class Notes:
    """Says a thing when it first happens and then at most once a minute, with how often it did meanwhile."""

    def __init__(self, log: BoundLogger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def say(self, message: str, *about: str, **fields: object) -> None:
        """Log a warning. `about` tells alike messages apart (source, channel …); `fields` are those of this one."""
        now = self._clock.monotonic()
        key = (message, *about)
        quiet_until, silenced = self._said.get(key, (now, 0))
        if now < quiet_until:
            self._said[key] = (quiet_until, silenced + 1)
            return
        if len(self._said) >= MOST:
            self._said.clear()
        self._said[key] = (now + QUIET, 0)
        if silenced:
            fields["times_since_last_line"] = silenced
        self._log.warning(message, **fields)
