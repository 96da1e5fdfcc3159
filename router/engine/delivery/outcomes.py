"""The outcomes of deliveries, recorded in books, metrics, dead letters and log; floor 5.

Only this module records outcomes. A delivery may be settled by its worker, by its queue, or before it is enqueued. In
each case, the code calls the `Outcomes` of the sink. The only exceptions are deliveries that vanished from Redis. Only
their number is known, so their queue counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import msgspec
import structlog

from router.contracts import Clock, DeadLetters, Receipt, WorkQueue
from router.core.accounts.books import SinkBook
from router.core.accounts.records import LONGEST_ERROR
from router.core.delivery.shared_deliveries import receipt_times
from router.engine.calling import accidents
from router.engine.dead_letters import dead_letter_factory
from router.engine.delivery import delivery_log
from router.engine.delivery.delivery_log import Destinations, LastCall, about
from router.engine.log_limits import LogLimits
from router.errors import Reason
from router.escaping import cut
from router.events import Event, Outcome, Settled
from router.ops.metrics import SinkMeter

log = structlog.stdlib.get_logger(__name__)

_DROPPED = {
    Reason.FULL: "the queue is full: deliveries are dropped",
    Reason.OUTAGE: "Redis accepts no deliveries, or too few, and the outage buffer is full: deliveries are dropped",
}
"""The log messages about dropped deliveries, by reason. Deliveries dropped at a shutdown are logged together, after all
sinks are closed.
"""


HandOver = Callable[[str, Event], None]
"""A function that puts a delivery into the queue of a sink. It raises `LookupError` if the sink no longer exists."""

HANDED_OVER = frozenset(
    {Reason.EXHAUSTED, Reason.PERMANENT, Reason.PLUGIN, Reason.TEMPLATE, Reason.ADDRESS, Reason.LOOKUP}
)
"""The reasons for which a delivery falls back to another sink. An expired delivery does not fall back, because it would
also be too late for the other sink.
"""


class Relayed:
    """The receipt of the fallback deliveries of one delivery. Implements `contracts.Receipt` with a single position.

    `over` is called when all fallback deliveries are settled or enqueued in Redis. `settle` must be called once for
    each delivery, and once more after all deliveries were added. The additional call prevents `over` from being called
    before all deliveries are added.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._open = 1
        self._over = over

    def add(self, position: int, deliveries: int) -> None:  # noqa: ARG002  # there is only one position
        """Implements `contracts.Receipt`."""
        self._open += deliveries

    def settle(self, position: int) -> None:  # noqa: ARG002  # as above
        """Implements `contracts.Receipt`."""
        self._open -= 1
        if not self._open:
            self._over()

    def open(self, position: int) -> int:  # noqa: ARG002  # as above
        """Implements `contracts.Receipt`."""
        return self._open

    def _ignored(self, position: int, *_more: object, **_how: object) -> None:
        """Do nothing, because this receipt does not belong to an entry of a source."""

    handed_over = settle
    expect = returned = removal = marked = gone = taken_over = _ignored


