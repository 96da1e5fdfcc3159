"""The connection that sends one command at a time, in the order they were given."""

import asyncio

from router.broker import client
from router.broker.link import Link, Script

PUSH = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")


async def test_nothing_overtakes_a_script_that_the_server_does_not_know_yet(redis_server):
    link = Link(client.server(redis_server.url))
    for _ in range(2):
        calls = [link.script(PUSH, ["order"], ["first"]), link.call("RPUSH", "order", "second")]
        await asyncio.gather(*calls, link.script(PUSH, ["order"], ["third"]))
        assert redis_server.do("LRANGE", "order", 0, -1) == [b"first", b"second", b"third"]
        redis_server.do("DEL", "order")
        redis_server.do("SCRIPT", "FLUSH")
    await link.close()
