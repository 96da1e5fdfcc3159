"""Builds the parts of a router from its configuration and joins them; floor 5."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

import structlog

from router.broker.dead_letters.dead_letter_store import GROUP
from router.broker.dead_letters.dead_letter_writer import Bounds, DeadLetterWriter
from router.broker.dead_letters.replay_sweep import ReplaySweep
from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.lists.list_source import ListSource
from router.broker.pubsub.pubsub_source import PubSubSource
from router.broker.queues.enqueuer import Enqueuer
from router.broker.queues.orphans import Orphans
from router.broker.queues.parts.queue_common import QueueHost
from router.broker.queues.queue_admin import claim_idle_of
from router.broker.queues.redis_queue import RedisQueue
from router.broker.server import client, keys
from router.broker.server.durability import Durability
from router.broker.server.outage import Outage
from router.broker.streams.stream_source import StreamOptions, StreamSource
from router.config.models import (
    BatchConfig,
    DeliverOnly,
    ListConfig,
    PubSubConfig,
    QueueConfig,
    SourceConfig,
    StreamConfig,
)
from router.contracts import Clock, DeadLetters, Queue, QueueLimits, Source, Switchable
from router.core.accounts.books import Books, SinkBook, SourceBook
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.core.matching import is_glob
from router.core.rendering import OptionsTemplate
from router.core.rendering.expressions import Expiry, Expression
from router.engine.calling.calls import Caller
from router.engine.calling.context import Context
from router.engine.calling.threads import DaemonThreads
from router.engine.clock import SystemClock
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.engine.dead_letters.replays import NAME as REPLAYS
from router.engine.dead_letters.replays import Replayer, Replays
from router.engine.delivery.delivery_mode import DeliveryMode, ShownLetters
from router.engine.delivery.memory_queue import MemoryQueue
from router.engine.delivery.ordered_queue import Ordered
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.preparing import Preparing
from router.engine.delivery.worker import SinkWorker
from router.engine.intake.pipeline import Pipeline
from router.engine.intake.switch import Intake, Way
from router.engine.log_limits import LogLimits
from router.errors import ConfigError, text_of
from router.ops.loading import Loaded
from router.ops.logs import redacted
from router.ops.metrics import SinkMeter
from router.plugin_contracts import SinkType

log = structlog.stdlib.get_logger(__name__)

Printer = Callable[[str], None]
"""Prints one line of data for the operator."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a router is told by whoever starts it.

    `redis_url` is never `embedded`. `connect_timeout` is in seconds, None to wait for ever; `waiting` is told why it waits.
    """

    instance: str
    redis_url: str
    connect_timeout: float | None
    printer: Printer
    waiting: Callable[[str], None]
    clock: Clock


class Durable:
    """What all Redis queues of one router share."""

    def __init__(self, loaded: Loaded, around: Runtime, isolation: CrashIsolation) -> None:
        redis = loaded.config.redis
        self.server = client.server(around.redis_url, client_name=_client_name(around))
        self.prefix = redis.key_prefix
        self.consumer = _consumer(around)
        self.clock = around.clock
        told = Outage(around.clock)
        self._host = QueueHost(self.server, self.prefix, self.consumer, around.clock, isolation, told)
        self._notes = LogLimits(log, around.clock)
        self.enqueuer = Enqueuer(
            self.server,
            prefix=self.prefix,
            buffer_bytes=redis.outage_buffer,
            say=self._notes.say,
            outage=told,
        )
        self.durability = Durability(self.server)

    def queue(self, name: str, loaded: Loaded, outcomes: Outcomes) -> RedisQueue:
        """The queue of one sink, not yet started."""
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
        """Return what looks for queues in Redis that none of the `served` sinks works off."""
        return Orphans(self.server, prefix=self.prefix, served=served)


def limits_of(name: str, loaded: Loaded) -> QueueLimits:
    """Return the limits of a sink's queue."""
    host, kind = loaded.config.sinks[name].host, loaded.types[name]
    queue, concurrency = host.queue or QueueConfig(), host.concurrency or kind.concurrency
    batch = _batch(host.batch, kind) if hasattr(kind.sink, "deliver_batch") else 2
    return QueueLimits(
        queue.max_events,
        queue.max_bytes,
        queue.when_full,
        hold=max(batch * concurrency, 10),
        idle=claim_idle_of(host.timeout),
        overriding=loaded.overriding(name),
    )