class Outcomes:
    """The outcomes of one sink. Each delivery of the sink is settled by one of these methods.

    `hand_over` puts deliveries into the queues of fallback sinks; None means that there are no fallbacks. `redact`
    removes secrets from texts. `book` counts the deliveries of this process. A Redis queue also counts the deliveries
    in its shared book, with the script that removes the delivery. If dead letters are printed (`letters_shown`), the
    log does not repeat them.
    """

    def __init__(
        self,
        sink: str,
        *,
        book: SinkBook,
        meter: SinkMeter,
        dead_letters: DeadLetters,
        clock: Clock,
        hand_over: HandOver | None = None,
        redact: Callable[[str], str] = str,
        letters_shown: bool = False,
    ) -> None:
        self.sink = sink
        self.book = book
        self.meter = meter
        self.notes = LogLimits(log.bind(sink=sink), clock)
        self._dead_letters = dead_letters
        self._clock = clock
        self._hand_over = hand_over
        self._redact = redact
        self._letters_shown = letters_shown
        self._last_call = LastCall()

    def note_call(self, pairs: Sequence[tuple[Event, Any]], seconds: float, destinations: Destinations) -> None:
        """Record a call of the sink that returned after this number of seconds. Its deliveries must be settled next."""
        self._last_call.returned(pairs, seconds, destinations)

    def error_text(self, error: BaseException) -> str:
        """Return the text of a failure for logs, letters and status."""
        return accidents.error_text(error, self._redact)

    def trace(self, error: BaseException) -> None:
        """Log the traceback of a plugin's unexpected error, at level `debug`."""
        delivery_log.raised(self.sink, error, self._redact)

    def delivered(
        self, queue: WorkQueue, events: Sequence[Event], size: int, answers: Iterable[str | None] = repeat(None)
    ) -> None:
        """Settle deliveries of the last call as delivered. `answers` are the sink's answers, one for each delivery."""
        self.meter.delivered(receipt_times(events), self._clock.now())
        self._end(queue, events, size, Outcome.DELIVERED)
        if self._last_call.told:
            for event, answer in zip(events, answers, strict=False):
                self._log_settled(event, Outcome.DELIVERED, answer=answer)

    def settle(
        self,
        queue: WorkQueue,
        event: Event,
        outcome: Outcome,
        reason: Reason | None = None,
        *,
        to: Sequence[str] = (),
        detail: str | None = None,
        attempts: int | None = None,
    ) -> None:
        """Settle a delivery that does not become a dead letter, such as a suppressed or printed delivery.

        `to` are the addresses to which the delivery would have been sent. If the sink was called, `detail` is the
        explanation of the service, and `attempts` is the number of calls.
        """
        self._end(queue, [event], len(event.raw), outcome, reason)
        self._log_settled(event, outcome, reason, detail=detail, attempts=attempts, to=to)

    def split(
        self,
        queue: WorkQueue,
        event: Event,
        addresses: Iterable[str],
        attempts: int | None = None,
        told: str | None = None,
    ) -> list[Event]:
        """Split a delivery into one delivery for each of these addresses, and return the new deliveries.

        The original delivery counts as handed over.
        """
        parts = [msgspec.structs.replace(event, address=address) for address in addresses]
        self.book.split(len(parts))
        self.book.settle(1, Outcome.HANDED_OVER)
        queue.split(event, parts)
        self._log_settled(event, Outcome.HANDED_OVER, detail=told, attempts=attempts)
        return parts

    def give_up(
        self,
        queue: WorkQueue,
        event: Event,
        reason: Reason,
        detail: str,
        *,
        told: str | None = None,
        attempts: int | None = None,
        fallback: Sequence[str] = (),
    ) -> None:
        """Give up a delivery.

        It falls back to the sinks of `fallback`, or else becomes a dead letter. `told` is the text for the log; None
        means that `detail` is logged. `told` must be given if `detail` quotes the event. `attempts` is the number of
        calls of the sink; None means the number in the history of the delivery.
        """
        detail = self._redact(detail)
        told = detail if told is None else self._redact(told)
        attempts = calls_of(event) if attempts is None else attempts
        taken = self._relayed(queue, event, reason, fallback)
        if taken:
            message = "delivery given up; it goes to the fallback sinks"
            fields = {"error": told, "reason": str(reason), "to": ", ".join(taken), **about(event)}
            self.notes.say(message, reason, event.route, **fields)
            self._log_settled(event, Outcome.HANDED_OVER, reason, detail=told, attempts=attempts)
            return
        over = partial(self._end, queue, [event], len(event.raw), Outcome.DEAD_LETTERED, reason)
        kept = _is_kept(event)
        now = self._clock.now()
        letter = dead_letter_factory.of_delivery(
            event, reason, detail, now=now, attempts=attempts, written=over if kept else None
        )
        fields = {"error": told, "attempt": attempts, "reason": str(reason), **about(event)}
        if not self._letters_shown:
            self.notes.say("delivery given up", reason, event.route, **fields)
        self._log_settled(event, Outcome.DEAD_LETTERED, reason, detail=told, attempts=attempts)
        self._dead_letters.add([letter])
        if not kept:
            over()

    def dropped(self, events: Iterable[Event], channels: Sequence[str], reason: Reason) -> None:
        """Count dropped deliveries.

        `channels` has the channel of each delivery. `events` is read only for debug lines.
        """
        self.book.drop(channels, reason)
        if delivery_log.wanted():
            for event in events:
                self._log_settled(event, Outcome.DROPPED, reason)
        message = _DROPPED.get(reason)
        if message is not None:
            self.notes.say(message, number=len(channels), reason=str(reason))

    def moved(self, number: int) -> None:
        """Count deliveries that were moved to another queue of the sink.

        The other queue counts these deliveries as accepted again.
        """
        self.book.settle(number, Outcome.HANDED_OVER)
        self.book.planned += number

    def _end(
        self, queue: WorkQueue, events: Sequence[Event], size: int, outcome: Outcome, reason: Reason | None = None
    ) -> None:
        """Count settled deliveries, all with the same outcome, and settle them in their queue."""
        self.book.settle(len(events), outcome, reason)
        queue.settle(events, size, outcome, reason)

    def _relayed(self, queue: WorkQueue, event: Event, reason: Reason, fallback: Sequence[str]) -> list[str]:
        """Put a new delivery into the queue of each fallback; return the fallbacks that exist.

        If the delivery has a receipt, it stays unsettled until its fallback deliveries are settled or enqueued in
        Redis. So a crash of the process can't lose the fallback deliveries.
        """
        if self._hand_over is None or reason not in HANDED_OVER:
            return []
        taken: list[str] = []
        relayed = Relayed(partial(self._end, queue, [event], len(event.raw), Outcome.HANDED_OVER))
        receipt: Receipt | None = relayed if _is_kept(event) else None
        awaited = int(_is_kept(event))
        for sink in fallback:
            fresh = msgspec.structs.replace(
                event,
                sink=sink,
                attempt=1,
                address=None,
                _history=None,
                _receipt=receipt,
                _position=0,
                _fallback=True,
            )
            relayed.add(0, awaited)  # before the call, because a full queue drops and settles the delivery at once
            try:
                self._hand_over(sink, fresh)
            except LookupError:
                relayed.add(0, -awaited)
            else:
                taken.append(sink)
        if taken:
            relayed.settle(0)
        return taken

    def _log_settled(
        self,
        event: Event,
        outcome: Outcome,
        reason: Reason | None = None,
        *,
        detail: str | None = None,
        answer: str | None = None,
        attempts: int | None = None,
        to: Sequence[str] = (),
    ) -> None:
        """Write the debug line of a settled delivery, if the log level is `debug`."""
        if not delivery_log.wanted():
            return
        tried = calls_of(event) + (outcome is Outcome.DELIVERED) if attempts is None else attempts
        addresses, seconds = self._last_call.of(event) if tried else ((), None)
        if event.address is not None:
            addresses = (event.address,)
        said = None if answer is None else self._bounded(answer)
        delivery_log.settled(Settled(event, outcome, reason, detail, said, tried, tuple(to) or addresses, seconds))

    def _bounded(self, text: str) -> str:
        return cut(self._redact(text), LONGEST_ERROR)


def _is_kept(event: Event) -> bool:
    """Return whether a source or Redis stores the delivery until it is settled."""
    return event._receipt is not None


def calls_of(event: Event) -> int:
    """Return the number of calls of the sink for a delivery, from the history of the delivery."""
    return event._history.calls if event._history else 0
