"""The summaries of new dead letters, sent once per interval to each sink in `dead_letters.notify`; floor 5."""

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
"""The channel of a summary, and also the route of a summary. A summary is an event of the router itself."""

Deliver = Callable[[str, Event], None]
"""A function that puts a delivery into the queue of the sink with this name."""


class DeadLetterSummaries:
    """Implements `contracts.DeadLetters`: passes letters to `inner`, and delivers one summary per interval.

    The summary for a sink does not count dead letters of the same sink. Otherwise, a sink that fails would cause
    summaries without end. Dead letters of summaries are not counted either. `config_file` is part of the command that
    the summary shows.
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
        """Replace the configuration, also for letters that are already counted. None ends the summaries."""
        if notify is None:
            self._forget()
        self._notify = notify

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Implements `contracts.DeadLetters`."""
        self._inner.add(letters)
        if self._notify is None:
            return
        counted = [(letter.sink, letter.reason) for letter in letters if letter.source != SOURCE]
        if not counted:
            return
        self._counts.update(counted)
        if self._timer is None:
            self._since = self._clock.now() - 1  # because `failed_at` of the letter is slightly before this call
            self._timer = asyncio.get_running_loop().call_later(self._notify.every, self.flush)

    def flush(self) -> None:
        """Deliver the summaries of the letters counted so far, if there are any."""
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
        message = f"{counted(count, 'dead letter')} since {began}: {listed}. To list them: {command}"
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