@dataclass(frozen=True, slots=True)
class Shared:
    """What stays the same as long as the process lives, whatever is reloaded."""

    around: Runtime
    books: Books
    outcomes: dict[str, Outcomes]
    """What ends deliveries, by sink; its books are in `books` too, its meters in `meters`."""
    meters: dict[str, SinkMeter]
    ids: Ids
    way: Way
    letters: DeadLetters
    writer: DeadLetterWriter | None
    """None under `deliver: print`: then nothing is written to Redis."""
    durable: Durable | None
    """What the Redis queues share; None under `deliver: print`."""
    notes: DeadLetterSummaries
    replays: Replays | None
    """What takes the dead letters that are to go again; None under `deliver: print`."""
    isolation: CrashIsolation
    """Of everything whose deliveries may end the process."""

    def outcomes_of(self, name: str) -> Outcomes:
        """Return what ends the deliveries of a sink: the same for all workers and queues that the sink ever has."""
        if name not in self.outcomes:
            self.outcomes[name] = Outcomes(
                name,
                book=self.books.sinks.setdefault(name, SinkBook()),
                meter=self.meters.setdefault(name, SinkMeter()),
                dead_letters=self.letters,
                clock=self.around.clock,
                ids=self.ids,
                hand_over=self.way.hand_over,
                redact=redacted,
            )
        return self.outcomes[name]

    def forget_sink(self, name: str) -> None:
        """Forget what `outcomes_of` made for a sink that never came into force."""
        for known in (self.outcomes, self.books.sinks, self.meters):
            known.pop(name, None)


@dataclass(slots=True)
class Parts:
    """The parts of one router, joined. A reload puts others in their place."""

    loaded: Loaded
    shared: Shared
    sources: dict[str, SourcePart]
    sinks: dict[str, SinkPart]
    leaving_sources: list[Source] = field(default_factory=list)
    """Those that a reload took out and that have something in hand still."""
    leaving_sinks: dict[str, SinkPart] = field(default_factory=dict)
    """Those that a reload took out of the configuration and that have something to do still."""
    retiring: list[SinkPart] = field(default_factory=list)
    """Those that make room for others of their name, or for nobody."""

    def every_source(self) -> list[Source]:
        """Those in force, and those that leave."""
        return [*(part.source for part in self.sources.values()), *self.leaving_sources]

    def every_sink(self) -> dict[str, SinkPart]:
        """Those in force, and those that leave."""
        return {**self.leaving_sinks, **self.sinks}

    def every_part(self) -> list[SinkPart]:
        """The sinks in force, and all whose workers have not ended."""
        return [*self.retiring, *self.sinks.values()]


@dataclass(frozen=True, slots=True)
class SourcePart:
    """One source, and what it hands its batches to."""

    source: Source
    intake: Intake
    switchable: Switchable | None = None
    """The source, where it can take other channels while it reads."""


@dataclass(frozen=True, slots=True)
class SinkPart:
    """One sink of a type: its worker, with the queue, and what the plugin was given to work with."""

    type: str
    worker: SinkWorker
    context: Context


def compose(loaded: Loaded, around: Runtime) -> Parts:
    """Build everything; connect to nothing.

    Raises `ConfigError` for a Redis URL that isn't one, and for a plugin's class that can't be made.
    """
    writer = None if loaded.config.deliver == "print" else _writer(loaded, around)
    ids = Ids(os.urandom(5).hex())
    way = Way()
    notes = kept = DeadLetterSummaries(
        writer or ShownLetters(around.printer),
        way.hand_over,
        clock=around.clock,
        ids=ids,
        notify=loaded.config.dead_letters.notify if writer else None,
        config_file=loaded.path,
    )
    isolation = CrashIsolation()
    replays = _replays(loaded, around, way, kept, isolation) if writer else None
    durable = Durable(loaded, around, isolation) if writer else None
    shared = Shared(around, Books({}, {}), {}, {}, ids, way, kept, writer, durable, notes, replays, isolation)
    sinks = {name: sink_part(name, loaded, shared) for name in loaded.config.sinks}
    sources = {name: source_part(name, loaded, shared) for name in loaded.config.sources}
    way.pipeline = pipeline_of(loaded, shared, sinks)
    for source in sources.values():
        source.intake.open(way.pipeline)
    return Parts(loaded, shared, sources, sinks)


def pipeline_of(loaded: Loaded, shared: Shared, sinks: Mapping[str, SinkPart]) -> Pipeline:
    """The pipeline of a configuration, in front of these sinks."""
    config = loaded.config
    return Pipeline(
        formats=[SourceFormat.of(name, source) for name, source in config.sources.items()],
        routing=loaded.routing(),
        inboxes={name: sink.worker.queue.put for name, sink in sinks.items()},
        dead_letters=shared.letters,
        books=shared.books,
        clock=shared.around.clock,
        ids=shared.ids,
        keep_unmatched=config.unmatched == "dead-letter",
    )


