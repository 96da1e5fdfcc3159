"""Warnings of `check` about settings of Redis by which queued deliveries may be lost; floor 7."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from router.cli.brief_redis import ask_briefly
from router.cli.common import redis_queues
from router.core.accounts.durability_risks import has_events_from_elsewhere, judge, power_cut
from router.errors import Problem

if TYPE_CHECKING:
    from redis import Redis

    from router.ops.loading import Loaded


def problems(loaded: Loaded) -> list[Problem]:
    """Return the problems that endanger a configuration's queues in Redis. Return none if the server is unreachable.

    An embedded server is not asked for its settings, because the router sets them. A server without queues, or with an
    unknown address, is not checked. By default, Redis may lose one second of writes at a power cut. So this loss is
    only a note.
    """
    from router.ops.loading.reading.placeholders import WORD

    config = loaded.config
    redis = config.redis
    if config.deliver == "print" or not redis_queues(loaded) or urlsplit(redis.url).hostname == f"{WORD}.invalid":
        return []
    embedded = redis.url == "embedded"
    info = {"aof_enabled": "1", "appendfsync": redis.appendfsync} if embedded else _asked(redis.url)
    cure = "`redis: {appendfsync: always}`" if embedded else "appendfsync always"
    notes = power_cut(info, cure) if has_events_from_elsewhere(config.sources.values(), redis.url) else ()
    file, path = str(loaded.path), "redis.appendfsync" if embedded else "redis.url"
    return [
        *(Problem(text, file=file, path=path, severity="warning") for text in judge(info)),
        *(Problem(text, file=file, path=path, severity="note") for text in notes),
    ]


@cache
def _asked(url: str) -> Mapping[str, str]:
    """Return the server's settings, as far as the server is reachable and allows the commands."""
    found: dict[str, str] = {}

    def ask(client: Redis) -> None:
        info = {**client.info("memory"), **client.info("persistence")}
        found.update((name, str(value)) for name, value in info.items())
        found["appendfsync"] = str(client.config_get("appendfsync").get("appendfsync"))

    ask_briefly(url, ask)
    return dict(found)
