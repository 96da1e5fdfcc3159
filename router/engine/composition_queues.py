"""The composition of the sinks' queues from the configuration; floor 5."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import structlog

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.heartbeat import Heartbeat
from router.broker.queues.enqueuer import Enqueuer
from router.broker.queues.orphans import Orphans
from router.broker.queues.parts.queue_common import GROUP, QueueHost
from router.broker.queues.parts.queue_rounds import QueueRounds
from router.broker.queues.queue_admin import claim_idle_of
from router.broker.server import keys
from router.broker.server.durability import Durability
from router.broker.server.outage import Outage
from router.config.models import (
    BatchConfig,
    QueueConfig,
)
from router.contracts import Clock, Queue, QueueLimits
from router.engine.delivery.delivery_log import about
from router.engine.delivery.outcomes import Outcomes
from router.engine.expression_failures import ExpressionFailures
from router.engine.log_limits import LogLimits
from router.engine.queues.memory_queue import MemoryQueue
from router.engine.queues.ordered_queue import Ordered
from router.engine.runtime import Runtime
from router.errors import TemplateError
from router.events import Event
from router.ops.loading import Loaded
from router.plugin_contracts import SinkType

if TYPE_CHECKING:
    from router.broker.queues.redis_queue import RedisQueue
    from router.core.rendering.expressions import Expression

log = structlog.stdlib.get_logger(__name__)


class Durable:
    """The objects that all Redis queues of one router share: enqueuer, durability watch, outage."""

    def __init__(self, loaded: Loaded, runtime: Runtime, isolation: CrashIsolation) -> None:
        redis = loaded.config.redis
        server, clock, outage = runtime.server(), runtime.clock, Outage(runtime.clock)
        self._host = QueueHost(
            server, redis.key_prefix, runtime.consumer, clock, isolation, QueueRounds(server, GROUP), outage
        )
        say = LogLimits(log, clock).say
        self.enqueuer = Enqueuer(
            server, prefix=redis.key_prefix, buffer_bytes=redis.outage_buffer, say=say, outage=outage
        )
        self.durability = Durability(server)
        self._heartbeat = Heartbeat(server, keys.router(redis.key_prefix, runtime.consumer), runtime.consumer)

    def start(self, *, used: bool) -> None:
        """Start the checks.

        `used` is True if a sink has a queue in Redis. If `used` is False, the durability of the server is not checked.
        """
        self._heartbeat.start()
        if used:
            self.durability.start()

    async def close(self) -> None:
        """Stop the checks."""
        await self._heartbeat.close()
        await self.durability.close()

    def queue(self, name: str, loaded: Loaded, outcomes: Outcomes) -> RedisQueue:
        """Return the queue of one sink, not yet started."""
        from router.broker.queues.redis_queue import RedisQueue  # noqa: PLC0415  # only for queues in Redis

        limits = limits_of(name, loaded)
        queue = RedisQueue(
            name,
            self._host,
            inbox=self.enqueuer.inbox(name, limits, outcomes.book, outcomes.dropped),
            limits=limits,
            give_up=lambda event, reason, detail: outcomes.give_up(queue, event, reason, detail),
            book=outcomes.book,
        )
        return queue

    def orphans(self, served: Callable[[], AbstractSet[str]]) -> Orphans:
        """Return the watch for orphaned queues: queues in Redis whose sink is not in `served`."""
        return Orphans(self._host.server, prefix=self._host.prefix, served=served)


def queue_of(name: str, loaded: Loaded, durable: Durable | None, outcomes: Outcomes, clock: Clock) -> Queue:
    """Return the queue of one sink, not yet started."""
    if durable is not None and is_durable(name, loaded):
        return durable.queue(name, loaded, outcomes)
    limits = limits_of(name, loaded)
    return MemoryQueue(limits, now=clock.monotonic, book=outcomes.book, dropped=outcomes.dropped)


def is_durable(name: str, loaded: Loaded) -> bool:
    """Return whether a sink's queue is in Redis.

    The sink's configuration decides; without a setting there, the plugin decides. With `deliver: print`, no queue is in
    Redis.
    """
    config = loaded.config.sinks[name].host.queue
    kind = (config and config.type) or loaded.types[name].queue
    return kind == "redis" and loaded.config.deliver != "print"


def limits_of(name: str, loaded: Loaded) -> QueueLimits:
    """Return the limits of a sink's queue."""
    host, kind = loaded.config.sinks[name].host, loaded.types[name]
    queue, concurrency = host.queue or QueueConfig(), host.concurrency or kind.concurrency
    batch = batch_of(host.batch, kind) if hasattr(kind.sink, "deliver_batch") else 2
    return QueueLimits(
        queue.max_events,
        queue.max_bytes,
        queue.when_full,
        hold=max(batch * concurrency, 10),
        idle=claim_idle_of(host.timeout),
        overriding=loaded.overriding(name),
    )


def ordered(
    queue: Queue,
    order_by: Expression | None,
    clock: Clock,
    sink: str,
    failures: ExpressionFailures,
    *,
    option_key: Callable[[Event], str | None] | None = None,
) -> Ordered | None:
    """Return the ordered queue for a sink that keeps an order of its deliveries; None for any other sink.

    The order is kept among deliveries with the same key. `order_by` is the expression for the key. If `order_by` is
    None, `option_key` returns the key of a delivery from an option of the sink.
    """
    if order_by is None:
        return None if option_key is None else Ordered(queue, key=option_key, now=clock.monotonic)

    def key(event: Event) -> str | None:
        try:
            return order_by.key(event, clock.now())
        except TemplateError as error:
            failures.add(
                f"sinks.{sink}.order_by", error, "the delivery is attempted without an order", sink=sink, **about(event)
            )
            return None

    return Ordered(queue, key=key, now=clock.monotonic)


def batch_of(configured: BatchConfig, kind: SinkType) -> int:
    """Return the largest number of events per call.

    It comes from the configuration, else from the plugin; without either, it is the default.
    """
    return configured.max_events if "max_events" in configured.model_fields_set or not kind.batch else kind.batch
