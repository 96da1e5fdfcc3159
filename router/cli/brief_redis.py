"""A query of a Redis server that may be unreachable, for commands that work without an answer; floor 7."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

LIMIT = 1.0
"""Seconds allowed for the name lookup, the connection and the answer together."""


def ask_briefly(url: str, ask: Callable[[Redis], object]) -> Exception | None:
    """Call `ask` with a client of a server; return the error of redis-py or the network, or None if all went well.

    `ask` is called in a thread that is abandoned after the time limit, because a name lookup has no timeout.
    """
    import redis  # an event loop waits for the threads of its name lookups when it is closed
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
