"""Reports to Redis which deliveries of one queue were settled, deferred or split; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from router.broker.queues.parts.queue_common import GROUP, MOST, MOVES, QueueContext
from router.broker.queues.parts.queue_in_flight import QueueInFlight
from router.broker.queues.queue_scripts import DEFER, SETTLE
from router.broker.server.link import Link, Word
from router.core.accounts.records import pack
from router.errors import Reason
from router.events import Event, Outcome

PAUSE = 0.01
"""The minimum number of seconds between two reports to Redis. A report of ten outcomes takes about as long as a report
of one outcome."""

FEW = 32
"""The smallest number of outcomes for which a report waits only `PAUSE` seconds. With fewer outcomes, it waits up to
`LONGEST_PAUSE` seconds for more outcomes. If the router is killed, deliveries with unreported outcomes are repeated.
"""

LONGEST_PAUSE = 0.02
"""The maximum number of seconds between two reports while there are outcomes to report."""


class _Part(msgspec.Struct, eq=False):
    """The receipt of a part of a split delivery. All other deliveries of the queue have their entry id as receipt."""

    whole: _Split


class _Split(msgspec.Struct, eq=False):
    """The entry of a split delivery: the number of open parts, and the outcomes of the finished parts."""

    entry: bytes
    size: int
    open: int
    counters: dict[str, int]
    records: list[tuple[float, bytes]]


def entry_of(event: Event) -> bytes:
    """Return the entry id of a delivery. For a part of a split delivery, return the entry id of the split delivery."""
    receipt = event._receipt
    entry: bytes = receipt.whole.entry if isinstance(receipt, _Part) else receipt
    return entry


class Settlement:
    """Collects outcomes and sends them to Redis in batches. A batch without an answer is sent again.

    The first outcome after a pause is sent at once. Outcomes that follow within `PAUSE` seconds are sent together.
    Fewer than `FEW` outcomes wait longer, up to `LONGEST_PAUSE` seconds. The wait ends early if the router shuts down
    or a delivery is deferred.

    `put_off` is called after deliveries were deferred. `overriding` contains the routes that override options of the
    sink.
    """

    def __init__(
        self, context: QueueContext, link: Link, in_flight: QueueInFlight, *, put_off: Callable[[], None]
    ) -> None:
        self.overriding: AbstractSet[str] = frozenset()
        self._context = context
        self._link = link
        self._in_flight = in_flight
        self._put_off = put_off
        self._done: dict[str, tuple[list[bytes], int]] = {}
        self._deferred: list[list[Word]] = []
        self._deferred_ids: list[bytes] = []
        self._parted = False
        self._sending = False
        self._changed = asyncio.Event()  # a delivery was settled or deferred

    @property
    def flushed(self) -> bool:
        """True if Redis knows all outcomes."""
        return not (self._done or self._deferred or self._sending)

    def settle(self, events: Sequence[Event], outcome: Outcome, reason: Reason | None) -> None:
        """Record that deliveries are settled, all with the same outcome."""
        counter = outcome.value if reason is None else f"{outcome.value}:{reason.value}"
        if self._parted:
            events = self._settle_parts(events, counter)
            if not events:
                return
        ids, total = self._done.get(counter, ([], 0))
        ids += [event._receipt for event in events]
        self._done[counter] = ids, total + sum([event._position for event in events])
        self._changed.set()

    def _settle_parts(self, events: Sequence[Event], counter: str) -> list[Event]:
        whole = []
        for event in events:
            if isinstance(event._receipt, _Part):
                self._part_over(event._receipt, counter=counter)
            else:
                whole.append(event)
        return whole

    def later(self, event: Event, delay: float) -> None:
        """Record that a delivery is to be retried after `delay` seconds."""
        (record,) = pack([event], self.overriding)
        if isinstance(event._receipt, _Part):
            self._part_over(event._receipt, record=(delay, record))
            return
        self._defer(event._receipt, event._position, {}, [(delay, record)])

    def split(self, event: Event, parts: list[Event]) -> None:
        """Replace a delivery by `parts`.

        The entry of the delivery stays in the stream until all parts are deferred or settled.
        """
        self._parted = True
        counters = {"handed_over": 1, "accepted": len(parts)}
        whole = _Split(event._receipt, event._position, len(parts), counters, [])
        for part in parts:
            msgspec.structs.force_setattr(part, "_receipt", _Part(whole))

    def _part_over(self, part: _Part, *, counter: str = "", record: tuple[float, bytes] | None = None) -> None:
        whole = part.whole
        if record is not None:
            whole.records.append(record)
        else:
            whole.counters[counter] = whole.counters.get(counter, 0) + 1
        whole.open -= 1
        if not whole.open:
            self._defer(whole.entry, whole.size, whole.counters, whole.records)

    def _defer(self, entry: bytes, size: int, counters: dict[str, int], records: list[tuple[float, bytes]]) -> None:
        words: list[Word] = [entry, size, len(counters)]
        for name, number in counters.items():
            words += (name, number)
        words.append(len(records))
        for delay, record in records:
            words += (round(delay * 1000), record)
        self._deferred.append(words)
        self._deferred_ids.append(entry)
        self._changed.set()

    async def run(self) -> None:
        """Send outcomes as they arrive, until cancelled."""
        health = self._context.health
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._report()
            except Exception as error:  # noqa: BLE001  # after any error the outcomes are sent again
                self._changed.set()
                await asyncio.sleep(health.failed(error, "settle"))
            else:
                health.succeeded("settle")
                await self._pause()

    async def _pause(self) -> None:
        """Wait until the next outcomes may be reported."""
        waited = 0.0
        while waited < LONGEST_PAUSE:
            await asyncio.sleep(PAUSE)
            waited += PAUSE
            collected = sum(len(ids) for ids, _ in self._done.values())
            if not 0 < collected < FEW or self._deferred or self._context.ending.begun:
                return

    async def flush(self) -> None:
        """Send all outcomes. Outcomes that could not be sent remain for a later attempt. Raises redis-py's errors."""
        while self._done or self._deferred:
            await self._report()

    async def _report(self) -> None:
        """Send the outcomes collected so far. Outcomes that arrive during a report wait for the next report."""
        for counter in list(self._done):
            ids, size = self._done.pop(counter)
            self._sending = True
            try:
                await self._settle(counter, ids, size)
            except BaseException:
                more, more_size = self._done.get(counter, ([], 0))
                self._done[counter] = ids + more, size + more_size
                raise
            finally:
                self._sending = False
            self._in_flight.let_go(ids)
        while self._deferred:
            part, ids = self._deferred[:MOVES], self._deferred_ids[:MOVES]
            words: list[Word] = [GROUP]
            for item in part:
                words += item
            await self._link.script(DEFER, self._context.keys, words)
            del self._deferred[: len(part)], self._deferred_ids[: len(part)]
            self._in_flight.let_go(ids)
            self._put_off()

    async def _settle(self, counter: str, ids: list[bytes], size: int) -> None:
        words: list[Word] = [GROUP]
        share, rest = divmod(size, len(ids))
        for first in range(0, len(ids), MOST):
            part = ids[first : first + MOST]
            words += (counter, len(part), share * len(part) + rest, *part)
            rest = 0
        keys = self._context.keys
        await self._link.script(SETTLE, [keys.stream, keys.books], words)
