"""The books of one queue in Redis, which all routers share, and its delayed deliveries; floor 4."""

from __future__ import annotations

import os
import re

from router.broker.queues.parts.queue_common import GROUP, MOVES, QueueContext
from router.broker.queues.parts.queue_rounds import Question, Row
from router.broker.queues.queue_scripts import REDATE, RESCHEDULE
from router.broker.server.link import Link, Word
from router.core.accounts.books import SinkBook
from router.core.accounts.server_time import ServerTime
from router.core.delivery.retry import LONGEST_ASKED
from router.errors import Reason
from router.events import Outcome, text

_COUNTERS = frozenset({"accepted", "delivered", "printed", "handed_over"})
_REASONS = frozenset(map(str, Reason))
_COUNT = re.compile(r"-?[0-9]{1,18}")


class QueueBooks:
    """The books of one queue: makes the requests for the books and for the return of due deliveries, and reads the
    answers.

    `own` is the book of this router alone.
    """

    def __init__(self, context: QueueContext, link: Link, own: SinkBook) -> None:
        self.shared = SinkBook(dropped_by_channel=own.dropped_by_channel)
        """The book of the sink over all routers, as of the last answer."""
        self.held = 0
        """The number of deliveries in the queue at the last answer, including deliveries in flight."""
        self.delayed = 0
        """The number of delayed deliveries in the queue at the last answer. `held` includes these deliveries."""
        self.due: float | None = None
        """The time (monotonic seconds) at which the next delayed delivery is due; None if no delivery is delayed."""
        self.more = False
        """True if more deliveries are due than the last request could return to the stream."""
        self.abandoned = False
        """True if entries of a dead router were found. The caller that claims these entries resets the attribute to
        False."""
        self.server_time = ServerTime()
        self._context = context
        self._link = link
        self._own = own
        self._epoch = ""
        self._next_epoch = _new_epoch()  # the epoch to set if the books have none
        self._counters: dict[str, int] = {}
        self._read: list[bytes] = []  # the books in the last answer of Redis

    @property
    def losses(self) -> tuple[str, int]:
        """A value that changes when deliveries vanish from the queue because its data was deleted."""
        return self._epoch, self._counters.get(f"{Outcome.DROPPED.value}:{Reason.LOST.value}", 0)

    def question(self, idle: float = 0.0) -> Question:
        """Return the request that moves due deliveries back to the stream and reads the books.

        If `idle` is not 0, the request also asks whether there are entries of dead routers. These are entries that were
        not renewed for `idle` seconds.
        """
        counters = self._counters
        words: list[Word] = [round(idle * 1000), self._epoch, self._next_epoch, len(counters)]
        for name, number in counters.items():
            words += (name, number)
        return Question(self._context.keys, 0 if self._context.ending.begun else MOVES, words)

    def read(self, row: Row) -> None:
        """Process the answer to the last request."""
        milliseconds, (moved, due, self.held, self.delayed, lost, left, books) = row
        now = self._context.clock.monotonic()
        self.server_time.heard(milliseconds / 1000, now)
        self.due = None if due < 0 else now + float(due) / 1000
        self.more = bool(moved and due == 0)
        self.abandoned |= bool(left)
        self.shared.degraded = self._own.degraded
        if books != self._read:
            self._read_books(books)
        if lost > 0:
            self._own.settle(lost, Outcome.DROPPED, Reason.LOST)
            message = "deliveries vanished from the queue in Redis: its data was deleted"
            self._context.log.error(message, number=lost, reason=str(Reason.LOST))

    def _read_books(self, books: list[bytes]) -> None:
        """Copy the books from Redis into `shared`."""
        self._read = books
        read = {text(name): text(value) for name, value in zip(books[::2], books[1::2], strict=True)}
        self._epoch = read.pop("epoch")
        self._next_epoch = _new_epoch()
        self._counters = {
            name: int(value)
            for name, value in read.items()
            if name != "bytes" and not name.startswith("was:") and _COUNT.fullmatch(value)
        }
        book = self.shared
        kinds = {"dead_lettered": book.dead_lettered, "dropped": book.dropped, "suppressed": book.suppressed}
        for name, number in self._counters.items():
            outcome, _, reason = name.partition(":")
            if outcome in kinds and reason in _REASONS:
                kinds[outcome][Reason(reason)] = number
            elif name in _COUNTERS:
                setattr(book, name, number)

    async def reschedule(self) -> None:
        """Correct due times and delivery times that are too late because the server's clock was set back.

        Afterwards every delivery is due within its planned delay from now, and the idle time of entries of dead routers
        grows again.
        """
        if not self.server_time.went_back:
            return
        keys = self._context.keys
        await self._link.script(REDATE, [keys.stream], [GROUP])
        passed, longest = 0, round(LONGEST_ASKED * 1000)
        while (seen := await self._link.script(RESCHEDULE, [keys.later], [passed, MOVES, longest])) > 0:
            passed += seen
        self.server_time.went_back = False


def _new_epoch() -> str:
    return os.urandom(8).hex()
