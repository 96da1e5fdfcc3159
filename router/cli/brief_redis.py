"""A quick query to a Redis server, for commands that also work if the server is unreachable; floor 7."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

LIMIT = 1.0
"""Seconds allowed for the name lookup, the connection and the reply together."""


def ask_briefly(url: str, ask: Callable[[Redis], object]) -> Exception | None:
    """Call `ask` with a client of a Redis server. Return the error of redis-py or the network, or None on success.

    `ask` is called in a thread, because a name lookup has no timeout. After the time limit, the thread is abandoned.
    """
    import redis  # not `redis.asyncio`: at its end, an event loop would wait for the threads of its name lookups
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    errors: list[Exception] = [TimeoutError(f"no answer within {LIMIT:g} s")]

    def call() -> None:
        retry = Retry(NoBackoff(), 0)
        try:
            with redis.Redis.from_url(
                url, socket_timeout=LIMIT, socket_connect_timeout=LIMIT, retry=retry, protocol=2
            ) as client:
                ask(client)
            errors.clear()
        except (redis.RedisError, OSError, ValueError, TypeError) as error:
            errors[:] = [error]

    thread = threading.Thread(target=call, name="brief", daemon=True)
    thread.start()
    thread.join(LIMIT)
    return errors[0] if errors else None
