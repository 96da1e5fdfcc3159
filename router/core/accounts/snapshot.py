"""The snapshot of a running router, with readiness, warnings and the balance of its books; pure.

The admin side shows only values of a `Snapshot`. `engine.life.watch` makes snapshots. This module derives readiness and
warnings from a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec
from msgspec.structs import asdict

from router.core.accounts.books import ProcessBook
from router.wording import counted

Phase = Literal["starting", "running", "draining"]
Counts = Mapping[str, int]
"""Numbers by reason, channel, sink or route."""


class SourceStatus(msgspec.Struct, frozen=True):
    """The state of a source: whether it receives events, and the number of events by outcome."""

    type: str
    up: bool
    reason: str | None
    """The reason why the source is not up; None while it is up."""
    address: str
    """The address of the source's server, without credentials."""
    gaps: int
    """The number of times that the subscription was lost."""
    gap_seconds: float
    """The total length of all gaps, in seconds."""
    duplicates: int
    """Copies of events that arrived by several subscriptions. They are not counted as received."""
    trimmed: int
    """Stream entries that were trimmed or deleted before this router had completed them."""
    trimmed_exact: bool
    """True if `trimmed` is exact; else it is a lower bound."""
    possibly_repeated: int
    """Entries completed by this router that another router may have delivered too."""
    schema_warnings: int
    """Events that failed a schema of mode `warn`. They are also counted as routed or unmatched."""
    received: int
    rejected: Counts
    unmatched: int
    routed: int
    read_ahead_bytes: int = 0
    """Bytes that were read from the server and are not processed yet; 0 except for pub/sub."""
    read_ahead_peak: int = 0
    """The largest value of `read_ahead_bytes` so far."""
    read_ahead_lost: int = 0
    """Events that were read ahead but not processed before the source was stopped."""

    @property
    def difference(self) -> int:
        """The number of received events that no other field counts. Any number but 0 means a bug in the router."""
        return self.received - sum(self.rejected.values()) - self.unmatched - self.routed


class Fault(msgspec.Struct, frozen=True):
    """The reason why a sink does not deliver, and the time at which it began to fail (seconds since the epoch)."""

    since: float
    why: str


class Failure(msgspec.Struct, frozen=True):
    """The time (seconds since the epoch) and the cause of a failed attempt that is followed by a retry."""

    at: float
    why: str


class SinkStatus(msgspec.Struct, frozen=True):
    """The state of a sink: its backlog, and the number of deliveries by outcome.

    `pending` is the number of deliveries in the queue. `delayed` is the number of pending deliveries that wait for a
    retry, and `in_hand` the number in flight. `waiting` is the number of deliveries that are on their way to a Redis
    queue. They are not part of `pending` and `accepted` yet.
    """

    type: str
    queue: str
    fault: Fault | None
    breaker_open: bool
    """True while the circuit breaker holds deliveries back, because the sink fails."""
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
    """Deliveries with a text that could not be rendered. The event as one line of JSON was sent in place of this
    text.
    """
    dropped_by_channel: Counts
    unreadable: int = 0
    """Entries of the Redis queue that this router can't read; they stay pending."""
    replaced: int = 0
    """Workers that ended because of a fault of the router, and were replaced."""
    printed: int = 0
    """Deliveries that were shown instead of sent, because of the option `deliver`."""
    next_attempt: float | None = None
    """The time of the next planned attempt, in seconds since the epoch; None if no attempt is planned. It is the time
    of the breaker's probe or the end of a pause, or else the time of the next retry.
    """
    last_failure: Failure | None = None
    """The last failure in this process that is followed by a retry."""
    max_events: int = 0
    """The limit for the number of deliveries in the queue; 0 if not known."""
    when_full: str = "block"
    """The action for a new delivery when the queue is full: `block`, `drop-newest` or `drop-oldest`."""

    @property
    def difference(self) -> int:
        """The number of accepted deliveries that no other field counts. Any number but 0 means a bug in the router."""
        reasons = (*self.dead_lettered.values(), *self.dropped.values(), *self.suppressed.values())
        return self.accepted - self.delivered - self.printed - self.handed_over - sum(reasons) - self.pending


class LookupStatus(msgspec.Struct, frozen=True):
    """The state of a lookup: whether its store can be reached, and counts of its requests.

    The counts begin at the start of the router or at the last change of the lookup. `hits` counts the keys that were in
    the cache, `misses` the keys that were not. `fetches` counts the calls of the store, `errors` the keys that could
    not be fetched. `size` is the number of records in memory.
    """

    type: str
    fault: Fault | None
    hits: int
    misses: int
    fetches: int
    errors: int
    size: int


class RedisStatus(msgspec.Struct, frozen=True):
    """The router's own Redis: its address without credentials, and the reason if this Redis can't be used."""

    address: str
    up: bool
    reason: str | None


