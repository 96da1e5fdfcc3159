"""Whether a Redis keeps what its queues hold is asked again and again."""

import pytest
import structlog

from router.broker.server import client
from router.broker.server.durability import Durability
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
    assert "instead of allkeys-lru" in said[1]


@pytest.mark.parametrize(("fsync", "said"), [("everysec", "the last second"), ("no", "the last 30 seconds")])
async def test_what_a_power_cut_takes_is_told_until_it_is_mended(redis_server, fsync, said):
    redis_server.do("CONFIG", "SET", "appendonly", "yes")
    redis_server.do("CONFIG", "SET", "appendfsync", fsync)
    durability = Durability(client.server(redis_server.url), every=0.02)
    durability.start()
    await until(lambda: durability.power_cut)
    assert said in durability.power_cut[0]
    redis_server.do("CONFIG", "SET", "appendfsync", "always")
    await until(lambda: not durability.power_cut)
    assert durability.warnings == ()
    await durability.close()


async def test_a_server_that_does_not_tell_its_settings_is_asked_for_them_once(redis_server):
    redis_server.do("CONFIG", "SET", "appendonly", "yes")
    redis_server.do("ACL", "SETUSER", "router", "on", ">pw", "~*", "&*", "+@all", "-config")
    url = redis_server.url.replace("redis://", "redis://router:pw@")
    durability = Durability(client.server(url), every=0.02)
    durability.start()
    redis_server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await until(lambda: durability.warnings)
    redis_server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await until(lambda: not durability.warnings)
    assert durability.power_cut == ()
    await durability.close()
    (refused,) = redis_server.do("ACL", "LOG")
    assert refused[b"object"] == b"config|get" if isinstance(refused, dict) else b"config|get" in refused
    assert (refused[b"count"] if isinstance(refused, dict) else refused[1]) == 1
