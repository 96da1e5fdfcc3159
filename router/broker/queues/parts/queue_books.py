"""The books of one queue in Redis, which all routers share, and what is due later; floor 4."""

from __future__ import annotations

import asyncio
import os
import re

from router.broker.queues.parts.queue_common import GROUP, MOVES, QueueContext
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
    """Reads the books, and moves what is due back into the queue, in the same step. `own` is this router's own book."""

    def __init__(self, context: QueueContext, link: Link, own: SinkBook) -> None:
        self.shared = SinkBook(dropped_by_channel=own.dropped_by_channel)
        """Everybody's book of the sink, as of the last `tick`."""
        self.held = 0
        """Deliveries that the queue held then, whoever has them in hand."""
        self.delayed = 0
        """Those of them that were due later."""
        self.due: float | None = None
        """When the next of those is due (monotonic seconds), None when none waits."""
        self.abandoned = False
        """Whether a dead router had left something when that was last looked for."""
        self.server_time = ServerTime()
        self._context = context
        self._link = link
        self._own = own
        self._epoch = ""
        self._counters: dict[str, int] = {}
        self._read: list[bytes] = []  # the books as Redis last gave them
        self._ticking = asyncio.Lock()

    @property
    def losses(self) -> tuple[str, int]:
        """What tells whether anything vanished from the queue since the books were last read: another value."""
        return self._epoch, self._counters.get(f"{Outcome.DROPPED.value}:{Reason.LOST.value}", 0)

    async def tick(self, idle: float = 0.0) -> bool:
        """Move what is due, read the books; returns whether more is to be moved.

        With `idle` it also looks whether anything was not touched for so many seconds, as what a dead router left.
        """
        async with self._ticking:  # what this one says was read last has to be what the one before it read
            return await self._tick(idle)

    async def _tick(self, idle: float) -> bool:
        counters = self._counters
        words: list[Word] = [round(idle * 1000), self._epoch, os.urandom(8).hex(), len(counters)]
        for name, number in counters.items():
            words += (name, number)
        moves = 0 if self._context.ending.begun else MOVES
        milliseconds, row = await self._context.rounds.ask(self._context.keys, moves, words)
        moved, due, self.held, self.delayed, lost, left, books = row
        now = self._context.clock.monotonic()
        self.server_time.heard(milliseconds / 1000, now)
        self.due = None if due < 0 else now + float(due) / 1000
        if idle:
            self.abandoned = bool(left)
        self.shared.degraded = self._own.degraded
        if books != self._read:
            self._take(books)
        if lost > 0:
            self._own.settle(lost, Outcome.DROPPED, Reason.LOST)
            message = "deliveries vanished from the queue in Redis: its data was deleted"
            self._context.log.error(message, number=lost, reason=str(Reason.LOST))
        return bool(moved and due == 0)

    def _take(self, books: list[bytes]) -> None:
        """Make the shared book say what Redis says."""
        self._read = books
        read = {text(name): text(value) for name, value in zip(books[::2], books[1::2], strict=True)}
        self._epoch = read.pop("epoch")
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
        """See that nothing waits for a time that is far off because the server's clock went back, or may have before.

        Nothing is due later than its delay from now on, and what a dead router had in hand is idle from now on.
        """
        if not self.server_time.went_back:
            return
        keys = self._context.keys
        await self._link.script(REDATE, [keys.stream], [GROUP])
        passed, longest = 0, round(LONGEST_ASKED * 1000)
        while (seen := await self._link.script(RESCHEDULE, [keys.later], [passed, MOVES, longest])) > 0:
            passed += seen
        self.server_time.went_back = False
