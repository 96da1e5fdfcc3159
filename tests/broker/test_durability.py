"""Whether a Redis keeps what its queues hold is asked again and again."""

import structlog

from router.broker import client
from router.broker.durability import Durability
from tests.support.waiting import until


async def test_a_server_is_asked_again_and_what_is_new_is_said_once(redis_server):
    durability = Durability(client.server(redis_server.url), every=0.02)
    with structlog.testing.capture_logs() as logs:
        durability.start()
        await until(lambda: len(durability.warnings) == 1)
        redis_server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await until(lambda: len(durability.warnings) == 2)
        redis_server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis_server.do("CONFIG", "SET", "appendonly", "yes")
        await until(lambda: not durability.warnings)
        await durability.close()
    said = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert len(said) == 2
    assert "appendonly yes" in said[0]
    assert "not allkeys-lru" in said[1]
