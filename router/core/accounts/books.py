"""The books: what became of every event and every delivery, in numbers; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from router.errors import Reason
from router.events import Outcome

CHANNELS = 1_000
"""Channels whose drops are counted each for itself."""

LONGEST_CHANNEL = 1_000
"""Bytes of the longest name of a channel that anything is remembered by: who publishes may make names of many megabytes."""

OTHER = "other"
"""The rest of them."""


@dataclass(slots=True)
class SourceBook:
    """The events of one source: `received = rejected + unmatched + routed`."""

    received: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter)
    unmatched: int = 0
    routed: int = 0
    trimmed: int = 0
    """Entries of streams that were trimmed or deleted, and so never came to an end here."""
    trimmed_exact: bool = True
    """Whether that is all; else it is at least so many."""
    possibly_repeated: int = 0
    """Entries that came to an end here though another router may have had them too."""


@dataclass(slots=True)
class SinkBook:
    """The deliveries made for one sink; what is over is delivered, printed, dead-lettered, dropped, suppressed or handed over."""

    planned: int = 0
    """Deliveries that this process was to queue: `planned = accepted + on_their_way + left`."""
    on_their_way: int = 0
    """Of them, those that wait to be taken by Redis."""
    left: int = 0
    """Of them, those that Redis says another router has, or that stand in their queue already."""
    accepted: int = 0
    delivered: int = 0
    printed: int = 0
    """Shown and not sent, under `deliver`."""
    dead_lettered: Counter[Reason] = field(default_factory=Counter)
    dropped: Counter[Reason] = field(default_factory=Counter)
    suppressed: Counter[Reason] = field(default_factory=Counter)
    handed_over: int = 0
    degraded: int = 0
    """Delivered with the JSON line in place of a text that could not be rendered; counted in `delivered` too."""
    dropped_by_channel: Counter[str] = field(default_factory=Counter)
    """Drops of the first `CHANNELS` channels, the rest under `OTHER`, and so those of very long names."""

    def settle(self, number: int, outcome: Outcome, reason: Reason | None = None) -> None:
        """So many deliveries are over, all in the same way. `reason` goes with all outcomes but delivered, printed, handed over."""
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
        """A delivery becomes so many, all of which are accepted at once."""
        self.planned += parts
        self.accepted += parts

    def drop(self, channels: Iterable[str], reason: Reason) -> None:
        """Deliveries are dropped, one for each of these channels."""
        for channel, number in Counter(channels).items():
            self.dropped[reason] += number
            known = channel in self.dropped_by_channel or (
                len(self.dropped_by_channel) < CHANNELS and len(channel) <= LONGEST_CHANNEL
            )
            self.dropped_by_channel[channel if known else OTHER] += number

    def forget(self, pending: int) -> None:
        """Leave the open deliveries to somebody else from now on, but for this many."""
        change = pending - self.pending
        self.planned += change
        self.accepted += change

    def _counters(self) -> dict[Outcome, Counter[Reason]]:
        return {
            Outcome.DEAD_LETTERED: self.dead_lettered,
            Outcome.DROPPED: self.dropped,
            Outcome.SUPPRESSED: self.suppressed,
        }

    @property
    def pending(self) -> int:
        """Deliveries that are not settled."""
        over = self.delivered + self.printed + self.handed_over
        return self.accepted - over - self.dead_lettered.total() - self.dropped.total() - self.suppressed.total()


@dataclass(frozen=True, slots=True)
class ProcessBook:
    """The deliveries that one process planned, and what became of them between its routes and its queues."""

    planned: int = 0
    accepted: int = 0
    """Queued, or dropped and counted as such."""
    on_their_way: int = 0
    left: int = 0

    @property
    def difference(self) -> int:
        """Deliveries that no column accounts for: 0 unless there is a bug."""
        return self.planned - self.accepted - self.on_their_way - self.left


@dataclass(slots=True)
class Books:
    """The books of one router."""

    sources: dict[str, SourceBook]
    sinks: dict[str, SinkBook]

    @property
    def process(self) -> ProcessBook:
        """Return what this process planned, over all sinks it ever had."""
        books = self.sinks.values()
        return ProcessBook(
            planned=sum(book.planned for book in books),
            accepted=sum(book.accepted for book in books),
            on_their_way=sum(book.on_their_way for book in books),
            left=sum(book.left for book in books),
        )

    def totals(self) -> dict[str, object]:
        """Sums over all sources and sinks, as the closing line gives them."""
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
