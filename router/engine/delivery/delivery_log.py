"""Debug lines that answer "why did user 42 not get it?": one for each delivery and each event that is over; floor 5.

Nothing is computed for them unless the log level is `debug`, which is asked once for a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import structlog

from router.contracts import Clock
from router.engine.delivery.pausing import Destination
from router.errors import Reason
from router.events import Event, Outcome, text

log = structlog.stdlib.get_logger(__name__)

PAYLOAD_BYTES = 8 * 1024 + 4
"""Bytes of a payload that are written as text: a little more than a field may have, so that the cut is marked."""

_level = logging.getLogger(__name__)


def wanted() -> bool:
    """Return whether the log has debug lines."""
    return _level.isEnabledFor(logging.DEBUG)


def settled(events: Iterable[Event], outcome: Outcome, reason: Reason | None = None) -> None:
    """Tell of deliveries that were settled, all in the same way, without an attempt."""
    if wanted():
        for event in events:
            _settled(event, outcome, reason, attempt=_calls(event))


def not_routed(events: Iterable[Event], outcome: str, reason: Reason | None = None, error: str | None = None) -> None:
    """Tell of events that go no further: `rejected`, or `unmatched`."""
    if wanted():
        for event in events:
            fields = {"outcome": outcome, "reason": reason and str(reason), "error": error}
            log.debug("event not routed", **_event(event), **_known(fields), payload=_payload(event))


class Destinations(Protocol):
    """What knows where deliveries go."""

    def destination(self, event: Event, options: Any) -> Destination:
        """Where a delivery with these options goes."""


class DeliveryLog:
    """The debug lines about the deliveries of one sink."""

    def __init__(self, clock: Clock) -> None:
        self.on = False
        """Whether there were debug lines when the last call came back."""
        self._clock = clock
        self._calls: dict[str, tuple[tuple[str, ...], float]] = {}

    def called(self, pairs: Sequence[tuple[Event, Any]], began: float, prepared: Destinations) -> None:
        """Remember a call, which began at this monotonic time: its deliveries are settled next, before any other call's."""
        self.on = _level.isEnabledFor(logging.DEBUG)
        if self.on:
            seconds = round(self._clock.monotonic() - began, 6)
            self._calls = {
                event.key: (prepared.destination(event, options).addresses, seconds) for event, options in pairs
            }

    def settled(
        self,
        events: Iterable[Event],
        outcome: Outcome,
        reason: Reason | None = None,
        *,
        attempt: int | None = None,
        addresses: Sequence[str] = (),
        error: str | None = None,
    ) -> None:
        """Tell of deliveries that were settled, all in the same way.

        `attempt` says how often they were tried, where that is not once more than before (`delivered`) or as often as before.
        """
        if not wanted():
            return
        for event in events:
            tried = _calls(event) + (outcome is Outcome.DELIVERED) if attempt is None else attempt
            # The failed addresses of one call become deliveries of their own, with another key.
            call = self._calls.get(event.key) or self._calls.get(event.key.removesuffix(f":{event.address}"))
            to, seconds = call if call and tried > 0 else ((), None)
            if event.address is not None:
                to = (event.address,)
            _settled(event, outcome, reason, attempt=tried, addresses=addresses or to, duration=seconds, error=error)


def _settled(
    event: Event, outcome: Outcome, reason: Reason | None, *, addresses: Sequence[str] = (), **fields: Any
) -> None:
    known = {
        "route": event.route,
        "sink": event.sink,
        "address": ", ".join(addresses) or event.address,
        "outcome": str(outcome),
        "reason": reason and str(reason),
        **fields,
    }
    log.debug("delivery settled", **_event(event), **_known(known), payload=_payload(event))


def _event(event: Event) -> dict[str, str]:
    return {"event_id": event.id, "source": event.source, "channel": event.channel}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _payload(event: Event) -> str:
    return text(event.raw[:PAYLOAD_BYTES])


def _calls(event: Event) -> int:
    return event._history.calls if event._history else 0
