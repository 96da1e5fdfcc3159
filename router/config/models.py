"""The models of the configuration; floor 1. They are strict and frozen, and refuse unknown keys.

`ops.loading` reads files. Durations are seconds (float), sizes are bytes (int). A sink's own options are checked by the
model of its plugin.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)

from router.config.scalars import (
    OFF,
    Duration,
    Expires,
    Glob,
    Key,
    Name,
    RateLimit,
    ReadAhead,
    RedisUrl,
    ServerUrl,
    Size,
    Zone,
    address,
    admin_token,
    distinct,
    dotted,
    listen_address,
    proxy_url,
)
from router.options import STRICT, Secret


def _queue(value: object) -> object:
    """Expand `queue: memory` to `queue: {type: memory}`."""
    return {"type": value} if isinstance(value, str) else value


class Model(BaseModel):
    """The base of every configuration model. Defaults are written as seconds and bytes.

    A model's validator is built for the first section that needs it: few configurations have all sections.
    """

    model_config = {**STRICT, "validate_default": False, "defer_build": True}


class RedisConfig(Model):
    """The router's own Redis: dead letters, and queues."""

    url: RedisUrl = Field(
        "embedded", description="redis://, rediss://, unix://, or `embedded`; default: $REDIS_URL, or else `embedded`"
    )
    key_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = Field(
        "event-router", description="the names of the router's own keys begin with {key_prefix}:"
    )
    connect_timeout: Duration = Field(10.0, description="how long the router waits for Redis when it starts")
    outage_buffer: Size = Field(64 * 1024**2, description="how many bytes may wait while Redis refuses writes")
    appendfsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="when the embedded server syncs its file to the disk; `always` is slower, but loses nothing in a power cut",
    )


class PluginsConfig(Model):
    """The folders of drop-in plugins besides `plugins/` next to the configuration, and the disabled plugins."""

    paths: list[str] = Field(default_factory=list, description="folders with drop-in plugins")
    disable: list[str] = Field(
        default_factory=list, description="names of plugins that are not loaded, as `event-router plugins` prints them"
    )


class Reading(Model):
    """The keys of every source: its server, and how its messages are read."""

    type: str = Field(description="write pubsub, stream or list")
    url: ServerUrl | None = Field(None, description="the URL of this source's server; default: redis.url")
    format: Literal["json", "text", "cloudevents"] = Field("json", description="the format of the messages")
    id: Annotated[str, AfterValidator(dotted)] | None = Field(
        None, description="the dotted path of the event's id in the payload; without `id`, the router makes an id"
    )
    max_bytes: Size = Field(1024**2, description="a larger payload is rejected before it is decoded")

    @model_validator(mode="after")
    def _has_fields(self) -> Reading:
        if self.id is not None and self.format == "text":
            raise ValueError("`id` names a field, but a payload with `format: text` has none; remove `id` or `format`")
        return self


class PubSubConfig(Reading):
    """A subscription to pub/sub channels by name or glob."""

    type: Literal["pubsub"] = Field(description="write pubsub, stream or list")
    channels: list[Glob] = Field(default_factory=list, description="names and globs of channels")
    patterns: list[Glob] = Field(default_factory=list, description="globs of channels")
    max_read_ahead: ReadAhead = Field(256 * 1024**2, description="how many bytes may be read before they are processed")

    @property
    def reads(self) -> list[str]:
        """The names and globs of the channels of this source."""
        return [*self.channels, *self.patterns]

    @model_validator(mode="after")
    def _some(self) -> PubSubConfig:
        if not self.channels and not self.patterns:
            raise ValueError("a pubsub source needs at least one entry in `channels` or `patterns`")
        return self


class ClaimConfig(Model):
    """The idle time after which entries of a dead router are claimed."""

    idle: Duration = Field(60.0, gt=0, description="another router claims an entry that was not renewed for this time")


