"""The books: counters for the outcome of every event and every delivery; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from router.errors import Reason
from router.events import Outcome

CHANNELS = 1_000
"""The largest number of channels for which dropped deliveries are counted separately."""

LONGEST_CHANNEL = 1_000
"""The length of the longest channel name that is remembered: in bytes for a raw name, in characters for a decoded name.
The limit is needed because a publisher may use names of many megabytes.
"""

OTHER = "other"
"""The key under which the dropped deliveries of all other channels are counted."""


class SourceBook(msgspec.Struct):
    """The events of one source: `received = rejected + unmatched + routed`."""

    received: int = 0
    rejected: Counter[Reason] = msgspec.field(default_factory=Counter)
    unmatched: int = 0
    routed: int = 0
    trimmed: int = 0
    """Stream entries that were trimmed or deleted before this router had completed them."""
    trimmed_exact: bool = True
    """True if `trimmed` is exact; else it is a lower bound."""
    possibly_repeated: int = 0
    """Entries completed by this router that another router may have delivered too."""
    schema_warnings: int = 0
    """Events that failed a schema of mode `warn`. They are also counted as routed or unmatched."""


class RouteBook(msgspec.Struct, eq=False):
    """The events that one route took.

    An event is counted even if its delivery was merged into the delivery of another route.
    """

    events: int = 0


class SinkBook(msgspec.Struct):
    """The deliveries of one sink.

    A settled delivery is delivered, printed, dead-lettered, dropped, suppressed or handed over.
    """

    planned: int = 0
    """Deliveries made by this process: `planned = accepted + on_their_way + left`."""
    on_their_way: int = 0
    """Planned deliveries that are not in Redis yet."""
    left: int = 0
    """Planned deliveries that were not enqueued, because another router has enqueued them or they are in the queue
    already.
    """
    accepted: int = 0
    """Deliveries that are in the queue or settled."""
    delivered: int = 0
    printed: int = 0
    """Deliveries that were shown instead of sent, because of the option `deliver`."""
    dead_lettered: Counter[Reason] = msgspec.field(default_factory=Counter)
    dropped: Counter[Reason] = msgspec.field(default_factory=Counter)
    suppressed: Counter[Reason] = msgspec.field(default_factory=Counter)
    handed_over: int = 0
    """Deliveries that were replaced by other deliveries. These are split deliveries, deliveries that fell back to
    another sink, and deliveries that a reload moved to another queue.
    """
    degraded: int = 0
    """Deliveries with a text that could not be rendered. The event as one line of JSON was sent in place of this text.
    These deliveries are also counted in `delivered`.
    """
    dropped_by_channel: Counter[str] = msgspec.field(default_factory=Counter)
    """The number of dropped deliveries by channel, for the first `CHANNELS` channels. The dropped deliveries of other
    channels, and of channels with very long names, are counted under `OTHER`.
    """

    def settle(self, number: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """Count `number` settled deliveries.

        Every outcome except delivered, printed and handed over needs a `reason`.
        """
        if outcome is Outcome.DELIVERED:
            self.delivered += number
        elif outcome is Outcome.PRINTED:
            self.printed += number
        elif outcome is Outcome.HANDED_OVER:
            self.handed_over += number
        else:
            assert reason is not None
            self._counters()[outcome][reason] += number

    def split(self, parts: int) -> None:
        """Count `parts` additional deliveries, which a split made in the queue."""
        self.planned += parts
        self.accepted += parts

    def drop(self, channels: Iterable[str], reason: Reason) -> None:
        """Count dropped deliveries, one for each of these channels."""
        for channel, number in Counter(channels).items():
            self.dropped[reason] += number
            known = channel in self.dropped_by_channel or (
                len(self.dropped_by_channel) < CHANNELS and len(channel) <= LONGEST_CHANNEL
            )
            self.dropped_by_channel[channel if known else OTHER] += number

    def _counters(self) -> dict[Outcome, Counter[Reason]]:
        return {
            Outcome.DEAD_LETTERED: self.dead_lettered,
            Outcome.DROPPED: self.dropped,
            Outcome.SUPPRESSED: self.suppressed,
        }

    @property
    def pending(self) -> int:
        """The number of deliveries that are not settled."""
        without_reason = self.delivered + self.printed + self.handed_over
        return (
            self.accepted - without_reason - self.dead_lettered.total() - self.dropped.total() - self.suppressed.total()
        )


class ProcessBook(msgspec.Struct, frozen=True):
    """The deliveries that one process has made, summed over all sinks.

    The fields have the same meaning as in `SinkBook`.
    """

    planned: int = 0
    accepted: int = 0
    on_their_way: int = 0
    left: int = 0

    @property
    def difference(self) -> int:
        """The number of planned deliveries that no other field counts. Any number but 0 means a bug in the router."""
        return self.planned - self.accepted - self.on_their_way - self.left


class Books(msgspec.Struct):
    """The books of one router."""

    sources: dict[str, SourceBook]
    sinks: dict[str, SinkBook]
    routes: dict[str, RouteBook] = msgspec.field(default_factory=dict)
    """The books of the enabled routes of the current configuration, in the order of the routes."""

    def use_routes(self, ids: Iterable[str]) -> None:
        """Set the routes that have a book. A new route begins at 0; the book of a removed route is dropped."""
        self.routes = {name: self.routes.get(name) or RouteBook() for name in ids}

    @property
    def process(self) -> ProcessBook:
        """The sums over all sinks that this process has had so far."""
        books = self.sinks.values()
        return ProcessBook(
            planned=sum(book.planned for book in books),
            accepted=sum(book.accepted for book in books),
            on_their_way=sum(book.on_their_way for book in books),
            left=sum(book.left for book in books),
        )

    def totals(self) -> dict[str, object]:
        """Return the sums over all sources and sinks, for the last log line of the router.

        `trimmed` is left out if it is 0.
        """
        sources, sinks = self.sources.values(), self.sinks.values()
        return {
            "received": sum(book.received for book in sources),
            "rejected": _sum(book.rejected for book in sources),
            "unmatched": sum(book.unmatched for book in sources),
            "delivered": sum(book.delivered for book in sinks),
            "printed": sum(book.printed for book in sinks),
            "dead_lettered": _sum(book.dead_lettered for book in sinks),
            "dropped": _sum(book.dropped for book in sinks),
            "suppressed": _sum(book.suppressed for book in sinks),
            **({"trimmed": trimmed} if (trimmed := sum(book.trimmed for book in sources)) else {}),
        }


def _sum(counters: Iterable[Counter[Reason]]) -> dict[str, int]:
    total: Counter[Reason] = Counter()
    for counter in counters:
        total += counter
    return {str(reason): number for reason, number in sorted(total.items())}
