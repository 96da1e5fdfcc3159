"""Heeds what a sink's answers ask for: the sink, or one of its addresses, is left alone for a while; floor 5."""

from __future__ import annotations

from typing import NamedTuple

from router.contracts import Clock
from router.core.delivery.pauses import Pauses
from router.core.delivery.retry import asked
from router.engine.delivery.gate import Gate
from router.errors import PartialError, TransientError


class Destination(NamedTuple):
    """Where a delivery goes: its addresses, and whether they stand literally in the configuration (a team's)."""

    addresses: tuple[str, ...]
    literal: bool


class Pausing:
    """Keeps the pauses that the answers of one sink ask for. Those of the whole sink are its gate's."""

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._pauses = Pauses()

    def __bool__(self) -> bool:
        """Whether some addresses may have to be left alone."""
        return bool(self._pauses)

    def heed(self, error: Exception, to: Destination) -> None:
        """Take the failure of a delivery. From now on no attempt begins that its answer asks not to make."""
        if isinstance(error, PartialError):
            for address, failure in error.failures.items():
                self.heed(failure, Destination((address,), to.literal))
            return
        seconds = asked(error)
        if seconds is None or not isinstance(error, TransientError):
            return
        if not to.addresses or (error.scope or ("sink" if to.literal else "address")) == "sink":
            self._gate.pause(seconds)
            return
        now = self._clock.monotonic()
        for address in to.addresses:
            self._pauses.add(address, now + seconds, now)

    def left(self, *addresses: str) -> float:
        """Seconds until a delivery to these addresses may be attempted."""
        return self._pauses.left(addresses, self._clock.monotonic())
