"""Runs: consecutive events that go to the same sinks. The pipeline enqueues the events of a run together; floor 5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec

from router.core.delivery.shared_deliveries import FEWEST, Deliveries, LineCache, Part, SharedEvents, copies
from router.engine.intake.channels import Ending
from router.events import Event

T = TypeVar("T")


class Moment(NamedTuple):
    """The values that all events of one chunk share."""

    now: float
    received_at: datetime
    prefix: str


class Run(msgspec.Struct, eq=False):
    """Consecutive events with the same ending.

    Events with a single delivery also form one run if all of them go to the same sink, even if different routes take
    them. `ending` is the ending of the last event. `size` is the total size of the payloads in bytes. The first
    `counted` events are already counted in the books of their routes.
    """

    ending: Ending
    accepted: list[Event]
    size: int = 0
    counted: int = 0

    def count(self) -> None:
        """Count, in the books of their routes, the events that were added since the last call."""
        events = len(self.accepted)
        for book in self.ending.routes:
            book.events += events - self.counted
        self.counted = events


def run_of(runs: list[Run], ending: Ending) -> Run:
    """Return the run for further events with this ending: the last run if the events belong to it, else a new run."""
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
    """Return the items, but leave out those at the positions in `bad`. The positions must be in ascending order."""
    left = list(items)
    for position in reversed(bad):
        del left[position]
    return left


def fan_out(run: Run, cache: LineCache) -> Iterator[tuple[str, Sequence[Event]]]:
    """Yield each sink of a run with its deliveries. `cache` keeps the lines that several sinks share."""
    accepted, targets = run.accepted, run.ending.targets
    if len(targets) > 1 and len(accepted) >= FEWEST:
        shared = SharedEvents(accepted, Counter(target.route for target in targets), cache)
        for target in targets:
            yield target.sink, Deliveries(target.sink, [Part(shared, target.route, 0, len(accepted))])
        return
    for number, target in enumerate(targets):
        yield target.sink, copies(accepted, target.route, target.sink) if number else accepted
