"""The creation of dead letters from events and deliveries; floor 5."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from router.core import ids
from router.core.validation import DETAIL_BYTES
from router.errors import Reason
from router.escaping import cut
from router.events import DeadLetter, Event, timestamp


def of_delivery(
    event: Event,
    reason: Reason,
    detail: str,
    *,
    now: float,
    attempts: int,
    written: Callable[[], None] | None = None,
) -> DeadLetter:
    """Return the letter of a delivery that was given up, or of an event without a delivery (`event.sink` is empty).

    The id of the letter is computed from the key of the delivery. For an event without a delivery, it is the id of the
    event. So a letter that is replayed and fails again has the same id. `now` is in seconds since the epoch. `attempts`
    is the number of calls of the sink. `written` is called when the letter is in Redis.
    """
    has_sink = bool(event.sink)
    return DeadLetter(
        id=ids.of_delivery(event.key) if has_sink else event.id,
        event_id=event.id,
        reason=reason,
        detail=cut(detail, DETAIL_BYTES),
        source=event.source,
        channel=event.channel,
        pattern=event.pattern,
        headers=event.headers,
        route=event.route or None,
        sink=event.sink or None,
        address=event.address,
        key=event.key if has_sink else None,
        attempts=attempts,
        received_at=timestamp(event.received_at),
        failed_at=timestamp(datetime.fromtimestamp(now, UTC)),
        payload=event.raw,
        fallback=event._fallback,
        written=written,
    )


def of_waiting(event: Event, reason: Reason, why: str, *, now: float) -> DeadLetter:
    """Return the letter of a waiting delivery that is given up. `why` is the explanation of `reason`.

    The last error of the delivery is appended to `why`. `now` is in seconds since the epoch.
    """
    history = event._history
    detail = f"{why} (last error: {history.last_error})" if history and history.last_error else why
    return of_delivery(event, reason, detail, now=now, attempts=history.calls if history else 0)
