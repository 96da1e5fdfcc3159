"""What the pipeline knows of the channels of a source, ready for its loop; floor 5.

A producer chooses the names of channels, and a glob may match any number of them. So a channel that is not known costs a
few lookups, and no more than `MOST_CHANNELS` are remembered. Everything that depends on the plan alone is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from router import events
from router.core.accounts.books import LONGEST_CHANNEL, RouteBook
from router.core.conditions.condition import Subject
from router.core.decoding import SourceFormat, read
from router.core.routing import MOST_PLANS, Plan, Routing, Step, Target
from router.core.validation import Schema
from router.events import RawBatch

MOST_CHANNELS = 10_000
"""Channels that are remembered, per source."""

MOST_ENDINGS = 500_000
"""Steps and deliveries of the endings that are remembered: of a thousand routes each event may be taken by other ones."""


NO_ROUTE_OF_CHANNEL = "no route takes this channel"
NO_ROUTE_OF_EVENT = "the conditions of no route are met"


class Ending(msgspec.Struct, frozen=True, eq=False):
    """The routing result of an event: its deliveries, `targets`. `route` and `sink` are those of the first, empty without one.

    `alone` is the sink where the event makes one delivery by a route, and nothing else. `expected` is how many things have
    to be over before an entry is complete: its deliveries, or its dead letter. `routes` has the book of every route that takes
    the event, also where the route's deliveries are made by another one.
    """

    matched: bool
    route: str
    sink: str
    targets: tuple[Target, ...]
    alone: str
    expected: int
    unmatched: str
    routes: tuple[RouteBook, ...]


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A plan with everything that the loop needs at hand; the channels that have the same plan share it.

    `accepts` asks what the source's decoder returns, None where every payload fits; `warns` is a schema that lets pass.
    `ending` is None where the event decides. `asks_event` says that more than its payload does. `bare` says that neither has to be asked: a good message is its payload.
    """

    plan: Plan
    accepts: Callable[[Any], bool] | None
    warns: Schema | None
    ending: Ending | None
    asks_event: bool
    bare: bool


Known = tuple[str, str | None, Prepared]
"""A channel: its name, the pattern that brings it, its plan. Of several subscriptions that match it one always wins."""


class Channels:
    """The channels of one source. `decode` reads a message: to its payload, or to a `Message` unless the format is plain.

    `books` has the book of every route.
    """

    def __init__(
        self, source: SourceFormat, routing: Routing, books: Mapping[str, RouteBook], *, keep_unmatched: bool
    ) -> None:
        self.source = source
        self.decode = events.DECODERS[source.format] if source.plain else partial(read, source=source)
        self.known: dict[bytes, Known] = {}
        """Those that were seen, by their names."""
        self._plan = routing.plans_of(source.name).find
        self._books = books
        self._keep_unmatched = keep_unmatched
        self._prepared: dict[Plan, Prepared] = {}
        self._pattern: bytes | None = None
        self._pattern_text: str | None = None
        self._endings: dict[tuple[Step, ...] | bool, Ending] = {}
        """By the steps that take an event. Where none does: whether its channel has any."""
        self._endings_size = 0
        """The steps and deliveries of these endings together."""

    def find(self, batch: RawBatch, known: dict[bytes, Known]) -> Known:
        """Find what is to be known of a channel, and remember it there unless its name is very long."""
        channel = batch.channel
        plan = self._plan(channel)
        prepared = self._prepared.get(plan) or self._prepare(plan)
        if batch.pattern != self._pattern:
            self._pattern, self._pattern_text = batch.pattern, pattern_text(batch.pattern)
        found = channel.decode("utf-8", "backslashreplace"), self._pattern_text, prepared
        if len(channel) <= LONGEST_CHANNEL:
            if len(known) >= MOST_CHANNELS:
                known.clear()  # dropping the oldest one each time takes long: a dict has to look for it
            known[channel] = found
        return found

    def ending(self, plan: Plan, payload: Any, subject: Subject | None = None) -> Ending:
        """Return what an event becomes; events that become the same get the same object."""
        taken = plan.taken_by(payload, subject)
        key = taken or bool(plan.steps)
        ending = self._endings.get(key)
        if ending is None:
            targets = plan.deliveries(taken)
            first = targets[0] if targets else Target("", "")
            alone = first.sink if taken and len(targets) == 1 else ""
            expected = len(targets) or int(self._keep_unmatched)
            why = "" if taken else NO_ROUTE_OF_EVENT if plan.steps else NO_ROUTE_OF_CHANNEL
            books = tuple(self._books[step.route] for step in taken)
            ending = Ending(bool(taken), first.route, first.sink, targets, alone, expected, why, books)
            size = 1 + len(taken) + len(targets)
            self._endings_size += size
            if self._endings_size > MOST_ENDINGS:
                self._endings.clear()
                self._endings_size = size
            self._endings[key] = ending
        return ending

    def _prepare(self, plan: Plan) -> Prepared:
        schema = plan.schema.schema if plan.schema else None
        warns = schema if plan.schema and plan.schema.mode == "warn" else None
        accepts = schema.is_valid if schema and not warns else None
        if accepts and not self.source.plain:
            accepts = partial(_fits, accepts)
        ending = None if plan.conditional else self.ending(plan, None)
        bare = self.source.plain and ending is not None and warns is None
        if len(self._prepared) >= MOST_PLANS:
            self._prepared.clear()
        prepared = self._prepared[plan] = Prepared(plan, accepts, warns, ending, plan.asks_event, bare)
        return prepared


def pattern_text(pattern: bytes | None) -> str | None:
    """Return a pattern as text."""
    return None if pattern is None else events.text(pattern)


def _fits(accepts: Callable[[Any], bool], message: Any) -> bool:
    """Return whether the payload of a message fits its schema."""
    return accepts(message.payload)
