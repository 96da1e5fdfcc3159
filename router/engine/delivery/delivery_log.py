"""Debug lines that answer "why did user 42 not get it?": one for each delivery and each event that is over; floor 5.

Nothing is computed for them unless the log level is `debug`, which is asked once for a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import structlog

from router.engine.delivery.gate import Destination
from router.errors import Reason
from router.events import Event, Settled, text

log = structlog.stdlib.get_logger(__name__)

PAYLOAD_BYTES = 8 * 1024 + 4
"""Bytes of a payload that are written as text: a little more than a field may have, so that the cut is marked."""

_level = logging.getLogger(__name__)


def wanted() -> bool:
    """Return whether the log has debug lines."""
    return _level.isEnabledFor(logging.DEBUG)


def not_routed(events: Iterable[Event], outcome: str, reason: Reason | None = None, error: str | None = None) -> None:
    """Tell of events that go no further: `rejected`, or `unmatched`."""
    if wanted():
        for event in events:
            fields = {"outcome": outcome, "reason": reason and str(reason), "error": error}
            log.debug("event not routed", **_event(event), **_known(fields), payload=_payload(event))


def settled(one: Settled) -> None:
    """Write the line of one delivery that is over. Ask `wanted` before."""
    event = one.event
    fields = {
        "route": event.route,
        "sink": event.sink,
        "address": ", ".join(one.addresses) or event.address,
        "outcome": str(one.outcome),
        "reason": one.reason and str(one.reason),
        "attempt": one.attempts,
        "duration": one.seconds,
        "error": one.detail,
        "answer": one.answer,
    }
    log.debug("delivery settled", **_event(event), **_known(fields), payload=_payload(event))


def about(event: Event) -> dict[str, Any]:
    """Return what log lines say of a delivery."""
    said = {**_event(event), "route": event.route}
    if event.address is not None:
        said["address"] = event.address
    return said


class Destinations(Protocol):
    """The part that knows where deliveries go."""

    def destination(self, event: Event, options: Any) -> Destination:
        """Return where a delivery with these options goes."""


class LastCall:
    """The last call of one sink, as its debug lines tell of it: its deliveries are settled next, before any other call's."""

    def __init__(self) -> None:
        self.told = False
        """Whether there were debug lines when the call came back."""
        self._calls: dict[str, tuple[tuple[str, ...], float]] = {}

    def returned(self, pairs: Sequence[tuple[Event, Any]], seconds: float, destinations: Destinations) -> None:
        """Remember a call that took so many seconds."""
        self.told = wanted()
        if self.told:
            seconds = round(seconds, 6)
            self._calls = {
                event.key: (destinations.destination(event, options).addresses, seconds) for event, options in pairs
            }

    def of(self, event: Event) -> tuple[tuple[str, ...], float | None]:
        """Return where the delivery went and the seconds that took; nothing of one that was not in the call."""
        # The failed addresses of one call become deliveries of their own, with another key.
        call = self._calls.get(event.key) or self._calls.get(event.key.removesuffix(f":{event.address}"))
        return call or ((), None)


def _event(event: Event) -> dict[str, str]:
    return {"event_id": event.id, "source": event.source, "channel": event.channel}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _payload(event: Event) -> str:
    return text(event.raw[:PAYLOAD_BYTES])