class StreamConfig(Reading):
    """A consumer group on streams. An entry is acknowledged when all its deliveries are settled or stored."""

    type: Literal["stream"] = Field(description="write pubsub, stream or list")
    streams: Annotated[list[Key], AfterValidator(distinct)] = Field(
        min_length=1, description="list the exact keys of the streams"
    )
    group: Key = Field("event-router", description="the consumer group; it is created if it does not exist")
    start: Literal["new", "oldest"] = Field("new", description="where a new group begins to read")
    payload_field: Key = Field("payload", description="the field of an entry that holds the payload")
    claim: ClaimConfig = Field(default_factory=ClaimConfig, description="when the entries of a dead router are claimed")
    max_deliveries: int = Field(
        5, ge=1, description="an entry that crashed the process this many times becomes a dead letter"
    )
    max_in_flight: int = Field(1000, ge=1, le=100_000, description="how many entries may be in flight at a time")

    @property
    def reads(self) -> list[str]:
        """The names of the channels that the source reads."""
        return self.streams


class ListConfig(Reading):
    """A reader of lists: an item is removed when all its deliveries are settled or stored."""

    type: Literal["list"] = Field(description="write pubsub, stream or list")
    keys: Annotated[list[Key], AfterValidator(distinct)] = Field(
        min_length=1, description="list the exact keys of the lists"
    )
    lease: Duration = Field(60.0, ge=1, description="another router claims an item that was not renewed for this time")
    max_deliveries: int = Field(
        5, ge=1, description="an item that crashed the process this many times becomes a dead letter"
    )
    max_in_flight: int = Field(100, ge=1, le=1000, description="how many items may be in flight at a time")

    @property
    def reads(self) -> list[str]:
        """The names of the channels that the source reads."""
        return self.keys


SourceConfig = PubSubConfig | StreamConfig | ListConfig
SOURCES: dict[str, type[SourceConfig]] = {"pubsub": PubSubConfig, "stream": StreamConfig, "list": ListConfig}
"""The models of the types of source."""


class SchemaConfig(Model):
    """The JSON Schema of some channels; the first entry that matches a channel applies."""

    channels: list[Glob] = Field(min_length=1, description="list names or globs of channels")
    file: str = Field(description="write the path of the JSON Schema, relative to the file that contains this key")
    mode: Literal["enforce", "warn", "off"] = Field("enforce", description="what happens to an event that does not fit")


class RetryConfig(Model):
    """The delays and the limits of retries: exponential backoff with full jitter, limited by age or `attempts`."""

    initial: Duration = Field(1.0, description="the longest delay before the first retry")
    max_delay: Duration = Field(300.0, description="the longest delay before any retry")
    max_age: Duration = Field(86400.0, description="the router gives up a delivery that has failed for this long")
    attempts: int | None = Field(
        None, ge=1, description="the router gives up a delivery after this many counted attempts; default: no limit"
    )


class QueueConfig(Model):
    """The bound of a sink's queue and what happens when it is full."""

    type: Literal["memory", "redis"] | None = Field(
        None, description="where the deliveries wait; the plugin sets the default"
    )
    max_events: int = Field(100_000, ge=1, description="how many deliveries may wait")
    max_bytes: Size = Field(64 * 1024**2, description="how many bytes of payloads may wait")
    when_full: Literal["block", "drop-newest", "drop-oldest"] = Field(
        "block",
        description="what happens when the queue is full; for events of a pubsub source, `block` drops the new delivery",
    )

    @model_validator(mode="after")
    def _redis_keeps_the_oldest(self) -> QueueConfig:
        if self.type == "redis":
            check_queue(self, "redis")
        return self


class BreakerConfig(Model):
    """The circuit breaker of a sink: the failures that open it, and the seconds until a probe."""

    failures: int = Field(
        5, ge=1, description="how many temporary failures in a row open the breaker; permanent failures do not count"
    )
    reset: Duration = Field(30.0, gt=0, description="how long an open breaker stops all attempts; one probe follows")