def sink_part(name: str, loaded: Loaded, shared: Shared, queue: Queue | None = None) -> SinkPart:
    """One sink, not yet started; with a `queue` that another worker leaves behind, or else an empty one.

    Raises `ConfigError` when the plugin's class can't be made.
    """
    sink, kind = loaded.config.sinks[name], loaded.types[name]
    queue = queue or _queue(name, loaded, shared)
    concurrency = sink.host.concurrency or kind.concurrency
    clock, outcomes = shared.around.clock, shared.outcomes_of(name)
    threads = DaemonThreads(f"sink {name}", concurrency)
    context = Context(name, clock=clock, base=loaded.write_base, threads=threads, keys=sink.host)
    mode = _mode(name, loaded, context, shared.around)
    worker = SinkWorker(
        keys=sink.host,
        concurrency=concurrency,
        batch=_batch(sink.host.batch, kind),
        caller=_caller(name, loaded, context, threads),
        preparing=Preparing(
            templates_of(name, loaded), expires_of(name, loaded), outcomes=outcomes, mode=mode, clock=clock
        ),
        queue=queue,
        outcomes=outcomes,
        clock=clock,
        chance=random.random,
        line=_ordered(queue, loaded.order_by.get(name), clock),
    )
    return SinkPart(kind.name, worker, context)


def source_part(name: str, loaded: Loaded, shared: Shared) -> SourcePart:
    """One source, not yet started, and its intake, not yet opened."""
    shared.books.sources.setdefault(name, SourceBook())
    config, intake = loaded.config.sources[name], Intake()
    if isinstance(config, StreamConfig):
        return SourcePart(_stream(name, config, loaded, shared, intake), intake)
    if isinstance(config, ListConfig):
        return SourcePart(_list(name, config, loaded, shared, intake), intake)
    pubsub = _pubsub(name, config, shared, intake)
    return SourcePart(pubsub, intake, pubsub)


def runtime(
    *,
    instance: str,
    redis_url: str,
    connect_timeout: float | None,
    printer: Printer,
    waiting: Callable[[str], None],
) -> Runtime:
    """Runtime with the real clock."""
    return Runtime(instance, redis_url, connect_timeout, printer, waiting, SystemClock())


def _client_name(around: Runtime) -> str:
    return f"event-router:{around.instance}"


def dead_letter_bounds(loaded: Loaded) -> Bounds:
    """Return what a configuration lets the dead letters take."""
    letters = loaded.config.dead_letters
    return Bounds(letters.max_events, letters.max_age, loaded.config.redis.outage_buffer)


def _writer(loaded: Loaded, around: Runtime) -> DeadLetterWriter:
    redis = loaded.config.redis
    return DeadLetterWriter(
        around.redis_url,
        clock=around.clock,
        prefix=redis.key_prefix,
        client_name=_client_name(around),
        bounds=dead_letter_bounds(loaded),
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
    )


def _replays(loaded: Loaded, around: Runtime, way: Way, letters: DeadLetters, isolation: CrashIsolation) -> Replays:
    prefix = loaded.config.redis.key_prefix
    server = client.server(around.redis_url, client_name=_client_name(around))
    source = StreamSource(
        REPLAYS,
        server,
        StreamOptions(
            streams=[keys.replay(prefix)],
            group=GROUP,
            consumer=_consumer(around),
            start="oldest",
            marks=keys.handed(prefix),
        ),
        receiver=Replayer(way.now, letters, around.clock),
        clock=around.clock,
        connect_timeout=None,
        isolation=isolation,
    )
    sweep = ReplaySweep(server, prefix=prefix)
    return Replays(source, sweep, around.clock)


def subscriptions_of(config: SourceConfig) -> tuple[list[str], list[str]]:
    """Return the names and the globs that a source subscribes to."""
    assert isinstance(config, PubSubConfig)
    names = [channel for channel in config.channels if not is_glob(channel)]
    return names, [channel for channel in config.channels if is_glob(channel)] + config.patterns


def _pubsub(name: str, config: PubSubConfig, shared: Shared, intake: Intake) -> PubSubSource:
    around = shared.around
    return PubSubSource(
        name,
        config.url or around.redis_url,
        *subscriptions_of(config),
        receiver=intake,
        clock=around.clock,
        client_name=_client_name(around),
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
    )


