"""Objects for a router without Redis in the process of a test: queues in memory, letters in a list; floor 7."""

from __future__ import annotations

from collections.abc import Sequence

from router.broker.groups.crash_isolation import CrashIsolation
from router.contracts import Clock
from router.core.accounts.books import Books
from router.core.ids import Ids
from router.engine.clock import SystemClock
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.engine.intake.switch import CurrentPipeline
from router.engine.parts import Shared
from router.engine.runtime import Runtime
from router.events import DeadLetter
from router.ops.loading import Loaded

NO_REDIS = "redis://127.0.0.1:1"
"""A URL to which nothing connects."""


class KeptLetters:
    """Implements `contracts.DeadLetters`: keeps dead letters in the list `letters`."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Append dead letters to the list, and report each letter as written."""
        self.letters += letters
        for letter in letters:
            if letter.written is not None:
                letter.written()


def runtime(clock: Clock | None = None, redis_url: str = NO_REDIS) -> Runtime:
    """Return a runtime for the parts of a router. The parts print nothing. Without a URL, the parts use no Redis."""
    return Runtime(
        instance="test",
        redis_url=redis_url,
        connect_timeout=1.0,
        printer=_ignore,
        waiting=_ignore,
        clock=clock or SystemClock(),
    )


def _ignore(_text: str) -> None:
    """Ignore a text that is meant for an operator."""


def shared_of(loaded: Loaded, runtime: Runtime, letters: KeptLetters) -> Shared:
    """Return the objects that the parts of a router share.

    They use no Redis: dead letters are only collected, and every queue is in memory.
    """
    current, ids = CurrentPipeline(), Ids("test")
    summaries = DeadLetterSummaries(
        letters, current.hand_over, clock=runtime.clock, ids=ids, notify=None, config_file=loaded.path
    )
    return Shared(runtime, Books({}, {}), {}, {}, ids, current, summaries, None, None, None, CrashIsolation())
