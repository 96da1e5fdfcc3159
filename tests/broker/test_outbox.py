"""An outbox on a real server: every batch takes effect once and in order, whatever happens to its answer."""

import asyncio
from collections import deque

import pytest
from redis import exceptions as failures

from router.broker.server import client
from router.broker.server.health import Health
from router.broker.server.link import Script
from router.broker.server.outbox import Batch, Outbox
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, until

APPEND = Script("""
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(ARGV[1]) then return 'before' end
if ARGV[2] == 'no room' and redis.call('EXISTS', KEYS[3]) == 0 then return 'again' end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1])
return 'now'
""")
KEYS = ("{t}:list", "{t}:guard", "{t}:room")


class Words:
    """Sends each word as a batch, again while the answer is `again`."""

    def __init__(self):
        self.waiting = deque()
        self.answers = []

    def next_batch(self):
        return Batch(KEYS, (self.waiting.popleft(),)) if self.waiting else None

    def taken(self, answer):
        self.answers.append(answer)
        return answer == b"again"


class Sender:
    def __init__(self, url):
        self.words = Words()
        server = client.server(url)
        self.health = Health(server.shown, delays=(0.01, 0.05))
        self.outbox = Outbox("words", server, APPEND, self.words, self.health)
        self.outbox.start()

    def send(self, *words):
        self.words.waiting.extend(words)
        self.outbox.wake()


@pytest.fixture
async def sender():
    made = []

    def make(url):
        made.append(Sender(url))
        return made[-1]

    yield make
    for one in made:
        await one.outbox.drain(0)


def arrived(server):
    return [word.decode() for word in server.do("LRANGE", KEYS[0], 0, -1)]


async def test_batches_arrive_in_order_and_once(redis_server, sender):
    one = sender(redis_server.url)
    one.send(*map(str, range(100)))
    await one.outbox.idle.wait()
    assert arrived(redis_server) == [str(number) for number in range(100)]
    assert one.words.answers == [b"now"] * 100


async def test_a_batch_whose_answer_is_lost_takes_effect_once(redis_server, sender):
    async with Proxy(redis_server.port) as proxy:
        one = sender(proxy.url)
        one.send("a")
        await one.outbox.idle.wait()
        proxy.swallow_answers_after(b"\r\nb\r\n")
        one.send("b", "c")
        await until(lambda: arrived(redis_server) == ["a", "b"])
        proxy.heal()
        proxy.cut()
        async with asyncio.timeout(PATIENCE):
            await one.outbox.idle.wait()
    assert arrived(redis_server) == ["a", "b", "c"]
    assert one.words.answers == [b"now", b"before", b"now"]


async def test_a_batch_in_doubt_is_not_overtaken(redis_server, sender):
    async with Proxy(redis_server.port) as proxy:
        one = sender(proxy.url)
        one.send("a")
        await one.outbox.idle.wait()
        proxy.swallow_answers_after(b"\r\nb\r\n")
        one.send("b")
        await until(lambda: arrived(redis_server) == ["a", "b"])
        meanwhile = asyncio.create_task(one.outbox.once(Batch(KEYS, ("meanwhile",))))
        one.send("c")
        proxy.heal()
        proxy.cut()
        async with asyncio.timeout(PATIENCE):
            await one.outbox.idle.wait()
            assert await meanwhile == b"now"
    assert sorted(arrived(redis_server)) == ["a", "b", "c", "meanwhile"]


async def test_what_redis_has_no_room_for_is_sent_again_and_is_no_outage(redis_server, sender):
    one = sender(redis_server.url)
    one.send("no room", "next")
    await until(lambda: len(one.words.answers) > 3)
    assert one.health.reason is None
    redis_server.do("SET", KEYS[2], 1)
    async with asyncio.timeout(PATIENCE):
        await one.outbox.idle.wait()
    assert arrived(redis_server) == ["no room", "next"]


async def test_draining_hurries_and_leaves_what_can_not_be_sent(redis_server, sender):
    one = sender(redis_server.url)
    one.send("a")
    await one.outbox.idle.wait()
    redis_server.do("ACL", "SETUSER", "default", "-rpush")
    one.send("b")
    await until(lambda: one.health.reason)
    async with asyncio.timeout(PATIENCE):
        await one.outbox.drain(0.2)
    redis_server.do("ACL", "SETUSER", "default", "+rpush")
    assert arrived(redis_server) == ["a"]
    assert not one.outbox.idle.is_set()


async def test_once_raises_and_does_not_come_again(redis_server, sender):
    one = sender(redis_server.url)
    redis_server.do("ACL", "SETUSER", "default", "-rpush")
    with pytest.raises(failures.ResponseError, match=r"can.t run this command|no permission|has no permissions"):
        await one.outbox.once(Batch(KEYS, ("a",)))
    redis_server.do("ACL", "SETUSER", "default", "+rpush")
    one.send("b")
    await one.outbox.idle.wait()
    assert arrived(redis_server) == ["b"]