def _stream(name: str, config: StreamConfig, loaded: Loaded, shared: Shared, intake: Intake) -> StreamSource:
    around = shared.around
    own = config.url in {None, around.redis_url}
    options = StreamOptions(
        streams=config.streams,
        group=config.group,
        consumer=_consumer(around),
        start=config.start,
        payload_field=config.payload_field,
        claim_idle=config.claim.idle,
        max_deliveries=config.max_deliveries,
        max_in_flight=config.max_in_flight,
        observe=loaded.config.deliver == "print",
        marks=keys.handed(loaded.config.redis.key_prefix) if own else None,
    )
    return StreamSource(
        name,
        client.server(config.url or around.redis_url, client_name=_client_name(around)),
        options,
        receiver=intake,
        clock=around.clock,
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
        isolation=shared.isolation,
        book=shared.books.sources.setdefault(name, SourceBook()),
    )


def _list(name: str, config: ListConfig, loaded: Loaded, shared: Shared, intake: Intake) -> ListSource:
    around = shared.around
    return ListSource(
        name,
        config.url or around.redis_url,
        config.keys,
        consumer=_consumer(around),
        receiver=intake,
        clock=around.clock,
        max_in_flight=config.max_in_flight,
        max_deliveries=config.max_deliveries,
        lease=config.lease,
        prefix=loaded.config.redis.key_prefix,
        removable=config.url in {None, around.redis_url},
        client_name=_client_name(around),
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
        observe=loaded.config.deliver == "print",
        isolation=shared.isolation,
    )


def _consumer(around: Runtime) -> str:
    """Our name among those that share work: the same after a restart, another on another machine."""
    return f"{socket.gethostname()}-{around.instance}"


def _caller(name: str, loaded: Loaded, context: Context, threads: DaemonThreads) -> Caller:
    try:
        return Caller(loaded.types[name], loaded.config.sinks[name].options, context, threads)
    except (Exception, SystemExit) as error:
        kind = loaded.types[name]
        why = f"its plugin ({kind.origin}) can't make it: {type(error).__name__}: {text_of(error)}"
        raise ConfigError([loaded.placed(why, "sinks", name)]) from error


def is_durable(name: str, loaded: Loaded, shared: Shared) -> bool:
    """Whether the queue of a sink is in Redis: unless the configuration or the plugin wants it in memory, or nothing is sent."""
    config = loaded.config.sinks[name].host.queue
    kind = (config and config.type) or loaded.types[name].queue
    return kind == "redis" and shared.durable is not None


def _queue(name: str, loaded: Loaded, shared: Shared) -> Queue:
    outcomes = shared.outcomes_of(name)
    if is_durable(name, loaded, shared):
        assert shared.durable is not None
        return shared.durable.queue(name, loaded, outcomes)
    now = shared.around.clock.monotonic
    return MemoryQueue(limits_of(name, loaded), now=now, book=outcomes.book, dropped=outcomes.dropped)


def _ordered(queue: Queue, key: Expression | None, clock: Clock) -> Ordered | None:
    """Return what keeps the deliveries of each key in order, None where nothing has to."""
    if key is None:
        return None
    return Ordered(queue, key=lambda event: key.key(event, clock.now()), now=clock.monotonic)


def templates_of(name: str, loaded: Loaded) -> Mapping[str | None, OptionsTemplate]:
    """The compiled options of a sink by route, and by None for any other route."""
    return {route: template for (owner, route), template in loaded.templates.items() if owner == name}


def expires_of(name: str, loaded: Loaded) -> Mapping[str, Expiry]:
    """When the deliveries of this sink expire, by route: every route may send some by way of a fallback."""
    if any(name in sink.host.fallback for sink in loaded.config.sinks.values()):
        return loaded.expires
    routes = [route.id for route in loaded.config.routes if any(entry.sink == name for entry in route.sinks)]
    return {route: loaded.expires[route] for route in routes if route in loaded.expires}


def _batch(configured: BatchConfig, kind: SinkType) -> int:
    """Events a call: what the configuration says, else what the plugin says, else the default."""
    return configured.max_events if "max_events" in configured.model_fields_set or not kind.batch else kind.batch


def _mode(name: str, loaded: Loaded, context: Context, around: Runtime) -> DeliveryMode | None:
    kind = loaded.types[name]
    deliver = loaded.config.deliver
    if deliver == "send" or kind.local:
        return None
    only = deliver.only if isinstance(deliver, DeliverOnly) else []
    return DeliveryMode(name, kind.name, only, partial(context.run_blocking, around.printer))
