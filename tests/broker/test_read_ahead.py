"""What a pub/sub source reads ahead of its processing: bounded, in order, drained by a stop, and no way round for a trickle."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing
import uvloop
from msgspec.structs import replace

from router.broker.pubsub.pubsub_source import PubSubSource
from router.broker.pubsub.read_ahead import LEAST
from tests.broker.conftest import QUICK, Recorder
from tests.support.pubsub_peer import CONFIRMED, message, saying
from tests.support.waiting import PATIENCE, block, until

SIZE = 1000
"""Bytes of a payload of `flood`."""

FLOOD = """
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) - 1 do
    redis.call('PUBLISH', ARGV[1], string.format('%08d', number) .. string.rep('x', tonumber(ARGV[4]) - 8))
end
"""


class Slow(Recorder):
    """A receiver that needs more time for a slice than a server needs to send several."""

    def __init__(self, seconds: float = 0.005) -> None:
        super().__init__()
        self._seconds = seconds

    def receive(self, source, batches):
        super().receive(source, batches)
        block(self._seconds)

    @property
    def numbers(self):
        return [int(payload[:8]) for payload in self.payloads]


@pytest.fixture
def slow():
    return Slow()


def flood(server, events, *, first=0, channel="a"):
    """Publish numbered payloads in one go."""
    server.do("EVAL", FLOOD, 0, channel, first, first + events, SIZE)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_the_bound_holds_and_reading_goes_on_below_it(start_server, clock, slow, runner, tls):
    server, limit = start_server("redis", tls=tls), 512 * 1024

    async def scenario():
        url = server.tls_url if tls else server.url
        web = PubSubSource("web", url, ["a"], [], receiver=slow, clock=clock, timing=QUICK, connect_timeout=None)
        web.limit_read_ahead(limit)
        await web.start()
        flood(server, 10_000)
        await until(lambda: len(slow.payloads) == 10_000)
        assert limit <= web.read_ahead.peak <= limit + LEAST
        assert web.read_ahead.size == 0
        assert (web.up, web.gaps) == (True, 0)
        await web.stop()

    runner(scenario())
    assert slow.numbers == list(range(10_000))


def test_a_burst_that_is_published_faster_than_it_is_processed_loses_nothing(start_server, clock, kind):
    server = start_server(kind, options={"client-output-buffer-limit": "pubsub 1mb 0 0"})
    rounds, each = 150, 200

    class Behind(Recorder):
        """While it processes a slice of 64 KiB, 200 KiB more are published."""

        def receive(self, source, batches):
            super().receive(source, batches)
            if self.calls < rounds:
                flood(server, each, first=self.calls * each)

    behind = Behind()

    async def scenario():
        web = PubSubSource("web", server.url, ["a"], [], receiver=behind, clock=clock, connect_timeout=None)
        await web.start()
        flood(server, each)
        await until(lambda: len(behind.payloads) == rounds * each or web.gaps)
        assert web.gaps == 0
        assert web.read_ahead.peak > rounds * each * SIZE / 2
        await web.stop()

    uvloop.run(scenario())
    assert [int(payload[:8]) for payload in behind.payloads] == list(range(rounds * each))


async def test_a_trickle_is_passed_on_without_waiting(redis_server, source, recorder):
    web = source(redis_server.url, ["a"])
    await web.start()
    for number in range(100):
        redis_server.do("PUBLISH", "a", number)
    await until(lambda: len(recorder.payloads) == 100)
    assert web.read_ahead.peak == 0


async def test_stop_unsubscribes_and_passes_on_what_was_read_ahead(redis_server, source, slow):
    web = source(redis_server.url, ["a"], receiver=slow)
    await web.start()
    flood(redis_server, 5_000)
    await until(lambda: web.read_ahead.peak)
    await web.stop()
    assert slow.numbers == list(range(5_000))
    assert redis_server.subscribers("a") == 0
    assert (web.read_ahead.size, web.read_ahead.lost) == (0, 0)


@pytest.mark.parametrize("hurried", [False, True])
async def test_what_the_patience_of_a_stop_does_not_suffice_for_is_counted_and_logged(peer, source, slow, hurried):
    events = 4_000
    peer.say = saying(CONFIRMED)
    once = replace(QUICK, ping_every=1000.0)
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], receiver=slow, timing=once)
    await web.start()
    await until(lambda: peer.pings == 2)  # after its end it can't answer another one
    peer.send(b"".join(message(b"%08d" % number + b"x" * SIZE) for number in range(events)))
    peer.end()
    await until(lambda: web.gaps)  # the source has read everything before it sees the end of the connection
    with structlog.testing.capture_logs() as logs:
        if hurried:
            stopping = asyncio.create_task(web.stop())
            await asyncio.sleep(0)  # it has begun
            await asyncio.gather(web.stop(0), stopping)
        else:
            await web.stop(0)
    assert slow.numbers == list(range(len(slow.payloads)))
    assert 0 < len(slow.payloads) < events
    assert web.read_ahead.lost == events - len(slow.payloads)
    assert web.read_ahead.size == 0
    (lost,) = [line for line in logs if line["log_level"] == "error"]
    assert (lost["number"], lost["reason"]) == (web.read_ahead.lost, "shutdown")


async def test_what_was_read_ahead_outlives_its_connection_and_comes_before_the_next_one(redis_server, source, slow):
    web = source(redis_server.url, ["a"], receiver=slow)
    await web.start()
    flood(redis_server, 20_000)
    await until(lambda: web.read_ahead.peak > 8 * 1024**2)
    redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: web.gaps and web.up)
    assert web.read_ahead.size, "the new subscription does not wait until the old events are processed"
    flood(redis_server, 1, first=10**7)
    await until(lambda: slow.payloads[-1].startswith(b"10000000"))
    *numbers, _ = slow.numbers
    assert numbers == list(range(len(numbers)))
    assert len(numbers) * SIZE > 8 * 1024**2
    assert web.gaps == 1


async def test_the_limit_can_be_changed_under_way(redis_server, source, slow):
    web = source(redis_server.url, ["a"], receiver=slow)
    web.limit_read_ahead(256 * 1024)
    await web.start()
    flood(redis_server, 10_000)
    await until(lambda: web.read_ahead.peak >= 256 * 1024)
    web.limit_read_ahead(2 * 1024**2)
    await until(lambda: web.read_ahead.peak >= 2 * 1024**2)
    web.limit_read_ahead(64 * 1024)
    await until(lambda: len(slow.payloads) == 10_000)
    assert slow.numbers == list(range(10_000))
    assert web.read_ahead.peak <= 2 * 1024**2 + LEAST
    assert (web.up, web.gaps) == (True, 0)


async def test_a_switch_whose_answer_was_read_ahead_happens_although_the_source_leaves(redis_server, source, slow):
    web = source(redis_server.url, ["a", "old"], receiver=slow)
    await web.start()
    await web.prepare(["a", "new"], [])
    flood(redis_server, 3_000)
    await until(lambda: web.read_ahead.peak)
    web.switch()
    await until(lambda: redis_server.subscribers("old") == 0)
    flood(redis_server, 1, first=10**7, channel="new")
    await web.stop()
    assert slow.numbers == [*range(3_000), 10**7]


async def test_several_switches_may_be_under_way(redis_server, source, slow):
    web = source(redis_server.url, ["a", "b", "c"], receiver=slow)
    await web.start()
    flood(redis_server, 5_000)
    await until(lambda: web.read_ahead.peak)
    await web.prepare(["a", "b"], [])
    web.switch()
    await until(lambda: redis_server.subscribers("c") == 0)
    flood(redis_server, 1, first=10**7, channel="b")
    await web.prepare(["a"], [])
    web.switch()
    await until(lambda: redis_server.subscribers("b") == 0)
    flood(redis_server, 1, first=10**7 + 1)
    await until(lambda: len(slow.payloads) >= 5_002)
    assert slow.numbers == [*range(5_000), 10**7, 10**7 + 1]


async def test_garbage_ends_what_was_read_ahead_of_its_connection_only(peer, source, slow):
    peer.say = saying(CONFIRMED)
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], receiver=slow)
    await web.start()
    good = b"".join(message(b"%08d" % number + b"x" * SIZE) for number in range(1_000))
    peer.send(good + b"?what\r\n" + good)
    await until(lambda: web.gaps and web.up, within=PATIENCE)
    peer.send(message(b"%08d" % 10**7))
    await until(lambda: slow.numbers[-1:] == [10**7])
    assert slow.numbers == [*range(1_000), 10**7]
