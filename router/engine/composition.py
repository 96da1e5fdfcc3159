"""The composition root: builds the parts of a router from its configuration and connects them; floor 5."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from router.broker.dead_letters.dead_letter_writer import Bounds, DeadLetterWriter
from router.broker.groups.crash_isolation import CrashIsolation
from router.config.models import DeliverOnly
from router.contracts import Clock, Queue
from router.core.accounts.books import Books
from router.core.decoding import SourceFormat
from router.core.ids import Ids
from router.core.rendering import OptionsTemplate
from router.engine.calling import accidents
from router.engine.calling.calls import Caller, SinkCalls
from router.engine.calling.context import Context, FindServer
from router.engine.calling.threads import DaemonThreads
from router.engine.composition_lookups import lookups_of
from router.engine.composition_queues import Durable, batch_of, ordered, queue_of
from router.engine.composition_sources import replays_of, source_part
from router.engine.dead_letters.dead_letter_summaries import DeadLetterSummaries
from router.engine.delivery.delivery_mode import DeliveryMode, ShownLetters
from router.engine.delivery.preparing import Preparing
from router.engine.delivery.worker import SinkWorker
from router.engine.intake.pipeline import Pipeline
from router.engine.intake.switch import CurrentPipeline
from router.engine.lookups.lookup_set import LookupSet
from router.engine.parts import Parts, Shared, SinkPart
from router.engine.runtime import Runtime
from router.errors import ConfigError
from router.ops.loading import Loaded
from router.ops.logs import redacted

if TYPE_CHECKING:
    from router.core.rendering.expressions import Expiry, Expression


def compose(loaded: Loaded, runtime: Runtime) -> Parts:
    """Build all parts of a router, without opening a connection.

    Raises `ConfigError` for an invalid Redis URL, and if the `__init__` of a plugin's class raises an exception.
    """
    writer = None if loaded.config.deliver == "print" else _writer(loaded, runtime)
    ids = Ids(os.urandom(5).hex())
    current = CurrentPipeline()
    letters = DeadLetterSummaries(
        writer or ShownLetters(runtime.printer),
        current.hand_over,
        clock=runtime.clock,
        ids=ids,
        notify=loaded.config.dead_letters.notify if writer else None,
        config_file=loaded.path,
    )
    isolation = CrashIsolation()
    replays = replays_of(loaded, runtime, current, letters, isolation) if writer else None
    durable = Durable(loaded, runtime, isolation) if writer else None
    shared = Shared(runtime, Books({}, {}), {}, {}, ids, current, letters, writer, durable, replays, isolation)
    lookups = lookups_of(loaded, runtime)
    sinks = {name: sink_part(name, loaded, shared, lookups) for name in loaded.config.sinks}
    sources = {name: source_part(name, loaded, shared) for name in loaded.config.sources}
    current.pipeline = pipeline_of(loaded, shared, sinks)
    for source in sources.values():
        source.intake.open(current.pipeline)
    return Parts(loaded, shared, sources, sinks, lookups)


def pipeline_of(loaded: Loaded, shared: Shared, sinks: Mapping[str, SinkPart]) -> Pipeline:
    """Return the pipeline of a configuration.

    The pipeline enqueues deliveries for these sinks. The function also sets the routes of the configuration in the
    books.
    """
    config = loaded.config
    routing = loaded.routing()
    shared.books.use_routes(routing.in_force)
    return Pipeline(
        formats=[SourceFormat.of(name, source) for name, source in config.sources.items()],
        routing=routing,
        inboxes={name: sink.worker.queue.put for name, sink in sinks.items()},
        dead_letters=shared.letters,
        books=shared.books,
        clock=shared.runtime.clock,
        ids=shared.ids,
        keep_unmatched=config.unmatched == "dead-letter",
        failures=shared.failures,
        letters_shown=shared.writer is None,
    )


def sink_part(
    name: str,
    loaded: Loaded,
    shared: Shared,
    lookups: LookupSet,
    queue: Queue | None = None,
    *,
    wrap: Callable[[SinkCalls], SinkCalls] = lambda caller: caller,
) -> SinkPart:
    """Return one sink, not yet started.

    `queue` is the queue of an earlier worker. If it is None, the sink gets a new queue. `wrap` is for tests: it may
    replace the object through which the worker calls the sink. Raises `ConfigError` if the `__init__` of the plugin's
    class raises an exception.
    """
    sink, kind = loaded.config.sinks[name], loaded.types[name]
    clock, outcomes = shared.runtime.clock, shared.outcomes_of(name)
    queue = queue or queue_of(name, loaded, shared.durable, outcomes, clock)
    server = None if loaded.config.deliver == "print" else partial(shared.runtime.server, sink=name)
    caller, context = plugin_of(name, loaded, clock, server)
    mode = _mode(name, loaded, context, shared.runtime)
    preparing = Preparing(*rules_of(name, loaded, lookups), outcomes=outcomes, mode=mode, clock=clock)
    option_key = preparing.order_key if loaded.has_keys(name) else None
    worker = SinkWorker(
        keys=sink.host,
        concurrency=concurrency_of(name, loaded),
        batch=batch_of(sink.host.batch, kind),
        caller=wrap(caller),
        preparing=preparing,
        queue=queue,
        outcomes=outcomes,
        clock=clock,
        chance=random.random,
        line=ordered(queue, loaded.order_by.get(name), clock, name, shared.failures, option_key=option_key),
    )
    return SinkPart(kind.name, worker, context)


class SinkPlugin(NamedTuple):
    """The plugin of one sink, not yet opened: its caller and its context.

    The context must be closed after the caller.
    """

    caller: Caller
    context: Context


def plugin_of(name: str, loaded: Loaded, clock: Clock, server: FindServer | None) -> SinkPlugin:
    """Return the plugin of one sink.

    `server` finds Redis servers for the context of the sink. If `server` is None, the context has no Redis. Raises
    `ConfigError` if the `__init__` of the plugin's class raises an exception.
    """
    threads = DaemonThreads(f"sink {name}", concurrency_of(name, loaded))
    context = Context(
        name,
        clock=clock,
        base=loaded.write_base,
        threads=threads,
        keys=loaded.config.sinks[name].host,
        server=server,
        prefix=loaded.config.redis.key_prefix,
    )
    return SinkPlugin(_caller(name, loaded, context, threads), context)


def concurrency_of(name: str, loaded: Loaded) -> int:
    """Return the number of attempts that a sink makes at the same time."""
    return loaded.config.sinks[name].host.concurrency or loaded.types[name].concurrency


def dead_letter_bounds(loaded: Loaded) -> Bounds:
    """Return the bounds that a configuration sets for the dead letters."""
    letters = loaded.config.dead_letters
    return Bounds(letters.max_events, letters.max_age, loaded.config.redis.outage_buffer)


def _writer(loaded: Loaded, runtime: Runtime) -> DeadLetterWriter:
    redis = loaded.config.redis
    return DeadLetterWriter(
        runtime.redis_url,
        clock=runtime.clock,
        prefix=redis.key_prefix,
        client_name=runtime.client_name,
        bounds=dead_letter_bounds(loaded),
        connect_timeout=runtime.connect_timeout,
        waiting=runtime.waiting,
    )


def _caller(name: str, loaded: Loaded, context: Context, threads: DaemonThreads) -> Caller:
    try:
        return Caller(loaded.types[name], loaded.config.sinks[name].options, context, threads)
    except (Exception, SystemExit) as error:
        kind = loaded.types[name]
        why = f"its plugin ({kind.origin}) can't create the sink: {''.join(accidents.described(error))}"
        raise ConfigError([loaded.placed(why, "sinks", name)]) from error


class Rules(NamedTuple):
    """The rules by which the deliveries of a sink are prepared: see `Preparing`."""

    templates: Mapping[str | None, OptionsTemplate]
    expires: Mapping[str, Expiry]
    only_if: Mapping[str | None, Expression]
    lookups: LookupSet


def rules_of(name: str, loaded: Loaded, lookups: LookupSet) -> Rules:
    """Return the rules by which the deliveries of a sink are prepared."""
    return Rules(
        {route: template for (owner, route), template in loaded.templates.items() if owner == name},
        _expires_of(name, loaded),
        {route: condition for (owner, route), condition in loaded.only_if.items() if owner == name},
        lookups,
    )


def _expires_of(name: str, loaded: Loaded) -> Mapping[str, Expiry]:
    """Return the expiry of a sink's deliveries, by route.

    A sink that is a fallback of other sinks may get deliveries of every route. For such a sink, return the expiry of
    every route.
    """
    if any(name in sink.host.fallback for sink in loaded.config.sinks.values()):
        return loaded.expires
    routes = [route.id for route in loaded.config.routes if any(entry.sink == name for entry in route.sinks)]
    return {route: loaded.expires[route] for route in routes if route in loaded.expires}


def _mode(name: str, loaded: Loaded, context: Context, runtime: Runtime) -> DeliveryMode | None:
    kind = loaded.types[name]
    deliver = loaded.config.deliver
    if deliver == "send" or kind.local:
        return None
    only = deliver.only if isinstance(deliver, DeliverOnly) else []
    return DeliveryMode(name, kind.name, only, partial(context.run_blocking, runtime.printer), redacted)
