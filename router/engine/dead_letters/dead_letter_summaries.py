"""Tells people of new dead letters: one summary per interval to each sink that is named for it; floor 5."""

from __future__ import annotations

import asyncio
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from router.config.models import NotifyConfig
from router.contracts import Clock, DeadLetters
from router.core.ids import Ids
from router.events import DeadLetter, Event
from router.wording import counted

log = structlog.stdlib.get_logger(__name__)

SOURCE = "event-router"
CHANNEL = "dead-letters"
"""Source and channel, and the route too, of a summary: it is an event that the router itself makes."""

Deliver = Callable[[str, Event], None]
"""Puts a delivery into the queue of the sink of this name."""


class DeadLetterSummaries:
    """Implements `contracts.DeadLetters`: hands letters on, counts them, and has a summary delivered per interval.

    A sink is told nothing of its own letters, and of the letters of summaries nobody is told. `config_file` stands in the
    command that the summary names.
    """

    def __init__(
        self,
        inner: DeadLetters,
        deliver: Deliver,
        *,
        clock: Clock,
        ids: Ids,
        notify: NotifyConfig | None,
        config_file: Path,
    ) -> None:
        self._inner = inner
        self._deliver = deliver
        self._clock = clock
        self._ids = ids
        self._notify = notify
        self._config_file = config_file
        self._counts: Counter[tuple[str | None, str]] = Counter()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, notify: NotifyConfig | None) -> None:
        """Take another configuration from now on; what is counted is told to those it names."""
        if notify is None:
            self._forget()
        self._notify = notify

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Implements `contracts.DeadLetters`."""
        self._inner.add(letters)
        if self._notify is None:
            return
        told = [(letter.sink, letter.reason) for letter in letters if letter.source != SOURCE]
        if not told:
            return
        self._counts.update(told)
        if self._timer is None:
            self._since = self._clock.now() - 1  # a letter is a little older than its adding
            self._timer = asyncio.get_running_loop().call_later(self._notify.every, self.flush)

    def flush(self) -> None:
        """Have what is counted told now; nothing where there is nothing."""
        notify, counts, since = self._notify, self._counts, self._since
        self._forget()
        for sink in notify.sinks if notify and counts else ():
            others = Counter({key: number for key, number in counts.items() if key[0] != sink})
            if others:
                self._deliver(sink, self._summary(sink, others, since))

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._counts = Counter()

    def _summary(self, sink: str, counts: Counter[tuple[str | None, str]], since: float) -> Event:
        now = self._clock.now()
        began = datetime.fromtimestamp(int(since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        command = f"event-router dlq list -c {shlex.quote(str(self._config_file))} --since {began}"
        by = [{"sink": of, "reason": reason, "count": number} for (of, reason), number in counts.most_common()]
        listed = ", ".join(
            f"{number} of {of} ({reason})" if of else f"{number} rejected ({reason})"
            for (of, reason), number in counts.most_common()
        )
        count = counts.total()
        message = f"{counted(count, 'dead letter')} since {began}: {listed}. Look: {command}"
        payload = {"message": message, "count": count, "by": by, "command": command, "since": began}
        return Event(
            self._ids.next(now),
            SOURCE,
            CHANNEL,
            None,
            datetime.fromtimestamp(now, UTC),
            msgspec.json.encode(payload),
            CHANNEL,
            sink,
        )
