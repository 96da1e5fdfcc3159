"""Warnings of `check` about a Redis whose settings may lose queued deliveries; floor 7."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from router.cli.common import redis_queues
from router.core.accounts.durability_risks import brings_its_own, judge, power_cut
from router.errors import Problem

if TYPE_CHECKING:
    from router.ops.loading import Loaded

LIMIT = 1.0
"""The most seconds for the name lookup, the connection and the answer together."""


def problems(loaded: Loaded) -> list[Problem]:
    """Return the problems that endanger a configuration's queues in Redis; none if no server answers in time.

    An embedded server is not asked, because the router starts it with the right settings. A server without queues, or
    with an unknown address, is not asked either. Losing a second at a power cut is a note: that is Redis's default.
    """
    from router.ops.loading.reading.placeholders import WORD

    config = loaded.config
    redis = config.redis
    if config.deliver == "print" or not redis_queues(loaded) or urlsplit(redis.url).hostname == f"{WORD}.invalid":
        return []
    embedded = redis.url == "embedded"
    info = {"aof_enabled": "1", "appendfsync": redis.appendfsync} if embedded else _asked(redis.url)
    cure = "`redis: {appendfsync: always}`" if embedded else "appendfsync always"
    notes = power_cut(info, cure) if brings_its_own(config.sources.values(), redis.url) else ()
    file, path = str(loaded.path), "redis.appendfsync" if embedded else "redis.url"
    return [
        *(Problem(text, file=file, path=path, severity="warning") for text in judge(info)),
        *(Problem(text, file=file, path=path, severity="note") for text in notes),
    ]


@cache
def _asked(url: str) -> Mapping[str, str]:
    """Ask in a thread that is abandoned after the time limit, because a name lookup has no timeout."""
    import redis  # an event loop waits for the threads of its name lookups when it is closed
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    found: dict[str, str] = {}

    def ask() -> None:
        retry = Retry(NoBackoff(), 0)
        try:
            client = redis.Redis.from_url(
                url,
                socket_timeout=LIMIT,
                socket_connect_timeout=LIMIT,
                retry=retry,
                protocol=2,
            )
            with client:
                info = {**client.info("memory"), **client.info("persistence")}
                found.update((name, str(value)) for name, value in info.items())
                found["appendfsync"] = str(client.config_get("appendfsync").get("appendfsync"))
        except (redis.RedisError, OSError, ValueError, TypeError):
            return  # the server is absent or refuses the command; `check` reports neither

    thread = threading.Thread(target=ask, name="durability", daemon=True)
    thread.start()
    thread.join(LIMIT)
    return dict(found)
