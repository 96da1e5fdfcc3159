"""The rounds that a router makes through its queues: what they cost at rest, and that one queue harms no other."""

import asyncio

import msgspec
import pytest
import structlog

from router.broker.queues.parts.queue_common import GROUP
from router.broker.queues.parts.queue_rounds import QueueRounds
from router.broker.server import client
from router.core.accounts.records import pack
from router.errors import Reason
from tests.support.engine import make_event
from tests.support.queues import QUICK, Line
from tests.support.waiting import PATIENCE

ASKING = {"info", "config", "hello", "client"}
SINKS = [f"sink-{number}" for number in range(20)]


@pytest.fixture
async def lines(redis_server):
    """Makes the queues of one router, started."""
    made = []

    def make(sinks=SINKS, **timing):
        rounds = QueueRounds(client.server(redis_server.url), GROUP)
        timing = msgspec.structs.replace(QUICK, block=PATIENCE, **timing)
        made.extend(Line(redis_server.url, sink=sink, rounds=rounds, timing=timing).start() for sink in sinks)
        return made

    yield make
    for each in made:
        await each.die()


def calls(server):
    """How often each command was called, but for those of the one who asks."""
    stats = server.do("INFO", "commandstats")
    names = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return {name: number for name, number in names.items() if name.partition("|")[0] not in ASKING}


async def at_rest(server, lines):
    """Wait until all queues are read, with a wait; then count anew."""
    await lines[0].until(lambda: server.do("INFO", "clients")["blocked_clients"] == len(lines))
    for each in lines:
        each.put(make_event(b"1"))
        await each.deliver_all(1)
    await lines[0].until(lambda: all(each.settlement.flushed for each in (line.queue for line in lines)))
    await lines[0].until(lambda: server.do("INFO", "clients")["blocked_clients"] == len(lines))
    await lines[0].until(lambda: all(line.queue.shared_book.delivered == 1 for line in lines))
    server.do("CONFIG", "RESETSTAT")


async def test_queues_at_rest_cost_one_script_a_round_and_two_commands_each(redis_server, lines):
    made = lines(claim=3600.0)
    await at_rest(redis_server, made)
    await made[0].until(lambda: calls(redis_server).get("evalsha", 0) >= 10)
    found = calls(redis_server)
    rounds = found.pop("evalsha")
    for each in ("xlen", "hgetall"):
        assert len(SINKS) * (rounds - 1) <= found.pop(each) <= len(SINKS) * (rounds + 1)
    assert set(found) == {"echo", "time", "exists"}
    assert max(found.values()) <= rounds + 1


async def test_a_key_of_another_type_is_the_trouble_of_one_queue(redis_server, lines):
    redis_server.do("SET", "{event-router}:books:sink-3", "no hash")
    with structlog.testing.capture_logs():
        made = lines()
        await made[3].until(lambda: made[3].queue.reason)
        for each in made[:3] + made[4:]:
            each.put(make_event(b"1"))
            await each.deliver_all(1)
            await each.until(lambda each=each: each.queue.shared_book.delivered == 1)
        assert [each.queue.reason for each in made if each.queue.reason] == [made[3].queue.reason]
        assert "WRONGTYPE" in made[3].queue.reason
        redis_server.do("DEL", "{event-router}:books:sink-3")
        await made[3].until(lambda: made[3].queue.reason is None)


async def test_a_forbidden_key_is_the_trouble_of_one_queue(redis_server, lines):
    redis_server.do("ACL", "SETUSER", "default", "resetkeys", "~*sink-[0-2]", "~*sink-[4-9]", "~*sink-1*", "~*hand*")
    try:
        with structlog.testing.capture_logs():
            made = lines(SINKS[:10])
            await made[3].until(lambda: made[3].queue.reason)
            for each in made[:3] + made[4:]:
                each.put(make_event(b"1"))
                await each.deliver_all(1)
                await each.until(lambda each=each: each.queue.shared_book.delivered == 1)
                assert each.queue.reason is None
    finally:
        redis_server.do("ACL", "SETUSER", "default", "allkeys")


async def test_the_losses_of_two_queues_are_each_ones_own(redis_server, lines):
    made = lines(SINKS[:3])
    for number, each in enumerate(made[1:], 1):
        each.put(*[make_event(b"1") for _ in range(number)])
    await made[0].until(lambda: not any(each.inbox.waiting for each in made))
    await asyncio.gather(*(each.queue.refresh() for each in made))
    with structlog.testing.capture_logs() as logs:
        redis_server.do("FLUSHALL")
        await made[0].until(lambda: [each.queue.shared_book.dropped[Reason.LOST] for each in made] == [0, 1, 2])
    errors = [(entry["sink"], entry["number"]) for entry in logs if entry["log_level"] == "error"]
    assert sorted(errors) == [("sink-1", 1), ("sink-2", 2)]


@pytest.fixture
def no_unblock(redis_server):
    """A server that does not let the router end a read that waits."""
    redis_server.do("ACL", "SETUSER", "default", "-client|unblock")
    yield
    redis_server.do("ACL", "SETUSER", "default", "+client|unblock")


async def test_a_read_that_can_not_be_unblocked_is_hung_up_on_at_an_end(redis_server, lines, no_unblock):
    (one,) = lines(["s"])
    await one.until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == 1)
    async with asyncio.timeout(PATIENCE / 2):  # the read waits for longer
        await one.queue.settled()


READ_BY_A_PEER = """
redis.call('XADD', KEYS[1], '*', 'd', ARGV[1])
redis.call('XREADGROUP', 'GROUP', 'event-router', 'dead', 'STREAMS', KEYS[1], '>')
"""


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_dead_routers_work_ends_a_read_that_waits(redis_server, lines, request, allowed):
    if not allowed:
        request.getfixturevalue("no_unblock")
    (one,) = lines(["s"])
    one.queue.renewal.idle = 0.2
    await one.until(lambda: redis_server.do("INFO", "clients")["blocked_clients"] == 1)
    (record,) = pack([make_event(b"7")], frozenset())
    redis_server.do("EVAL", READ_BY_A_PEER, 1, "{event-router}:queue:s", record)
    assert [event.raw for event in await one.take()] == [b"7"]


async def test_own_retries_wait_for_no_round(redis_server, lines):
    made = lines(SINKS[:3], tick=3600.0)
    for each in made:
        each.put(*[make_event(b"1") for _ in range(150)])
    for each in made:
        for event in await each.take_all(150):
            each.queue.later(event, 0.05)
    for each in made:
        assert len(await each.deliver_all(150)) == 150
