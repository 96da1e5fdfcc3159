"""A running router at one moment, and whether its books balance; pure.

Everything the admin side shows is read off a `Snapshot`: who takes one touches the router's parts, who judges one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from router.core.accounts.books import ProcessBook

Phase = Literal["starting", "running", "draining"]
Counts = Mapping[str, int]
"""Numbers by reason, by channel, or by sink."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The state of a source: whether it is heard, and what became of its events."""

    type: str
    up: bool
    reason: str | None
    """Why it is not up."""
    address: str
    """Its server, without credentials."""
    gaps: int
    """How often it was deaf after it had been up."""
    gap_seconds: float
    duplicates: int
    """Copies of one event that came by several subscriptions; not counted as received."""
    trimmed: int
    """Entries of streams that were trimmed or deleted and so never reached this router."""
    trimmed_exact: bool
    """Whether those are all; else they are at least so many."""
    possibly_repeated: int
    """Entries that were delivered though another router may have had them too."""
    received: int
    rejected: Counts
    unmatched: int
    routed: int

    @property
    def difference(self) -> int:
        """Events received that no column accounts for: 0 unless there is a bug."""
        return self.received - sum(self.rejected.values()) - self.unmatched - self.routed


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a sink does not deliver, and since when (seconds since the epoch)."""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """The state of a sink: what it has to do, and what became of its deliveries.

    `pending` is what the queue itself holds, and includes what is `delayed` (waits for its next attempt) and `in_hand`.
    `waiting` is on its way into a queue in Redis: no book knows it yet.
    """

    type: str
    queue: str
    fault: Fault | None
    breaker_open: bool
    """Whether the sink is left alone for a while, because it fails."""
    pending: int
    delayed: int
    in_hand: int
    waiting: int
    accepted: int
    delivered: int
    dead_lettered: Counts
    dropped: Counts
    suppressed: Counts
    handed_over: int
    degraded: int
    """Of the delivered, those that carried the JSON line in place of a text that could not be rendered."""
    dropped_by_channel: Counts
    unreadable: int = 0
    """Entries of the queue in Redis that this router has in hand and can't read: they stay pending."""
    replaced: int = 0
    """Workers that ended by a fault of the router and were replaced."""
    printed: int = 0
    """Shown and not sent, under `deliver`."""

    @property
    def difference(self) -> int:
        """Deliveries accepted that no column accounts for: 0 unless there is a bug."""
        reasons = (*self.dead_lettered.values(), *self.dropped.values(), *self.suppressed.values())
        return self.accepted - self.delivered - self.printed - self.handed_over - sum(reasons) - self.pending


@dataclass(frozen=True, slots=True)
class RedisStatus:
    """The router's own Redis: its address without credentials, and why it can't be used."""

    address: str
    up: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """When a configuration was last loaded with success (seconds since the epoch), and why the last try failed."""

    succeeded_at: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A running router at one moment. `uptime` is in seconds."""

    version: str
    instance: str
    pid: int
    uptime: float
    phase: Phase
    redis: RedisStatus | None
    """None where the router uses none of its own: `deliver: print` writes nothing."""
    config: LoadStatus
    sources: Mapping[str, SourceStatus]
    sinks: Mapping[str, SinkStatus]
    process: ProcessBook = field(default_factory=ProcessBook)
    notices: tuple[str, ...] = field(default=())
    """What an operator should know beside the state of sources and sinks."""
    orphaned: Counts = field(default_factory=dict)
    """How many deliveries wait in Redis queues that no sink works off, by the names of their sinks."""
    expression_failures: Counts = field(default_factory=dict)
    """How often an expression could not be evaluated, by its path in the configuration, where that costs no delivery."""
    file: str = ""
    """The configuration that the router was started with."""
    env_file: str | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the router is not ready; none when it is."""
        found = [] if self.phase == "running" else [f"the router is {self.phase}"]
        if self.redis is not None and not self.redis.up:
            found.append(f"redis: {self.redis.reason or 'can not be reached'}")
        found += [
            f"source {name}: {source.reason or 'not subscribed'}"
            for name, source in self.sources.items()
            if not source.up
        ]
        return tuple(found)

    @property
    def ready(self) -> bool:
        """Return whether every source is heard and Redis can be reached."""
        return not self.reasons

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is not well though the router is ready."""
        faults = [f"sink {name}: {sink.fault.why}" for name, sink in self.sinks.items() if sink.fault is not None]
        failed = [f"the configuration on disk was not taken: {self.config.error}"] if self.config.error else []
        stuck = [
            f"sink {name}: {sink.unreadable} of its queue can't be read and stay there: event-router queue list"
            for name, sink in self.sinks.items()
            if sink.unreadable
        ]
        ended = [
            f"sink {name}: {sink.replaced} of its workers ended by a fault of the router and were replaced; its log says more"
            for name, sink in self.sinks.items()
            if sink.replaced
        ]
        return (
            *faults,
            *stuck,
            *ended,
            *failed,
            *self.notices,
            *(f"the books do not balance: {line}" for line in self.differences),
        )

    @property
    def differences(self) -> tuple[str, ...]:
        """Which books do not balance, and by how much."""
        parts = {
            **{f"source {name}": source.difference for name, source in self.sources.items()},
            **{f"sink {name}": sink.difference for name, sink in self.sinks.items()},
            "process": self.process.difference,
        }
        return tuple(f"{name} by {number}" for name, number in parts.items() if number)

    @property
    def balanced(self) -> bool:
        """Return whether every event and every delivery is accounted for."""
        return not self.differences


class View(Protocol):
    """The watcher of a running router."""

    def snapshot(self) -> Snapshot:
        """The router now; never waits."""

    async def refresh(self) -> None:
        """Fetch what the next snapshot should say of other processes' work, for a second at most; never raises."""


