"""The typed configuration; floor 1. Strict, frozen, unknown keys refused; reading files is `ops.loading`'s.

Durations are seconds (float), sizes are bytes (int). A sink's own options are not here: its plugin's model checks them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import durationpy
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from router.options import STRICT

NAME = r"[A-Za-z0-9_.-]{1,64}"
_UNITLESS = re.compile(r"[0-9.]+")
_sizes = TypeAdapter(ByteSize)


def _duration(value: object) -> float:
    if isinstance(value, str) and not _UNITLESS.fullmatch(value):
        try:
            seconds = durationpy.from_str(value).total_seconds()
        except durationpy.DurationError:
            raise ValueError(f"{value!r} is no duration, write for example 500ms, 30s, 5m or 24h") from None
        if seconds >= 0:
            return seconds
    raise ValueError(f"{value!r} is no duration, write a number with its unit: 500ms, 30s, 5m, 24h")


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no size, write for example 512KiB, 1MiB or 64MiB")
    try:
        size = int(_sizes.validate_python(value))
    except ValidationError:
        raise ValueError(f"{value!r} is no size, write for example 512KiB, 1MiB or 64MiB") from None
    if size <= 0:
        raise ValueError(f"{value!r} is no size, it must be above zero")
    return size


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone, write a name such as UTC or Europe/Berlin") from None
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+(ns|us|ms|s|m|h|d|w|mm|y)", "examples": ["30s"]}),
]
"""Seconds; written as Go writes them: `500ms`, `30s`, `1m30s`, `24h`."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}], "examples": ["1MiB"]}),
]
"""Bytes; a number, or a number with its unit: `64MiB`."""

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
Glob = Annotated[str, StringConstraints(min_length=1)]
Zone = Annotated[str, AfterValidator(_zone)]


class Model(BaseModel):
    """The base of every configuration model."""

    model_config = STRICT


class RedisConfig(Model):
    """The router's own Redis: dead letters and, later, queues and state."""

    url: Annotated[str, PlainSerializer(lambda url: url)] = Field(
        "embedded", description="redis://, rediss://, unix://, or `embedded`"
    )
    key_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = Field(
        "event-router", description="every key the router owns is {key_prefix}:…"
    )
    connect_timeout: Duration = Field(10.0, description="how long to wait for Redis at start")
    outage_buffer: Size = Field(64 * 1024**2, description="what waits in memory while Redis refuses writes")


class PluginsConfig(Model):
    """Where drop-in plugins are looked for, beside `plugins/` next to the configuration and the built-ins."""

    paths: list[str] = Field(default_factory=list, description="folders of drop-in .py files")


class PubSubSource(Model):
    """A subscription to pub/sub channels by name or glob."""

    type: Literal["pubsub"]
    channels: list[Glob] = Field(default_factory=list, description="names and globs")
    patterns: list[Glob] = Field(default_factory=list, description="globs only")
    url: str | None = Field(None, description="this source's own server; default: redis.url")
    format: Literal["json", "text"] = Field("json", description="how the payload is read")
    max_bytes: Size = Field(1024**2, description="a larger payload is rejected before it is decoded")

    @model_validator(mode="after")
    def _some(self) -> PubSubSource:
        if not self.channels and not self.patterns:
            raise ValueError("a pubsub source needs at least one entry in `channels` or `patterns`")
        return self


class SchemaConfig(Model):
    """Which JSON Schema the events of some channels must fit; the first entry that matches the channel counts."""

    channels: list[Glob] = Field(min_length=1, description="names or globs of channels")
    file: str = Field(description="the JSON Schema, relative to this file")
    mode: Literal["enforce", "warn", "off"] = Field("enforce", description="what an event that does not fit means")


class RetryConfig(Model):
    """Full-jitter exponential backoff; age alone ends it unless `attempts` caps it."""

    initial: Duration = Field(1.0, description="the longest first delay")
    max_delay: Duration = Field(300.0, description="the longest delay")
    max_age: Duration = Field(86400.0, description="a delivery that has failed for this long is given up")
    attempts: int | None = Field(None, ge=1, description="an optional cap on counted attempts")


class QueueConfig(Model):
    """The bound of a sink's queue and what happens when it is full."""

    type: Literal["memory"] = Field("memory", description="where the waiting deliveries are kept")
    max_events: int = Field(100_000, ge=1)
    max_bytes: Size = Field(64 * 1024**2)
    when_full: Literal["block", "drop-newest", "drop-oldest"] = Field(
        "block", description="pub/sub can't be held back: for its events `block` drops the newest"
    )


class BatchConfig(Model):
    """For sinks that take batches: a batch is what is there, nothing waits for more unless `max_wait` says so."""

    max_events: int = Field(500, ge=1)
    max_wait: Duration = Field(0.0)


class HttpConfig(Model):
    """How a sink that speaks HTTP reaches the world."""

    proxy: str = Field("", description="http://host:port of a proxy; empty for none")


class HostKeys(Model):
    """What every sink takes whatever its type: the host does this work, never the plugin.

    None stands for what the plugin registered (`queue`, `concurrency`).
    """

    type: str = Field(description="which plugin delivers")
    queue: QueueConfig | None = Field(None, description="`memory`, or a mapping")
    concurrency: int | None = Field(None, ge=1, le=1000, description="attempts at the same time")
    timeout: Duration = Field(10.0, gt=0, description="one attempt, everything included")
    retry: RetryConfig = Field(default_factory=RetryConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)


class SinkConfig(Model):
    """A configured sink: its host keys, and the options its plugin's model has checked."""

    host: HostKeys
    options: Any


class RouteSink(Model):
    """One sink of a route, with the template options that this route overrides (already checked)."""

    sink: str
    options: Any = None


class RouteConfig(Model):
    """A rule that picks sinks. Every matching route gets the event; `final` stops after itself."""

    id: Name
    sources: list[str] | None = Field(None, description="names of sources; default: all")
    channels: list[Glob] | None = Field(None, description="names or globs of channels; default: all")
    sinks: list[RouteSink] = Field(min_length=1)
    final: bool = False
    enabled: bool = True


class DeliverOnly(Model):
    """Send to addresses that match `only`; print what would have gone to the others."""

    only: list[Glob] = Field(min_length=1)
    others: Literal["print"] = "print"


class ShutdownConfig(Model):
    """How the daemon ends."""

    drain: Duration = Field(30.0, description="how long SIGTERM lets what is in flight finish")


class RouterConfig(Model):
    """The whole configuration of one router."""

    version: Literal[1]
    redis: RedisConfig = Field(default_factory=RedisConfig)
    plugins: PluginsConfig = Field(default_factory=PluginsConfig)
    sources: dict[Name, PubSubSource] = Field(min_length=1)
    schemas: list[SchemaConfig] = Field(default_factory=list)
    sinks: dict[Name, SinkConfig] = Field(min_length=1)
    routes: list[RouteConfig] = Field(min_length=1)
    unmatched: Literal["drop", "dead-letter"] | list[RouteSink] = "drop"
    deliver: Literal["send", "print"] | DeliverOnly = "send"
    timezone: Zone = "UTC"
    shutdown: ShutdownConfig = Field(default_factory=ShutdownConfig)
