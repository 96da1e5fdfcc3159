"""The bounded queue of one sink."""

import asyncio

import pytest

from router.config import QueueConfig
from router.engine.memory_queue import MemoryQueue, size_of
from tests.support.engine import make_event


class Now:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def queue(now=None, **config):
    return MemoryQueue(QueueConfig(**config), now or Now())


def put(queue, events):
    return queue.put(list(events), size_of(events))


def events(number, raw=b"{}"):
    return [make_event(raw) for _ in range(number)]


async def test_what_goes_in_comes_out_in_order_in_batches_of_at_most_so_many():
    waiting, some = queue(), events(10)
    put(waiting, some[:3])
    put(waiting, some[3:])
    taken = []
    while len(taken) < 10:
        batch, size = await waiting.take(4)
        assert 1 <= len(batch) <= 4
        assert size == size_of(batch)
        taken += batch
    assert taken == some
    assert waiting.events == 10
    waiting.settle(10, size_of(some))
    assert (waiting.events, waiting.bytes) == (0, 0)


async def test_small_bundles_are_taken_together():
    waiting, some = queue(), events(5)
    for one in some:
        put(waiting, [one])
    assert (await waiting.take(500))[0] == some


async def test_take_waits_until_there_is_something():
    waiting = queue()
    taker = asyncio.create_task(waiting.take(1))
    await asyncio.sleep(0)
    assert not taker.done()
    one = make_event()
    put(waiting, [one])
    assert (await taker)[0] == [one]


async def test_a_taker_that_is_cancelled_after_its_call_passes_it_on():
    waiting = queue()
    first, second = (asyncio.create_task(waiting.take(1)) for _ in range(2))
    await asyncio.sleep(0)
    one = make_event()
    put(waiting, [one])
    first.cancel()
    async with asyncio.timeout(5):
        assert (await second)[0] == [one]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_two_takers_share_what_is_there():
    waiting = queue()
    takers = [asyncio.create_task(waiting.take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    put(waiting, events(3))
    async with asyncio.timeout(5):
        taken = await asyncio.gather(*takers)
    assert len({batch[0].id for batch, _ in taken}) == 3


@pytest.mark.parametrize("policy", ["block", "drop-newest"])
def test_full_drops_the_newest(policy):
    waiting, some = queue(max_events=3, when_full=policy), events(5)
    assert put(waiting, some[:2]) == []
    assert put(waiting, some[2:]) == some[3:]
    assert waiting.events == 3


async def test_full_drops_the_oldest():
    waiting, some = queue(max_events=3, when_full="drop-oldest"), events(5)
    assert put(waiting, some[:2]) == []
    assert put(waiting, some[2:]) == some[:2]
    assert (await waiting.take(10))[0] == some[2:]


async def test_what_is_in_hand_is_never_dropped_for_something_newer():
    waiting, some = queue(max_events=2, when_full="drop-oldest"), events(3)
    put(waiting, some[:2])
    taken, _ = await waiting.take(2)
    assert taken == some[:2]
    assert put(waiting, some[2:]) == some[2:]


def test_bytes_are_a_bound_of_their_own():
    waiting, some = queue(max_bytes=10), events(4, b"12345")
    assert put(waiting, some) == some[2:]
    assert waiting.bytes == 10
    big = make_event(b"x" * 11)
    assert put(queue(max_bytes=10, when_full="drop-oldest"), [big]) == [big]


async def test_what_waits_for_its_next_attempt_counts_against_the_bound():
    waiting, (one, other) = queue(max_events=1), events(2)
    put(waiting, [one])
    await waiting.take(1)
    waiting.later(one, 2000.0)
    assert waiting.delayed == 1
    assert waiting.next_due() == 2000.0
    assert put(waiting, [other]) == [other]


async def test_retries_come_back_when_they_are_due_in_the_order_they_were_handed_back():
    now = Now()
    waiting, some = queue(now), events(3)
    put(waiting, some)
    await waiting.take(3)
    for one in some:
        waiting.later(one, now.seconds + 0.01)
    now.seconds += 1
    async with asyncio.timeout(5):
        back, _ = await waiting.take(3)
    assert back == some
    assert waiting.delayed == 0


async def test_settled_waits_for_everything():
    waiting, some = queue(), events(2)
    put(waiting, some)
    done = asyncio.create_task(waiting.settled())
    await waiting.take(2)
    waiting.settle(1, 2)
    await asyncio.sleep(0)
    assert not done.done()
    waiting.settle(1, 2)
    async with asyncio.timeout(5):
        await done


async def test_close_gives_back_what_waits():
    waiting, some = queue(), events(3)
    put(waiting, some)
    await waiting.take(1)
    waiting.later(some[0], 5000.0)
    assert waiting.close() == [*some[1:], some[0]]
    assert (waiting.events, waiting.bytes) == (0, 0)
