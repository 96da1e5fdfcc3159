"""The debug lines of single events and deliveries; floor 5.

They show why a user did not get a message. The fields are computed only if the log level is `debug`. The level is
checked once per batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import structlog

from router.engine.calling import accidents
from router.engine.delivery.gate import Destination
from router.errors import Reason
from router.escaping import cut
from router.events import Event, Settled, text

log = structlog.stdlib.get_logger(__name__)

PAYLOAD_BYTES = 8 * 1024 + 4
"""The largest number of bytes of a payload in the log. The number is larger than the limit of a log field, so that the
log marks the field as cut.
"""

LONGEST_TRACE = 16 * 1024
"""The largest number of bytes of a traceback in the log."""

_level = logging.getLogger(__name__)


def wanted() -> bool:
    """Return whether the log level is `debug`."""
    return _level.isEnabledFor(logging.DEBUG)


def not_routed(events: Iterable[Event], outcome: str, reason: Reason | None = None, error: str | None = None) -> None:
    """Log events that did not become deliveries; `outcome` is `rejected` or `unmatched`."""
    if wanted():
        for event in events:
            fields = {"outcome": outcome, "reason": reason and str(reason), "error": error}
            log.debug("event not routed", **_event(event), **_known(fields), payload=_payload(event))


def raised(sink: str, error: BaseException, redact: Callable[[str], str]) -> None:
    """Log the traceback of a plugin's unexpected error, if the log level is `debug`."""
    if wanted() and (trace := accidents.trace_of(error)):
        log.debug("the plugin raised an exception", sink=sink, exception=cut(redact(trace), LONGEST_TRACE))


def settled(delivery: Settled) -> None:
    """Log a settled delivery. Call this function only if `wanted` returns True."""
    event = delivery.event
    fields = {
        "route": event.route,
        "sink": event.sink,
        "address": ", ".join(delivery.addresses) or event.address,
        "outcome": str(delivery.outcome),
        "reason": delivery.reason and str(delivery.reason),
        "attempt": delivery.attempts,
        "duration": delivery.seconds,
        "error": delivery.detail,
        "answer": delivery.answer,
    }
    log.debug("delivery settled", **_event(event), **_known(fields), payload=_payload(event))


def about(event: Event) -> dict[str, Any]:
    """Return the fields that identify a delivery in log lines."""
    fields = {**_event(event), "route": event.route}
    if event.address is not None:
        fields["address"] = event.address
    return fields


class Destinations(Protocol):
    """An object that finds the destinations of deliveries."""

    def destination(self, event: Event, options: Any) -> Destination:
        """Return the destination of a delivery with these options."""


class LastCall:
    """The last call of one sink, for debug lines.

    The deliveries of a call are settled before the deliveries of the next call.
    """

    def __init__(self) -> None:
        self.told = False
        """True if the log level was `debug` when the call returned."""
        self._calls: dict[str, tuple[tuple[str, ...], float]] = {}

    def returned(self, pairs: Sequence[tuple[Event, Any]], seconds: float, destinations: Destinations) -> None:
        """Record the deliveries and the duration of a call that has returned."""
        self.told = wanted()
        if self.told:
            seconds = round(seconds, 6)
            self._calls = {
                event.key: (destinations.destination(event, options).addresses, seconds) for event, options in pairs
            }

    def of(self, event: Event) -> tuple[tuple[str, ...], float | None]:
        """Return the addresses of a delivery and the duration of its call; `((), None)` if the delivery was not part of
        the last call.
        """
        # After the call, the delivery may have been split into one delivery for each failed address. The key of such a
        # delivery is the key of the split delivery, followed by the address.
        call = self._calls.get(event.key) or self._calls.get(event.key.removesuffix(f":{event.address}"))
        return call or ((), None)


def _event(event: Event) -> dict[str, str]:
    return {"event_id": event.id, "source": event.source, "channel": event.channel}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _payload(event: Event) -> str:
    return text(event.raw[:PAYLOAD_BYTES])
