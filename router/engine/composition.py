"""Builds the parts of a router from its configuration and joins them; floor 5."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from router.broker.dead_letters import DeadLetterWriter
from router.broker.pubsub import PubSubSource
from router.config import DeliverOnly, QueueConfig
from router.config import PubSubSource as PubSubConfig
from router.contracts import Clock, DeadLetters, SinkType
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


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one router, joined."""

    books: Books
    sources: Mapping[str, PubSubSource]
    workers: Mapping[str, SinkWorker]
    contexts: Mapping[str, Context]
    writer: DeadLetterWriter | None
    """None under `deliver: print`: then nothing is written to Redis."""


def compose(loaded: Loaded, around: Surroundings) -> Parts:
    """Build everything; connect to nothing.

    Raises `ConfigError` for a Redis URL that isn't one, and whatever a plugin's class raises when it is made.
    """
    config = loaded.config
    writer = None if config.deliver == "print" else _writer(loaded, around)
    letters: DeadLetters = writer or ShownLetters(around.printer)
    books = Books({name: SourceBook() for name in config.sources}, {name: SinkBook() for name in config.sinks})
    ids = Ids(os.urandom(5).hex())
    contexts: dict[str, Context] = {}
    workers: dict[str, SinkWorker] = {}
    for name in config.sinks:
        context, threads = _context(name, loaded, around)
        contexts[name] = context
        workers[name] = _worker(
            name,
            loaded,
            context,
            threads,
            mode=_mode(name, loaded, context, around),
            book=books.sinks[name],
            letters=letters,
            ids=ids,
        )
    pipeline = Pipeline(
        lanes=[Lane(name, source.format, source.max_bytes) for name, source in config.sources.items()],
        routing=_routing(loaded),
        inboxes={name: worker.queue.put for name, worker in workers.items()},
        dead_letters=letters,
        books=books,
        clock=around.clock,
        ids=ids,
        keep_unmatched=config.unmatched == "dead-letter",
    )
    sources = {name: _source(name, source, pipeline, around) for name, source in config.sources.items()}
    return Parts(books, sources, workers, contexts, writer)


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


def _source(name: str, config: PubSubConfig, pipeline: Pipeline, around: Surroundings) -> PubSubSource:
    return PubSubSource(
        name,
        config.url or around.redis_url,
        [channel for channel in config.channels if not is_glob(channel)],
        [channel for channel in config.channels if is_glob(channel)] + config.patterns,
        receiver=pipeline,
        clock=around.clock,
        client_name=_client_name(around),
        connect_timeout=around.connect_timeout,
        waiting=around.waiting,
    )


def _concurrency(name: str, loaded: Loaded) -> int:
    return loaded.config.sinks[name].host.concurrency or loaded.types[name].concurrency


def _context(name: str, loaded: Loaded, around: Surroundings) -> tuple[Context, DaemonThreads]:
    threads = DaemonThreads(f"sink {name}", _concurrency(name, loaded))
    proxy = loaded.config.sinks[name].host.http.proxy
    return Context(name, clock=around.clock, base=loaded.write_base, proxy=proxy, threads=threads), threads


def _worker(
    name: str,
    loaded: Loaded,
    context: Context,
    threads: DaemonThreads,
    *,
    mode: DeliveryMode | None,
    book: SinkBook,
    letters: DeadLetters,
    ids: Ids,
) -> SinkWorker:
    sink = loaded.config.sinks[name]
    kind = loaded.types[name]
    return SinkWorker(
        name,
        keys=sink.host,
        concurrency=_concurrency(name, loaded),
        batch=_batch(loaded, name, kind),
        caller=Caller(kind, sink.options, context, threads),
        templates={route: template for (owner, route), template in loaded.templates.items() if owner == name},
        mode=mode,
        queue=_queue(name, sink.host.queue or QueueConfig(), book, context.clock),
        book=book,
        dead_letters=letters,
        clock=context.clock,
        ids=ids,
        chance=random.random,
    )


def _queue(name: str, config: QueueConfig, book: SinkBook, clock: Clock) -> MemoryQueue:
    notes = Notes(log.bind(sink=name), clock)

    def full(dropped: int) -> None:
        notes.say("the queue is full: deliveries are dropped", number=dropped, reason=str(Reason.FULL))

    return MemoryQueue(config, now=clock.now, book=book, full=full)


def _batch(loaded: Loaded, name: str, kind: SinkType) -> int:
    """Events a call: what the configuration says, else what the plugin says, else the default."""
    configured = loaded.config.sinks[name].host.batch
    return configured.max_events if "max_events" in configured.model_fields_set or not kind.batch else kind.batch


def _mode(name: str, loaded: Loaded, context: Context, around: Surroundings) -> DeliveryMode | None:
    kind = loaded.types[name]
    deliver = loaded.config.deliver
    if deliver == "send" or kind.local:
        return None
    only = deliver.only if isinstance(deliver, DeliverOnly) else []
    return DeliveryMode(name, kind.name, only, partial(context.run_blocking, around.printer))
