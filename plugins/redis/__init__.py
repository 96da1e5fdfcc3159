"""Built-in sink `redis`: publishes each event, or adds it to a stream or list. A batch is sent as one pipeline."""

from __future__ import annotations

from router.api import RegisterSink, hookimpl

from .redis_options import RedisOptions
from .redis_sink import RedisSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the type `redis`."""
    register("redis", RedisSink, options=RedisOptions, concurrency=1)  # one worker keeps the order of a source
