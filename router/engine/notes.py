"""Log lines about events, a few a minute for each thing that happens; floor 5.

A flood of faulty events must not become a flood of lines: the first says what is wrong, another kind of fault is said too,
the numbers are in the books.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from structlog.stdlib import BoundLogger

from router.contracts import Clock

MOST = 1_000
"""Things remembered as said."""

QUIET = 60.0
"""Seconds between two lines that say the same."""

LONGEST = 256
"""Characters of a name (a channel's, say) by which alike messages are told apart."""

KINDS = 10
"""Kinds of errors that are told of one thing in that time."""

_VARIES = re.compile(r"[0-9a-fA-F-]{8,}|\d+")
"""What makes alike texts differ: numbers and ids."""


def kind(text: str) -> str:
    """The text without what makes alike texts differ."""
    return _VARIES.sub("#", text)


@dataclass(slots=True)
class _Said:
    quiet_until: float
    silenced: int = 0
    kinds: set[str] = field(default_factory=set)


class Notes:
    """Says a thing when it first happens and then at most once a minute, with how often it did meanwhile."""

    def __init__(self, log: BoundLogger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, ...], _Said] = {}

    def say(self, message: str, *about: str, **fields: object) -> None:
        """Log a warning. `about` tells alike messages apart (source, channel …); `fields` are those of this one.

        Of the same thing another kind of `error` or `detail` is told at once.
        """
        now = self._clock.monotonic()
        key = (message, *(one[:LONGEST] for one in about))
        before = self._said.get(key)
        why = kind(str(fields.get("error", fields.get("detail", ""))))
        if before is not None and now < before.quiet_until:
            if why in before.kinds or len(before.kinds) >= KINDS:
                before.silenced += 1
                return
            before.kinds.add(why)
        else:
            if len(self._said) >= MOST:
                self._said.clear()
            self._said[key] = _Said(now + QUIET, kinds={why})
            if before is not None and before.silenced:
                fields["times_since_last_line"] = before.silenced
        self._log.warning(message, **fields)
