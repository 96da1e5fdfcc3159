"""Built-in sink `redis`: publishes an event, or appends it to a stream or a list; a batch is one pipeline."""

from __future__ import annotations

from router.api import RegisterSink, hookimpl

from .redis_options import RedisOptions
from .redis_sink import RedisSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the type `redis`."""
    register("redis", RedisSink, options=RedisOptions, concurrency=1)  # one worker keeps the order of a source
