"""Handing a delivery over to other sinks; floor 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from router.contracts import Receipt
from router.errors import Reason
from router.events import Event

HandOver = Callable[[str, Event], None]
"""Puts a delivery into the queue of a sink. Raises `LookupError` when there is no such sink any more."""

HANDED_OVER = frozenset(
    {Reason.EXHAUSTED, Reason.PERMANENT, Reason.PLUGIN, Reason.TEMPLATE, Reason.ADDRESS, Reason.LOOKUP}
)
"""Why a delivery is given up that another sink may still make: not because it is too late for it."""


class Relayed:
    """The receipt of what a delivery was handed over to: it is over when all of that is over, or safe in Redis.

    Implements `contracts.Receipt`; there is one position.
    """

    def __init__(self, number: int, over: Callable[[], None]) -> None:
        self._open = number
        self._over = over

    def expect(self, position: int, deliveries: int) -> None:
        """Nothing new: how many there are was known."""

    def add(self, position: int, deliveries: int) -> None:
        """One of them was split."""
        del position
        self._open += deliveries

    def settle(self, position: int) -> None:
        """One of them is over."""
        del position
        self._open -= 1
        if not self._open:
            self._over()

    def returned(self, position: int) -> None:
        """Nothing to note: the delivery that it stands for came back long ago."""

    def open(self, position: int) -> int:
        """How many of them are not over."""
        del position
        return self._open

    def removal(self, position: int, *, whole: bool) -> None:
        """Nothing: what is behind it is told by `over`."""

    def handed_over(self, position: int) -> None:
        """One of them is safe in Redis."""
        self.settle(position)

    def marked(self, position: int) -> None:
        """Nothing to note: no entry of its own is removed."""

    def gone(self, position: int) -> None:
        """Nothing to note, as for `marked`."""

    def taken_over(self, position: int) -> None:
        """Nothing to note, as for `marked`."""


def relay(event: Event, sinks: Sequence[str], put: HandOver, over: Callable[[], None], *, wait: bool) -> list[str]:
    """Hand a delivery over to sinks, as new to each of them; returns those that took it.

    `over` is called when it is over here: at once, or with `wait` when it can't be lost any more.
    """
    taken: list[str] = []
    relayed: Receipt = Relayed(1, over)
    for sink in sinks:
        receipt = relayed if wait else None
        fresh = msgspec.structs.replace(
            event, sink=sink, attempt=1, address=None, _history=None, _receipt=receipt, _position=0
        )
        relayed.add(0, 1)
        try:
            put(sink, fresh)
        except LookupError:
            relayed.add(0, -1)
        else:
            taken.append(sink)
    if not taken:
        return []
    if wait:
        relayed.settle(0)
    else:
        over()
    return taken
