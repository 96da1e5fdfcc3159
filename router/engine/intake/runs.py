"""Runs of events that become the same, from which the pipeline fills the queues of the sinks; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from router.core.routing import Target
from router.engine.intake.channels import Ending
from router.events import Event

T = TypeVar("T")


class Run(msgspec.Struct, eq=False):
    """Events that came one after the other and become the same, but for the route where each goes to one sink alone.

    `ending` is that of the last one. `size` is that of their payloads. Of the events, the first `counted` are in the books of
    their routes.
    """

    ending: Ending
    accepted: list[Event]
    size: int = 0
    counted: int = 0

    def count(self) -> None:
        """Count the events since the last call for the routes that take them."""
        events = len(self.accepted)
        for book in self.ending.routes:
            book.events += events - self.counted
        self.counted = events


def run_of(runs: list[Run], ending: Ending) -> Run:
    """Return the run that events with this ending belong to, from now on: the last one, or a new one."""
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
    """Return the items without those at some positions, which are in ascending order."""
    left = list(items)
    for position in reversed(bad):
        del left[position]
    return left


def copies(accepted: Iterable[Event], target: Target) -> list[Event]:
    """Return copies of deliveries, bound for another sink or by another route."""
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
