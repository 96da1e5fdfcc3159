"""The composition of the sources from the configuration; floor 5.

The modules of pub/sub and list sources are imported only when the first source of that kind is made. The modules of stream
sources are always imported, because replays need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.broker.dead_letters.dead_letter_store import GROUP
from router.broker.dead_letters.replay_sweep import ReplaySweep
from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.group_source import SourceHost, SourceTiming
from router.broker.groups.heartbeat import Heartbeat
from router.broker.server import keys
from router.broker.streams.stream_source import StreamOptions, StreamSource
from router.config.models import (
    ListConfig,
    PubSubConfig,
    SourceConfig,
    StreamConfig,
)
from router.contracts import DeadLetters
from router.core.accounts.books import SourceBook
from router.core.matching import is_glob
from router.engine.dead_letters.replays import NAME as REPLAYS
from router.engine.dead_letters.replays import Replayer, Replays
from router.engine.intake.switch import CurrentPipeline, Intake
from router.engine.parts import Shared, SourcePart
from router.engine.runtime import Runtime
from router.ops.loading import Loaded

if TYPE_CHECKING:
    from router.broker.lists.list_source import ListSource
    from router.broker.pubsub.pubsub_source import PubSubSource

REPLAYS_BLOCK = 5.0
"""The seconds for which one read waits for dead letters to replay. The time is long because replays are rare and each
read costs CPU time.
"""


def source_part(name: str, loaded: Loaded, shared: Shared) -> SourcePart:
    """Return one source, not yet started, and its intake, not yet opened."""
    shared.books.sources.setdefault(name, SourceBook())
    config, intake = loaded.config.sources[name], Intake()
    if isinstance(config, StreamConfig):
        return SourcePart(_stream(name, config, loaded, shared, intake), intake)
    if isinstance(config, ListConfig):
        return SourcePart(_list(name, config, loaded, shared, intake), intake)
    pubsub = _pubsub(name, config, shared, intake)
    return SourcePart(pubsub, intake, pubsub)


def _pubsub(name: str, config: PubSubConfig, shared: Shared, intake: Intake) -> PubSubSource:
    from router.broker.pubsub.pubsub_source import PubSubSource  # noqa: PLC0415  # see the module's docstring

    runtime = shared.runtime
    source = PubSubSource(
        name,
        config.url or runtime.redis_url,
        *subscriptions_of(config),
        receiver=intake,
        clock=runtime.clock,
        client_name=runtime.client_name,
        connect_timeout=runtime.connect_timeout,
        waiting=runtime.waiting,
    )
    source.limit_read_ahead(config.max_read_ahead)
    return source


def _host(name: str, config: StreamConfig | ListConfig, loaded: Loaded, shared: Shared, intake: Intake) -> SourceHost:
    runtime = shared.runtime
    server, key = runtime.server(config.url), config.reads[0]
    return SourceHost(
        receiver=intake,
        clock=runtime.clock,
        connect_timeout=runtime.connect_timeout,
        waiting=runtime.waiting,
        isolation=shared.isolation,
        book=shared.books.sources.setdefault(name, SourceBook()),
        heartbeat=None
        if _is_own(config, shared)
        else Heartbeat(
            server, keys.beside(loaded.config.redis.key_prefix, key, "router", runtime.consumer), runtime.consumer
        ),
    )


def _is_own(config: StreamConfig | ListConfig, shared: Shared) -> bool:
    """Return whether a source reads from the router's own Redis."""
    return config.url in {None, shared.runtime.redis_url}


def _marks(config: StreamConfig | ListConfig, loaded: Loaded, shared: Shared) -> str | None:
    """Return the key of the hash that marks partly enqueued entries.

    Return None for a source that reads from another server.
    """
    return keys.handed(loaded.config.redis.key_prefix) if _is_own(config, shared) else None


def _stream(name: str, config: StreamConfig, loaded: Loaded, shared: Shared, intake: Intake) -> StreamSource:
    runtime = shared.runtime
    options = StreamOptions(
        streams=config.streams,
        group=config.group,
        consumer=runtime.consumer,
        start=config.start,
        payload_field=config.payload_field,
        claim_idle=config.claim.idle,
        max_deliveries=config.max_deliveries,
        max_in_flight=config.max_in_flight,
        observe=loaded.config.deliver == "print",
        marks=_marks(config, loaded, shared),
    )
    return StreamSource(name, runtime.server(config.url), options, _host(name, config, loaded, shared, intake))


def _list(name: str, config: ListConfig, loaded: Loaded, shared: Shared, intake: Intake) -> ListSource:
    from router.broker.lists.list_source import ListOptions, ListSource  # noqa: PLC0415  # see the module's docstring

    runtime = shared.runtime
    options = ListOptions(
        keys=config.keys,
        consumer=runtime.consumer,
        max_in_flight=config.max_in_flight,
        max_deliveries=config.max_deliveries,
        lease=config.lease,
        prefix=loaded.config.redis.key_prefix,
        marks=_marks(config, loaded, shared),
        observe=loaded.config.deliver == "print",
    )
    return ListSource(name, runtime.server(config.url), options, _host(name, config, loaded, shared, intake))


def replays_of(
    loaded: Loaded, runtime: Runtime, current: CurrentPipeline, letters: DeadLetters, isolation: CrashIsolation
) -> Replays:
    """Return the replay of dead letters, with the source that reads the replay stream."""
    prefix = loaded.config.redis.key_prefix
    server = runtime.server()
    source = StreamSource(
        REPLAYS,
        server,
        StreamOptions(
            streams=[keys.replay(prefix)],
            group=GROUP,
            consumer=runtime.consumer,
            start="oldest",
            marks=keys.handed(prefix),
        ),
        SourceHost(
            receiver=Replayer(current.now, letters, runtime.clock),
            clock=runtime.clock,
            connect_timeout=None,
            isolation=isolation,
            timing=SourceTiming(block=REPLAYS_BLOCK, hang_up=True),
        ),
    )
    sweep = ReplaySweep(server, prefix=prefix)
    return Replays(source, sweep, runtime.clock)


def limit_read_ahead(part: SourcePart, config: SourceConfig) -> None:
    """Apply a new `max_read_ahead` to a running pub/sub source. The source keeps its connection."""
    assert isinstance(config, PubSubConfig)
    assert part.switchable is not None
    part.switchable.limit_read_ahead(config.max_read_ahead)


def subscriptions_of(config: SourceConfig) -> tuple[list[str], list[str]]:
    """Return the names and the globs that a source subscribes to."""
    assert isinstance(config, PubSubConfig)
    names = [channel for channel in config.channels if not is_glob(channel)]
    return names, [channel for channel in config.channels if is_glob(channel)] + config.patterns
