"""The view of a running router for the admin side: snapshots, metrics and reloads; floor 5."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from router.broker.server.durability import Durability
from router.broker.server.server_check import ServerCheck
from router.config.redis_url import shown
from router.core.accounts.durability_risks import has_events_from_elsewhere
from router.core.accounts.snapshot import (
    Phase,
    RedisStatus,
    SinkStatus,
    Snapshot,
    SourceStatus,
)
from router.engine.delivery import delivery_mode
from router.engine.parts import Parts, SinkPart
from router.engine.reload.reload_requests import ReloadRequests
from router.errors import Reason, RouterError
from router.ops.metrics import Measured
from router.version import __version__

REFRESH = 1.0
"""Seconds allowed for the Redis queues to read their shared books for a snapshot."""


class Admin(Protocol):
    """The admin side of a router, which responds to HTTP requests.

    It is implemented on a higher floor, so `serve` gets it as an argument.
    """

    async def start(self) -> None:
        """Start to accept requests. Raises `ConfigError` if the start fails."""

    async def close(self) -> None:
        """Stop accepting requests."""


class Watch:
    """The view of a router's parts. Implements `core.accounts.snapshot.View`. `App` sets `phase` and `hanging`."""

    def __init__(self, parts: Parts, reloads: ReloadRequests) -> None:
        self._parts = parts
        self._reloads = reloads
        self._clock = parts.shared.runtime.clock
        self._began = self._clock.monotonic()
        runtime = parts.shared.runtime
        self._server_check = (
            ServerCheck(runtime.redis_url, client_name=runtime.client_name) if parts.shared.writer else None
        )
        durable = parts.shared.durable
        self.orphans = durable.orphans(self._served) if durable else None
        """The watch for orphaned queues; None with `deliver: print`, which uses no Redis queues."""
        self.phase: Phase = "starting"
        self.hanging: Callable[[], tuple[str, ...]] = tuple
        """A function that returns a warning for each component that hangs."""

    def start(self) -> None:
        """Start the checks of the server and of orphaned queues."""
        if self._server_check is not None:
            self._server_check.start()
        if self.orphans is not None:
            self.orphans.start()

    async def close(self) -> None:
        """Stop the checks."""
        if self._server_check is not None:
            await self._server_check.close()
        if self.orphans is not None:
            await self.orphans.close()

    @property
    def measured(self) -> Measured:
        """The numbers for a scrape of the metrics."""
        shared = self._parts.shared
        return Measured(shared.books, shared.meters, self.snapshot)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the router at this moment."""
        parts = self._parts
        url = parts.loaded.config.redis.url
        return Snapshot(
            version=__version__,
            instance=parts.shared.runtime.instance,
            pid=os.getpid(),
            uptime=self._clock.monotonic() - self._began,
            phase=self.phase,
            redis=self._redis(),
            config=self._reloads.last,
            sources={name: self._source(name) for name in parts.sources},
            sinks={name: self._sink(sink) for name, sink in parts.every_sink().items()},
            lookups={name: lookup.status for name, lookup in parts.lookups.lookups.items()},
            routes={name: book.events for name, book in parts.shared.books.routes.items()},
            process=parts.shared.books.process,
            notices=self._notices(),
            orphaned=self.orphans.waiting if self.orphans else {},
            expression_failures=dict(sorted(parts.shared.failures.counts.items())),
            file=str(parts.loaded.path),
            env_file=None if parts.loaded.env_file is None else str(parts.loaded.env_file),
            redis_url=shown(url) if "://" in url else url,
            redis_from=str(parts.loaded.redis_origin),
        )

    async def reload(self, why: str) -> Mapping[str, Any]:
        """Reload the configuration; return the result as plain values."""
        result = await self._reloads.reload(why)
        if result.ok and self.orphans is not None:
            # If Redis does not reply, the queues report the failure, and `waiting` in the result has the numbers of the
            # last scan.
            with contextlib.suppress(RouterError, TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await self.orphans.look()
        return {
            "ok": result.ok,
            "changed": result.changed,
            "unavailable": result.unavailable,
            "problems": [msgspec.to_builtins(problem) for problem in result.problems],
            "waiting": dict(self.orphans.waiting) if self.orphans else {},
        }

    async def refresh(self) -> None:
        """Make the Redis queues read their shared books, for at most `REFRESH` seconds.

        A queue that takes longer keeps its last values.
        """
        asked = [asyncio.create_task(sink.worker.queue.refresh()) for sink in self._parts.every_sink().values()]
        if self.orphans is not None:
            asked.append(asyncio.create_task(self.orphans.refresh()))
        if not asked:
            return
        done, late = await asyncio.wait(asked, timeout=REFRESH)
        for task in late:
            task.cancel()
        for task in done:
            task.exception()  # marks the exception as retrieved; the queue reports its own failures and retries

    def _served(self) -> frozenset[str]:
        """Return the names of the sinks with queues in Redis."""
        parts = self._parts.sinks.items()
        return frozenset(name for name, sink in parts if sink.worker.queue.durable)

    def _notices(self) -> tuple[str, ...]:
        durable = self._parts.shared.durable
        return (
            *delivery_mode.warnings(self._parts.loaded.config.deliver),
            *self.hanging(),
            *(self._endangered(durable.durability) if durable else ()),
            *(self.orphans.warnings if self.orphans else ()),
        )

    def _endangered(self, durability: Durability) -> tuple[str, ...]:
        config = self._parts.loaded.config
        matters = has_events_from_elsewhere(config.sources.values(), config.redis.url)
        return (*durability.warnings, *(durability.power_cut if matters else ()))

    def _redis(self) -> RedisStatus | None:
        server_check, writer = self._server_check, self._parts.shared.writer
        if server_check is None or writer is None:
            return None
        blocked = [sink.worker.queue.reason for sink in self._parts.sinks.values()]
        reason = next(filter(None, (server_check.reason, writer.reason, *blocked)), None)
        return RedisStatus(server_check.address, reason is None, reason)

    def _source(self, name: str) -> SourceStatus:
        """Return the state of one source for the snapshot."""
        source, book = self._parts.sources[name].source, self._parts.shared.books.sources[name]
        return SourceStatus(
            type=self._parts.loaded.config.sources[name].type,
            up=source.up,
            reason=source.reason,
            address=source.address,
            gaps=source.gaps,
            gap_seconds=source.gap_seconds,
            read_ahead_bytes=source.read_ahead.size,
            read_ahead_peak=source.read_ahead.peak,
            read_ahead_lost=source.read_ahead.lost,
            duplicates=source.duplicates,
            trimmed=source.trimmed,
            trimmed_exact=source.trimmed_exact,
            possibly_repeated=source.possibly_repeated,
            schema_warnings=book.schema_warnings,
            received=book.received,
            rejected=_by_reason(book.rejected),
            unmatched=book.unmatched,
            routed=book.routed,
        )

    def _sink(self, sink: SinkPart) -> SinkStatus:
        """Return the state of one sink for the snapshot."""
        worker = sink.worker
        queue, book = worker.queue, worker.queue.shared_book
        next_in = worker.next_attempt_in()
        return SinkStatus(
            type=sink.type,
            queue="redis" if queue.durable else "memory",
            fault=worker.fault,
            breaker_open=worker.breaker_open,
            pending=queue.held,
            delayed=queue.delayed,
            in_hand=worker.in_flight,
            waiting=max(queue.events - queue.held, 0),
            accepted=book.accepted,
            delivered=book.delivered,
            printed=book.printed,
            dead_lettered=_by_reason(book.dead_lettered),
            dropped=_by_reason(book.dropped),
            suppressed=_by_reason(book.suppressed),
            handed_over=book.handed_over,
            degraded=worker.book.degraded,
            dropped_by_channel=dict(worker.book.dropped_by_channel),
            unreadable=queue.unreadable,
            replaced=worker.replaced,
            next_attempt=None if next_in is None else self._clock.now() + next_in,
            last_failure=worker.last_failure,
            max_events=queue.limits.max_events,
            when_full=queue.limits.when_full,
        )


def _by_reason(counter: Mapping[Reason, int]) -> dict[str, int]:
    return {str(reason): number for reason, number in sorted(counter.items()) if number}
