"""Builds the parts of a router from its configuration and joins them; floor 5."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from router.broker.dead_letters import DeadLetterWriter
from router.broker.pubsub import PubSubSource
from router.config import BatchConfig, DeliverOnly, QueueConfig
from router.config import PubSubSource as PubSubConfig
from router.contracts import Clock, DeadLetters, Queue, Receiver, SinkType
from router.core.books import Books, SinkBook, SourceBook
from router.core.ids import Ids
from router.core.matching import is_glob
from router.core.routing import Routing, schema_rule
from router.engine.calls import Caller
from router.engine.clock import SystemClock
from router.engine.context import Context
from router.engine.delivery_mode import DeliveryMode, ShownLetters
from router.engine.memory_queue import MemoryQueue
from router.engine.notes import Notes
from router.engine.pipeline import Lane, Pipeline
from router.engine.threads import DaemonThreads
from router.engine.worker import SinkWorker
from router.errors import Reason
from router.events import RawBatch
from router.ops.loading import Loaded

log = structlog.stdlib.get_logger(__name__)

Printer = Callable[[str], None]
"""Prints one line of data for the operator."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a router is told by whoever starts it.

    `redis_url` is never `embedded`. `connect_timeout` is in seconds, None to wait for ever; `waiting` is told why it waits.
    """

    instance: str
    redis_url: str
    connect_timeout: float | None
    printer: Printer
    waiting: Callable[[str], None]
    clock: Clock


class Intake:
    """What the sources hand their batches to: the pipeline of the configuration that is in force."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None

    def receive(self, source: str, batches: Sequence[RawBatch]) -> None:
        """Implements `contracts.Receiver`."""
        assert self.pipeline is not None
        self.pipeline.receive(source, batches)


@dataclass(frozen=True, slots=True)
class Shared:
    """What stays the same as long as the process lives, whatever is reloaded."""

    around: Surroundings
    books: Books
    ids: Ids
    intake: Intake
    letters: DeadLetters
    writer: DeadLetterWriter | None
    """None under `deliver: print`: then nothing is written to Redis."""


@dataclass(slots=True)
class Parts:
    """The parts of one router, joined."""

    loaded: Loaded
    shared: Shared
    sources: dict[str, PubSubSource]
    sinks: dict[str, SinkPart]


@dataclass(frozen=True, slots=True)
class SinkPart:
    """One sink: its worker, with the queue, and what the plugin was given to work with."""

    worker: SinkWorker
    context: Context


def compose(loaded: Loaded, around: Surroundings) -> Parts:
    """Build everything; connect to nothing.

    Raises `ConfigError` for a Redis URL that isn't one, and whatever a plugin's class raises when it is made.
    """
    writer = None if loaded.config.deliver == "print" else _writer(loaded, around)
    letters: DeadLetters = writer or ShownLetters(around.printer)
    shared = Shared(around, Books({}, {}), Ids(os.urandom(5).hex()), Intake(), letters, writer)
    sinks = {name: sink_part(name, loaded, shared) for name in loaded.config.sinks}
    sources = {name: source_part(name, loaded, shared) for name in loaded.config.sources}
    shared.intake.pipeline = pipeline_of(loaded, shared, sinks)
    return Parts(loaded, shared, sources, sinks)


def pipeline_of(loaded: Loaded, shared: Shared, sinks: Mapping[str, SinkPart]) -> Pipeline:
    """The pipeline of a configuration, in front of these sinks."""
    config = loaded.config
    return Pipeline(
        lanes=[Lane(name, source.format, source.max_bytes) for name, source in config.sources.items()],
        routing=_routing(loaded),
        inboxes={name: sink.worker.queue.put for name, sink in sinks.items()},
        dead_letters=shared.letters,
        books=shared.books,
        clock=shared.around.clock,
        ids=shared.ids,
        keep_unmatched=config.unmatched == "dead-letter",
    )


