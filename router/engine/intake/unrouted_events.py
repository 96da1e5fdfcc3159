"""The events without deliveries: rejected messages, and events that no route takes; floor 5."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from router import events
from router.contracts import Clock, DeadLetters
from router.core import verdict
from router.core.accounts.books import Books, SourceBook
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.engine.dead_letters import dead_letter_factory
from router.engine.delivery import delivery_log
from router.engine.intake.channels import NO_ROUTE_OF_CHANNEL, Ending, pattern_text
from router.engine.intake.runs import Moment
from router.engine.log_limits import LogLimits
from router.errors import Reason
from router.events import Event, RawBatch


class UnroutedEvents:
    """The part of the pipeline that counts and logs events without deliveries, and turns them into dead letters.

    If `keep_unmatched` is True, events that no route takes become dead letters. If dead letters are printed
    (`letters_shown`), the log does not repeat them.
    """

    def __init__(
        self,
        *,
        dead_letters: DeadLetters,
        books: Books,
        clock: Clock,
        ids: Ids,
        notes: LogLimits,
        keep_unmatched: bool,
        letters_shown: bool,
    ) -> None:
        self._dead_letters = dead_letters
        self._books = books
        self._clock = clock
        self._ids = ids
        self._notes = notes
        self._keep_unmatched = keep_unmatched
        self._letters_shown = letters_shown

    def refused(self, source: SourceFormat, batch: RawBatch, position: int, moment: Moment) -> Event:
        """Return the event of a rejected message.

        Also set the number of deliveries in the receipt to 1, for the dead letter.
        """
        if batch.receipt is not None:
            batch.receipt.expect(batch.first + position, 1)
        return Event(
            batch.ids[position] if batch.ids else self._ids.next(moment.now),
            source.name,
            events.text(batch.channel),
            pattern_text(batch.pattern),
            batch.received_at or moment.received_at,
            batch.payloads[position],
            format=source.format if source.plain else events.JSON,
            headers=batch.headers[position] if batch.headers else None,
            _receipt=batch.receipt,
            _position=batch.first + position,
        )

    def reject(self, event: Event, why: verdict.Rejected) -> None:
        """Count a rejected event, turn it into a dead letter, and log the reason without any part of the payload."""
        self._books.sources[event.source].rejected[why.reason] += 1
        if not self._letters_shown:
            about: dict[str, Any] = {"event_id": event.id, "source": event.source, "channel": event.channel}
            self._notes.say(
                "event rejected", event.source, why.reason, **about, reason=str(why.reason), detail=why.told
            )
        delivery_log.not_routed([event], "rejected", why.reason, why.detail)
        self._keep(event, why.reason, why.detail)

    def unmatched(self, book: SourceBook, ending: Ending, accepted: list[Event]) -> None:
        """Count events that no route takes.

        If the option `unmatched` names no sinks, also log the events. If it is `dead-letter`, turn them into dead
        letters.
        """
        book.unmatched += len(accepted)
        if ending.sink:
            return
        first = accepted[0]
        of_channel = ending.unmatched == NO_ROUTE_OF_CHANNEL
        self._notes.say(
            "no route takes the events of this channel" if of_channel else "no route takes this event",
            first.source,
            times=len(accepted),
            channels=[event.channel for event in accepted[1:]],
            event_id=first.id,
            source=first.source,
            channel=first.channel,
        )
        delivery_log.not_routed(accepted, "unmatched")
        if self._keep_unmatched:
            for event in accepted:
                self._keep(event, Reason.UNMATCHED, ending.unmatched)

    def _keep(self, event: Event, reason: Reason, detail: str) -> None:
        """Turn an event without deliveries into a dead letter.

        If the event has a receipt, its entry is settled when the letter is in Redis.
        """
        letter = dead_letter_factory.of_delivery(event, reason, detail, now=self._clock.now(), attempts=0)
        receipt, position = event._receipt, event._position
        if receipt is not None:
            letter = msgspec.structs.replace(letter, written=partial(receipt.settle, position))
        self._dead_letters.add([letter])