def check_queue(config: QueueConfig, kind: str) -> None:
    """Raise `ValueError` for options that this kind of queue does not have."""
    if kind == "redis" and config.when_full == "drop-oldest":
        raise ValueError("a queue in Redis can't have `drop-oldest`; write `block` or `drop-newest`")


class BatchConfig(Model):
    """The bounds of a batch. A batch takes the deliveries that are waiting; only with `max_wait` does it wait for more."""

    max_events: int = Field(500, ge=1, description="the maximum number of events in one batch")
    max_wait: Duration = Field(0.0, description="how long a batch waits for more deliveries")


class HttpConfig(Model):
    """The keys of the HTTP client of a sink."""

    proxy: Annotated[str, AfterValidator(proxy_url)] = Field(
        "", description="the URL of a proxy, http://host:port; if it is empty, no proxy is used"
    )


OnlyIf = Annotated[str, StringConstraints(min_length=1)]
"""An expression that decides whether a delivery is made."""


class HostKeys(Model):
    """The keys of a sink of any type. The router implements them, not the plugin.

    If `queue` or `concurrency` is None, the value that the plugin registered applies.
    """

    type: str = Field(description="write the type of the sink, such as email or webhook")
    queue: Annotated[QueueConfig | None, BeforeValidator(_queue)] = Field(
        None, description="`memory`, `redis`, or a mapping"
    )
    concurrency: int | None = Field(None, ge=1, le=1000, description="how many attempts are made at the same time")
    timeout: Duration = Field(10.0, gt=0, description="the time limit of one whole attempt")
    retry: RetryConfig = Field(default_factory=RetryConfig, description="when a failed delivery is retried")
    breaker: BreakerConfig = Field(default_factory=BreakerConfig, description="when a failing sink gets no attempts")
    batch: BatchConfig = Field(default_factory=BatchConfig, description="the size of batches, if the sink accepts them")
    rate: RateLimit | None = Field(None, description="the maximum number of deliveries in any second, minute or hour")
    fallback: list[str] = Field(default_factory=list, description="sinks that get the deliveries that were given up")
    order_by: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="an expression; deliveries with the same value keep their order"
    )
    only_if: OnlyIf | None = Field(None, description="an expression; if it is false, the delivery is suppressed")
    http: HttpConfig = Field(default_factory=HttpConfig, description="the HTTP client, for sinks that use HTTP")
    allow_private: bool = Field(
        False, description="whether the sink may connect to private addresses, for sinks that use HTTP"
    )


class SinkConfig(Model):
    """A configured sink: its host keys, and the options, which its plugin's model has checked."""

    host: HostKeys
    options: Any


class RouteSink(Model):
    """A sink of a route, with the options and the `only_if` that the route overrides. The options are checked."""

    sink: str = Field(description="write the name of a sink")
    options: Any = None
    """The sink's options with the overrides of the route; None if the route overrides none."""
    only_if: OnlyIf | None = None
    """The `only_if` that replaces that of the sink, or None."""


class RouteConfig(Model):
    """A rule that chooses sinks for events. All matching routes take an event, up to the first `final` one."""

    id: Name = Field(description="give the route a unique name")
    sources: list[str] | None = Field(None, description="names of sources; default: all")
    channels: list[Glob] | None = Field(None, description="names or globs of channels; default: all")
    match: Any = Field(None, description="conditions on the payload, written as a mapping of paths to conditions")
    when: Any = Field(
        None, description="an expression on event and payload; the route takes only events for which it is true"
    )
    expires: Expires | None = Field(
        None, description="when a delivery expires: a duration after its receipt, or a template that gives a time"
    )
    sinks: list[RouteSink] = Field(min_length=1, description="list the sinks that get the event")
    final: bool = Field(False, description="if true, no later route takes an event that this route takes")
    enabled: bool = Field(True, description="if false, the route is ignored")


class DeliverOnly(Model):
    """The form of `deliver` that sends to addresses that match `only`, and prints all other deliveries."""

    only: list[Glob] = Field(min_length=1, description="list globs of the addresses to which deliveries are sent")
    others: Literal["print"] = Field("print", description="what happens to all other deliveries")


