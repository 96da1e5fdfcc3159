"""The cache of the channels of one source, with the values that the pipeline needs for each channel; floor 5.

Producers choose the names of channels, and a glob may match any number of channels. So the cache has at most
`MOST_CHANNELS` channels. A channel that is not in the cache costs only a few accesses to dicts. Channels with the same
plan share all values that depend only on the plan.
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
from router.errors import RejectedError
from router.events import RawBatch

MOST_CHANNELS = 10_000
"""The largest number of channels in the cache of one source."""

MOST_ENDINGS = 500_000
"""The largest total number of steps and deliveries in the cached endings.

A limit of the number of endings would not limit the memory, because one ending may have a thousand steps if there are a
thousand routes.
"""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RejectedError)
"""The errors for payloads that can't be decoded."""

NO_ROUTE_OF_CHANNEL = "no route takes this channel"
NO_ROUTE_OF_EVENT = "the conditions of no route are met"


class Ending(msgspec.Struct, frozen=True, eq=False):
    """The routing result of an event: its deliveries, in `targets`.

    `route` and `sink` are the route and sink of the first delivery; both are empty if the event has no delivery. If
    routes take the event and make exactly one delivery, `alone` is the sink of this delivery; else it is empty.
    `expected` is the number of deliveries, or 1 for an event that becomes a dead letter. An entry is complete when this
    number of deliveries is settled. If no route takes the event, `unmatched` is the reason; else it is empty. `routes`
    has the book of each route that takes the event. A route whose delivery was merged into another delivery is
    included.
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
    """A plan with the values that the pipeline's loop needs. Channels with the same plan share one object.

    `accepts` validates the result of the source's decoder; None if every payload is accepted. `warns` is the schema if
    its mode is `warn`, else None. `ending` is the ending of every event; None if conditions decide for each event.
    `asks_event` is True if conditions need more of the event than its payload. `bare` is True if the decoded message is
    needed only for validation. Then events are created from the raw payloads.
    """

    plan: Plan
    accepts: Callable[[Any], bool] | None
    warns: Schema | None
    ending: Ending | None
    asks_event: bool
    bare: bool


Known = tuple[str, str | None, Prepared]
"""A channel: its name, the pattern that matches it, and its plan. All events of a channel have the same pattern."""

Alone = tuple[str, str | None, Ending]
"""The values for the only message of a batch: its channel, the pattern that matches the channel, and the ending of the
message.
"""


class Channels:
    """The channels of one source.

    `decode` decodes a raw message. It returns the payload if the source's format is plain, else a `Message`. `books` has the
    book of every route.
    """

    def __init__(
        self, source: SourceFormat, routing: Routing, books: Mapping[str, RouteBook], *, keep_unmatched: bool
    ) -> None:
        self.source = source
        self.decode = events.DECODERS[source.format] if source.plain else partial(read, source=source)
        self.known: dict[bytes, Known] = {}
        """The cached channels, by name."""
        self._plan = routing.plans_of(source.name).find
        self._books = books
        self._keep_unmatched = keep_unmatched
        self._prepared: dict[Plan, Prepared] = {}
        self._pattern: bytes | None = None
        self._pattern_text: str | None = None
        self._endings: dict[tuple[Step, ...] | bool, Ending] = {}
        """The cached endings. The key is the tuple of steps that take an event. If no step takes the event, the key is
        a bool: whether the channel has steps.
        """
        self._endings_size = 0
        """The total number of steps and deliveries in the cached endings, plus 1 for each ending."""

    def find(self, batch: RawBatch, known: dict[bytes, Known]) -> Known:
        """Return the values of the channel of a batch.

        Add them to `known`, except for a channel with a very long name.
        """
        channel = batch.channel
        plan = self._plan(channel)
        prepared = self._prepared.get(plan) or self._prepare(plan)
        if batch.pattern != self._pattern:
            self._pattern, self._pattern_text = batch.pattern, pattern_text(batch.pattern)
        found = channel.decode("utf-8", "backslashreplace"), self._pattern_text, prepared
        if len(channel) <= LONGEST_CHANNEL:
            if len(known) >= MOST_CHANNELS:
                known.clear()  # clear everything: after many deletions, a dict takes long to find its oldest key
            known[channel] = found
        return found

    def alone(self, batch: RawBatch) -> Alone | None:
        """Return the channel, the pattern and the ending of the only message in `batch`.

        The message must be valid, its channel must be cached, and every event of the channel must make exactly one
        delivery. Otherwise, the result is None. So None does not mean that the message is invalid.
        """
        found, (raw,) = self.known.get(batch.channel), batch.payloads
        if found is None or batch.receipt is not None or batch.ids is not None:
            return None
        channel, pattern, prepared = found
        ending, accepts = prepared.ending, prepared.accepts
        if ending is None or not (ending.alone and prepared.bare) or len(raw) > self.source.max_bytes:
            return None
        try:
            message = self.decode(raw)
            good = accepts is None or accepts(message)
        except UNREADABLE:
            return None
        return (channel, pattern, ending) if good else None

    def ending(self, plan: Plan, payload: Any, subject: Subject | None = None) -> Ending:
        """Return the ending of an event. Events with the same routing result get the same object."""
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
    """Return a pattern as text; None if there is no pattern."""
    return None if pattern is None else events.text(pattern)


def _fits(accepts: Callable[[Any], bool], message: Any) -> bool:
    """Return whether the payload of a message fits its schema."""
    return accepts(message.payload)