class LoadStatus(msgspec.Struct, frozen=True):
    """The time of the last successful load of a configuration (seconds since the epoch), and the error of a later load
    that failed.
    """

    succeeded_at: float
    error: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A running router at one moment. `uptime` is in seconds."""

    version: str
    instance: str
    pid: int
    uptime: float
    phase: Phase
    redis: RedisStatus | None
    """The router's own Redis. None with `deliver: print`, because the router then writes nothing to Redis."""
    config: LoadStatus
    sources: Mapping[str, SourceStatus]
    sinks: Mapping[str, SinkStatus]
    lookups: Mapping[str, LookupStatus] = msgspec.field(default_factory=dict)
    routes: Counts = msgspec.field(default_factory=dict)
    """The number of events that each enabled route took, in the order of the routes."""
    process: ProcessBook = msgspec.field(default_factory=ProcessBook)
    notices: tuple[str, ...] = msgspec.field(default=())
    """Further warnings for the operator."""
    orphaned: Counts = msgspec.field(default_factory=dict)
    """The number of deliveries in orphaned Redis queues, by the name of the missing sink."""
    expression_failures: Counts = msgspec.field(default_factory=dict)
    """The number of failed evaluations, by the path of the expression in the configuration. An expression is left out
    if its failure causes a dead letter.
    """
    file: str = ""
    """The configuration file that the router was started with."""
    env_file: str | None = None
    redis_url: str = ""
    """The address of the router's own Redis, without credentials."""
    redis_from: str = ""
    """The origin of `redis_url`: `$NAME` of a variable, `redis.url`, or `embedded`."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons why the router is not ready; empty if it is ready."""
        found = [] if self.phase == "running" else [f"the router is {self.phase}"]
        if self.redis is not None and not self.redis.up:
            reason = self.redis.reason or "can't be reached"
            found.append(f"redis: {reason}")
        found += [
            f"source {name}: {source.reason or 'not subscribed'}"
            for name, source in self.sources.items()
            if not source.up
        ]
        return tuple(found)

    @property
    def ready(self) -> bool:
        """True if the router is running, every source is up and Redis can be reached."""
        return not self.reasons

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems that do not affect readiness."""
        faults = [f"sink {name}: {sink.fault.why}" for name, sink in self.sinks.items() if sink.fault is not None]
        failed = [f"the configuration on disk was refused: {self.config.error}"] if self.config.error else []
        stuck = [
            f"sink {name}: {counted(sink.unreadable, 'entry', 'entries')} in its queue can't be read; "
            "unreadable entries stay in the queue (see `event-router queue list`)"
            for name, sink in self.sinks.items()
            if sink.unreadable
        ]
        ended = [
            f"sink {name}: {counted(sink.replaced, 'worker')} ended because of a fault of the router; "
            "replacements are running, and the router's log has the details"
            for name, sink in self.sinks.items()
            if sink.replaced
        ]
        away = [f"lookup {name}: {lookup.fault.why}" for name, lookup in self.lookups.items() if lookup.fault]
        return (
            *faults,
            *away,
            *stuck,
            *ended,
            *failed,
            *self.notices,
            *(f"the books do not balance: {line}" for line in self.differences),
        )

    @property
    def differences(self) -> tuple[str, ...]:
        """The books that do not balance, each with its difference."""
        parts = {
            **{f"source {name}": source.difference for name, source in self.sources.items()},
            **{f"sink {name}": sink.difference for name, sink in self.sinks.items()},
            "process": self.process.difference,
        }
        return tuple(f"{name} (difference {number})" for name, number in parts.items() if number)

    @property
    def balanced(self) -> bool:
        """True if every event and every delivery is counted exactly once."""
        return not self.differences


class View(Protocol):
    """The maker of snapshots of a running router."""

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the router now. Never waits."""

    async def refresh(self) -> None:
        """Read the counts that Redis shares between routers, for the next snapshot.

        Takes at most 1 second, and never raises.
        """


def document(snapshot: Snapshot) -> dict[str, Any]:
    """Return the snapshot as plain values, as `status --json` prints it."""
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
            "redis": snapshot.redis_url,
            "redis_from": snapshot.redis_from,
            "loaded_at": config.succeeded_at,
            "error": config.error,
        },
        "orphaned": dict(snapshot.orphaned),
        "expression_failures": dict(snapshot.expression_failures),
        "sources": {name: _source(source) for name, source in snapshot.sources.items()},
        "sinks": {name: _sink(sink) for name, sink in snapshot.sinks.items()},
        "lookups": {name: _lookup(lookup) for name, lookup in snapshot.lookups.items()},
        "routes": {name: {"events": events} for name, events in snapshot.routes.items()},
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
        "read_ahead_bytes": source.read_ahead_bytes,
        "read_ahead_peak_bytes": source.read_ahead_peak,
        "read_ahead_lost": source.read_ahead_lost,
        "duplicates": source.duplicates,
        "trimmed": source.trimmed,
        "trimmed_exact": source.trimmed_exact,
        "possibly_repeated": source.possibly_repeated,
        "schema_warnings": source.schema_warnings,
    }


def _lookup(lookup: LookupStatus) -> dict[str, Any]:
    return {
        "type": lookup.type,
        "up": lookup.fault is None,
        "fault": lookup.fault and asdict(lookup.fault),
        "hits": lookup.hits,
        "misses": lookup.misses,
        "fetches": lookup.fetches,
        "errors": lookup.errors,
        "size": lookup.size,
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
        "next_attempt": sink.next_attempt,
        "last_failure": sink.last_failure and asdict(sink.last_failure),
        "max_events": sink.max_events,
        "when_full": sink.when_full,
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
