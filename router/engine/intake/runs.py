"""Runs of consecutive events with the same deliveries, which the pipeline enqueues together; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from router.core.routing import Target
from router.engine.intake.channels import Ending
from router.events import Event

T = TypeVar("T")


class Run(msgspec.Struct, eq=False):
    """Consecutive events with the same ending. If each event goes to one sink alone, the routes may differ.

    `ending` is the ending of the last event. `size` is the sum of the payloads in bytes. The first `counted` events are
    already counted in the books of their routes.
    """

    ending: Ending
    accepted: list[Event]
    size: int = 0
    counted: int = 0

    def count(self) -> None:
        """Count the events added since the last call in the books of their routes."""
        events = len(self.accepted)
        for book in self.ending.routes:
            book.events += events - self.counted
        self.counted = events


def run_of(runs: list[Run], ending: Ending) -> Run:
    """Return the run for further events with this ending: the last run if the events fit, else a new one."""
    if runs:
        run = runs[-1]
        last = run.ending
        if last is ending:
            return run
        if last.alone and last.alone == ending.alone:
            run.count()
            run.ending = ending
            return run
    runs.append(Run(ending, []))
    return runs[-1]


def without(items: Sequence[T], bad: Sequence[int]) -> list[T]:
    """Return the items except those at the positions in `bad`, which must be in ascending order."""
    left = list(items)
    for position in reversed(bad):
        del left[position]
    return left


def copies(accepted: Iterable[Event], target: Target) -> list[Event]:
    """Return copies of deliveries for another sink or route."""
    return [
        Event(
            e.id,
            e.source,
            e.channel,
            e.pattern,
            e.received_at,
            e.raw,
            target.route,
            target.sink,
            e.format,
            e.headers,
            _receipt=e._receipt,
            _position=e._position,
        )
        for e in accepted
    ]