class NotifyConfig(Model):
    """The sinks that get summaries of new dead letters, at most one per interval."""

    sinks: list[str] = Field(
        min_length=1, description="list the sinks that get summaries; each sink renders them with its own templates"
    )
    every: Duration = Field(900.0, gt=0, description="the interval of the summaries")


class DeadLettersConfig(Model):
    """The bounds of the stored dead letters, and the sinks that get summaries."""

    max_events: int = Field(
        100_000, ge=1, description="how many dead letters are kept; if there are more, the oldest are removed"
    )
    max_age: Duration = Field(30 * 86400.0, gt=0, description="how long a dead letter is kept")
    notify: NotifyConfig | None = Field(None, description="the sinks that get summaries, and the interval")


class AdminConfig(Model):
    """The address of the HTTP interface, and the token that clients need."""

    listen: Annotated[str, AfterValidator(listen_address)] | None = Field(
        None, description="HOST:PORT, unix:/path, or `off`; default: a socket in the state directory, for `status`"
    )
    token: Annotated[Secret, AfterValidator(admin_token)] | None = Field(
        None, description="the token of clients (Authorization: Bearer …); required if other machines can connect"
    )

    @model_validator(mode="after")
    def _guarded(self) -> AdminConfig:
        if self.listen not in {None, OFF} and self.token is None and not address(str(self.listen)).local:
            raise ValueError(
                f'other machines can reach {self.listen}, so `token` is required: add `token` (such as "${{cred:admin}}"), '
                "or write `listen: 127.0.0.1:PORT`"
            )
        return self


class ShutdownConfig(Model):
    """The keys of the graceful shutdown."""

    drain: Duration = Field(30.0, description="the time that deliveries in flight get to finish after SIGTERM")


class RouterConfig(Model):
    """The configuration of one router."""

    version: Literal[1] = Field(description="the version of the configuration's format, which is 1")
    redis: RedisConfig = Field(default_factory=RedisConfig, description="the router's own Redis")
    plugins: PluginsConfig = Field(
        default_factory=PluginsConfig,
        description="the folders of drop-in plugins, and the plugins that are switched off",
    )
    allow_commands: bool = Field(False, description="whether sinks may run programs (`command`)")
    sources: dict[Name, SourceConfig] = Field(min_length=1, description="name each source and write its type and keys")
    schemas: list[SchemaConfig] = Field(
        default_factory=list, description="the JSON Schemas of channels; the first entry that matches a channel applies"
    )
    lookups: dict[str, Any] = Field(
        default_factory=dict, description="the lookups by name; a lookup finds records, such as the record of a user"
    )
    sinks: dict[Name, SinkConfig] = Field(min_length=1, description="name each sink and write its type and options")
    routes: list[RouteConfig] = Field(min_length=1, description="list the routes, which send events to sinks")
    unmatched: Literal["drop", "dead-letter"] | list[RouteSink] = Field(
        "drop", description="what happens to an event that no route takes: drop, dead-letter, or a list of sinks"
    )
    deliver: Literal["send", "print"] | DeliverOnly = Field(
        "send", description="send, print (show each delivery and do not send it), or {only: [globs], others: print}"
    )
    timezone: Zone = Field("UTC", description="the time zone that the time filters of templates use")
    dead_letters: DeadLettersConfig = Field(
        default_factory=DeadLettersConfig,
        description="how many dead letters are kept, for how long, and which sinks get summaries",
    )
    admin: AdminConfig = Field(
        default_factory=AdminConfig, description="the HTTP interface for monitoring: {listen: HOST:PORT}, or `off`"
    )
    shutdown: ShutdownConfig = Field(default_factory=ShutdownConfig, description="how the router shuts down")
    tests: list[Any] = Field(  # `CaseConfig`, whose module is imported when tests are loaded
        default_factory=list,
        description="events and their expected results, for `test` and `check`; `run` ignores them",
    )
