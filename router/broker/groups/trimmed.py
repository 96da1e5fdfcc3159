"""The entries of a source that were trimmed or deleted before they were delivered; floor 4."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.stdlib import BoundLogger

from router.broker.groups.group_stream import Stream
from router.contracts import Clock
from router.core.accounts.books import SourceBook

SAY_AGAIN = 60.0
"""Seconds between two lines about entries that are trimmed again and again."""

UNREAD = "entries were trimmed or deleted before anybody had read them: they are lost; trim less, or read faster"
UNFINISHED = "entries of a router that ended before it had finished with them were trimmed or deleted meanwhile"


class Trimmed:
    """Counts them in the book of the source, and says so."""

    def __init__(self, streams: Sequence[Stream], book: SourceBook, clock: Clock, log: BoundLogger) -> None:
        self._streams = streams
        self._book = book
        self._clock = clock
        self._log = log
        self._said: dict[tuple[bytes, str], float] = {}  # until when each is not said again

    @property
    def exact(self) -> bool:
        """Whether all of them are counted; else there are at least so many."""
        return self._book.trimmed_exact and all(stream.progress.exact for stream in self._streams)

    def count(self, stream: Stream, number: int, message: str) -> None:
        """Count what is gone, and say so: as it begins, then not more often than every `SAY_AGAIN` seconds."""
        self._book.trimmed += number
        now, occasion = self._clock.monotonic(), (stream.key, message)
        if number and now >= self._said.get(occasion, now):
            self._said[occasion] = now + SAY_AGAIN
            exact = "exactly" if self.exact else "at least"
            self._log.error(message, stream=stream.name, number=number, in_all=self._book.trimmed, counted=exact)

    def unfinished(self, stream: Stream, ids: list[bytes]) -> None:
        """Acknowledge entries that are pending though the stream holds them no more: there is nothing to deliver."""
        if ids:
            stream.hand.complete(ids)
            self.count(stream, len(ids), UNFINISHED)
