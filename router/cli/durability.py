"""Whether the Redis that a configuration names keeps what its queues hold, asked in passing; floor 7."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from router.cli.common import redis_queues
from router.core.durability import judge

if TYPE_CHECKING:
    from router.ops.loading import Loaded

LIMIT = 0.2
"""Seconds that finding the server, connecting and the answer may take together."""


def warnings(loaded: Loaded) -> tuple[str, ...]:
    """What endangers the queues in Redis of a configuration; nothing where nobody answers at once.

    The embedded server is not asked: it is started as it should be. Nor is one whose address is not known, or that holds
    no queue.
    """
    from router.ops.loading.placeholders import WORD

    url = loaded.config.redis.url
    if url == "embedded" or urlsplit(url).hostname == f"{WORD}.invalid":
        return ()
    if loaded.config.deliver == "print" or not redis_queues(loaded):
        return ()
    return _asked(url)


@cache
def _asked(url: str) -> tuple[str, ...]:
    """Ask in a thread that nobody waits for longer: a name that is looked up can't be given a limit."""
    import redis  # the loop of the daemon's own client would wait for the look-up at its end
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    found: list[str] = []

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
        except (redis.RedisError, OSError, ValueError, TypeError):
            return  # it is not there, or does not tell: that is not what was asked
        found.extend(judge({name: str(value) for name, value in info.items()}))

    thread = threading.Thread(target=ask, name="durability", daemon=True)
    thread.start()
    thread.join(LIMIT)
    return tuple(found)