def sink_part(name: str, loaded: Loaded, shared: Shared, queue: Queue | None = None) -> SinkPart:
    """One sink, not yet started; with a `queue` that another worker leaves behind, or else an empty one.

    Raises whatever the plugin's class raises when it is made.
    """
    sink, kind = loaded.config.sinks[name], loaded.types[name]
    book = shared.books.sinks.setdefault(name, SinkBook())
    concurrency = sink.host.concurrency or kind.concurrency
    clock = shared.around.clock
    threads = DaemonThreads(f"sink {name}", concurrency)
    context = Context(name, clock=clock, base=loaded.write_base, proxy=sink.host.http.proxy, threads=threads)
    worker = SinkWorker(
        name,
        keys=sink.host,
        concurrency=concurrency,
        batch=_batch(sink.host.batch, kind),
        caller=Caller(kind, sink.options, context, threads),
        templates={route: template for (owner, route), template in loaded.templates.items() if owner == name},
        mode=_mode(name, loaded, context, shared.around),
        queue=queue or _queue(name, sink.host.queue or QueueConfig(), book, clock),
        book=book,
        dead_letters=shared.letters,
        clock=clock,
        ids=shared.ids,
        chance=random.random,
    )
    return SinkPart(worker, context)


def source_part(name: str, loaded: Loaded, shared: Shared) -> PubSubSource:
    """One source, not yet started."""
    shared.books.sources.setdefault(name, SourceBook())
    return _source(name, loaded.config.sources[name], shared.intake, shared.around)


def surroundings(
    *,
    instance: str,
    redis_url: str,
    connect_timeout: float | None,
    printer: Printer,
    waiting: Callable[[str], None],
) -> Surroundings:
    """Surroundings with the real clock."""
    return Surroundings(instance, redis_url, connect_timeout, printer, waiting, SystemClock())


def _client_name(around: Surroundings) -> str:
    return f"event-router:{around.instance}"


def _writer(loaded: Loaded, around: Surroundings) -> DeadLetterWriter:
    redis = loaded.config.redis
    return DeadLetterWriter(
        around.redis_url,
        clock=around.clock,
        prefix=redis.key_prefix,
        client_name=_client_name(around),
        buffer_bytes=redis.outage_buffer,
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
    )


def _routing(loaded: Loaded) -> Routing:
    config = loaded.config
    schemas = [schema_rule(entry.channels, entry.mode, entry.schema, entry.file) for entry in loaded.schemas]
    unmatched = config.unmatched if isinstance(config.unmatched, list) else []
    return Routing(config.routes, schemas, unmatched)


def _source(name: str, config: PubSubConfig, receiver: Receiver, around: Surroundings) -> PubSubSource:
    return PubSubSource(
        name,
        config.url or around.redis_url,
        [channel for channel in config.channels if not is_glob(channel)],
        [channel for channel in config.channels if is_glob(channel)] + config.patterns,
        receiver=receiver,
        clock=around.clock,
        client_name=_client_name(around),
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
    )


def _queue(name: str, config: QueueConfig, book: SinkBook, clock: Clock) -> MemoryQueue:
    notes = Notes(log.bind(sink=name), clock)

    def full(dropped: int) -> None:
        notes.say("the queue is full: deliveries are dropped", number=dropped, reason=str(Reason.FULL))

    return MemoryQueue(config, now=clock.now, book=book, full=full)


def _batch(configured: BatchConfig, kind: SinkType) -> int:
    """Events a call: what the configuration says, else what the plugin says, else the default."""
    return configured.max_events if "max_events" in configured.model_fields_set or not kind.batch else kind.batch


def _mode(name: str, loaded: Loaded, context: Context, around: Surroundings) -> DeliveryMode | None:
    kind = loaded.types[name]
    deliver = loaded.config.deliver
    if deliver == "send" or kind.local:
        return None
    only = deliver.only if isinstance(deliver, DeliverOnly) else []
    return DeliveryMode(name, kind.name, only, partial(context.run_blocking, around.printer))