def document(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as plain values, as `status --json` prints it."""
    redis, config = snapshot.redis, snapshot.config
    return {
        "version": snapshot.version,
        "instance": snapshot.instance,
        "pid": snapshot.pid,
        "uptime": round(snapshot.uptime, 3),
        "phase": snapshot.phase,
        "ready": snapshot.ready,
        "reasons": list(snapshot.reasons),
        "warnings": list(snapshot.warnings),
        "balanced": snapshot.balanced,
        "redis": redis and asdict(redis),
        "config": {
            "file": snapshot.file,
            "env_file": snapshot.env_file,
            "loaded_at": config.succeeded_at,
            "error": config.error,
        },
        "orphaned": dict(snapshot.orphaned),
        "expression_failures": dict(snapshot.expression_failures),
        "sources": {name: _source(source) for name, source in snapshot.sources.items()},
        "sinks": {name: _sink(sink) for name, sink in snapshot.sinks.items()},
        "books": {
            "sources": {name: _source_book(source) for name, source in snapshot.sources.items()},
            "sinks": {name: _sink_book(sink) for name, sink in snapshot.sinks.items()},
            "process": asdict(snapshot.process),
        },
    }


def _source(source: SourceStatus) -> dict[str, Any]:
    return {
        "type": source.type,
        "up": source.up,
        "reason": source.reason,
        "address": source.address,
        "gaps": source.gaps,
        "gap_seconds": round(source.gap_seconds, 3),
        "duplicates": source.duplicates,
        "trimmed": source.trimmed,
        "trimmed_exact": source.trimmed_exact,
        "possibly_repeated": source.possibly_repeated,
    }


def _source_book(source: SourceStatus) -> dict[str, Any]:
    return {
        "received": source.received,
        "rejected": sum(source.rejected.values()),
        "unmatched": source.unmatched,
        "routed": source.routed,
        "by_reason": {"rejected": dict(source.rejected)},
        "balanced": not source.difference,
    }


def _sink(sink: SinkStatus) -> dict[str, Any]:
    return {
        "type": sink.type,
        "queue": sink.queue,
        "delayed": sink.delayed,
        "in_hand": sink.in_hand,
        "waiting": sink.waiting,
        "breaker_open": sink.breaker_open,
        "fault": sink.fault and asdict(sink.fault),
        "dropped_by_channel": dict(sink.dropped_by_channel),
        "unreadable": sink.unreadable,
        "replaced": sink.replaced,
    }


def _sink_book(sink: SinkStatus) -> dict[str, Any]:
    by_reason = {"dead_lettered": sink.dead_lettered, "dropped": sink.dropped, "suppressed": sink.suppressed}
    return {
        "accepted": sink.accepted,
        "delivered": sink.delivered,
        "printed": sink.printed,
        **{outcome: sum(counts.values()) for outcome, counts in by_reason.items()},
        "handed_over": sink.handed_over,
        "pending": sink.pending,
        "degraded": sink.degraded,
        "by_reason": {outcome: dict(counts) for outcome, counts in by_reason.items()},
        "balanced": not sink.difference,
    }
