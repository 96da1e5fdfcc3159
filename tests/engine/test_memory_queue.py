"""The bounded queue of one sink."""

import asyncio

import pytest

from router.config.models import QueueConfig
from router.core.accounts.books import CHANNELS, OTHER, SinkBook
from router.engine.queues.memory_queue import MemoryQueue
from router.errors import Reason
from router.events import Outcome, size_of
from tests.support.engine import make_event
from tests.support.limits import limits
from tests.support.waiting import PATIENCE


class Now:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def balanced(method):
    """A method of a queue that leaves its own book in balance."""

    def called(self, *arguments, **keys):
        answer = method(self, *arguments, **keys)
        assert self.shared_book.pending == self.events
        return answer

    return called


class Waiting(MemoryQueue):
    """A queue that remembers what it was told to drop, and whose own book is in balance after each call."""

    put = balanced(MemoryQueue.put)
    settle = balanced(MemoryQueue.settle)
    split = balanced(MemoryQueue.split)
    leave = balanced(MemoryQueue.leave)
    close = balanced(MemoryQueue.close)

    def __init__(self, now=None, **config):
        self.book = SinkBook()
        self.told = []
        self.gone = []
        super().__init__(limits(QueueConfig(**config)), now=now or Now(), book=self.book, dropped=self.drop)

    def drop(self, events, channels, reason):
        self.gone += events
        self.book.drop(channels, reason)
        if reason is Reason.FULL:
            self.told.append(len(events))


queue = Waiting


def put(queue, events):
    """Put events; returns those dropped for it."""
    queue.gone.clear()
    queue.put(list(events), size_of(events))
    assert queue.book.accepted == queue.events + queue.book.dropped.total() + queue.book.delivered
    return list(queue.gone)


class Receipt:
    def __init__(self):
        self.settled = []
        self.added = []
        self.came_back = []

    def settle(self, position):
        self.settled.append(position)

    def returned(self, position):
        self.came_back.append(position)

    def add(self, position, deliveries):
        self.added.append((position, deliveries))


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
    waiting.settle(some, size_of(some), Outcome.DELIVERED)
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
    async with asyncio.timeout(PATIENCE):
        assert (await second)[0] == [one]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_two_takers_share_what_is_there():
    waiting = queue()
    takers = [asyncio.create_task(waiting.take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    put(waiting, events(3))
    async with asyncio.timeout(PATIENCE):
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
    waiting.later(one, 1000.0)
    assert waiting.delayed == 1
    assert waiting.due_in() == 1000.0
    assert put(waiting, [other]) == [other]


async def test_retries_come_back_when_they_are_due_in_the_order_they_were_handed_back():
    now = Now()
    waiting, some = queue(now), events(3)
    put(waiting, some)
    await waiting.take(3)
    for one in some:
        waiting.later(one, 0.01)
    now.seconds += 1
    async with asyncio.timeout(PATIENCE):
        back, _ = await waiting.take(3)
    assert back == some
    assert waiting.delayed == 0


async def test_settled_waits_for_everything():
    waiting, some = queue(), events(2)
    put(waiting, some)
    done = asyncio.create_task(waiting.settled())
    await waiting.take(2)
    waiting.settle(some[:1], 2, Outcome.DELIVERED)
    await asyncio.sleep(0)
    assert not done.done()
    waiting.settle(some[1:], 2, Outcome.DEAD_LETTERED, Reason.PERMANENT)
    async with asyncio.timeout(PATIENCE):
        await done


async def test_close_drops_what_is_left_and_counts_it():
    waiting, some = queue(), events(3)
    put(waiting, some)
    await waiting.take(1)
    waiting.later(some[0], 5000.0)
    hand, _ = await waiting.take(1)
    assert waiting.close(hand) == 3
    assert (waiting.events, waiting.bytes) == (0, 0)
    assert waiting.book.dropped == {Reason.SHUTDOWN: 3}
    assert waiting.book.pending == 0


async def test_sources_that_wait_for_it_hear_when_a_delivery_is_over():
    receipt = Receipt()
    waiting, some = queue(), [make_event(_receipt=receipt, _position=n) for n in range(3)]
    put(waiting, some)
    await waiting.take(3)
    waiting.settle(some[:2], 4, Outcome.DELIVERED)
    assert receipt.settled == [0, 1]
    assert waiting.close(some[2:]) == 0
    assert receipt.settled == [0, 1]
    assert waiting.book.dropped == {}


def test_what_another_queue_gets_is_handed_over():
    waiting = queue()
    put(waiting, events(3))
    assert len(waiting.leave(handed_over=True)) == 3
    assert (waiting.events, waiting.shared_book.accepted, waiting.shared_book.handed_over) == (0, 3, 3)


def test_block_drops_nothing_of_a_source_that_can_be_held_back():
    receipt = Receipt()
    waiting = queue(max_events=2)
    assert put(waiting, [make_event(_receipt=receipt, _position=n) for n in range(5)]) == []
    assert waiting.events == 5


@pytest.mark.parametrize("policy", ["drop-newest", "drop-oldest"])
def test_the_other_policies_drop_and_say_so(policy):
    receipt = Receipt()
    waiting = queue(max_events=2, when_full=policy)
    put(waiting, [make_event(_receipt=receipt, _position=n) for n in range(5)])
    assert len(receipt.settled) == 3
    assert waiting.told == [3]


async def test_a_split_delivery_is_handed_over_to_its_parts():
    receipt = Receipt()
    waiting, whole = queue(), make_event(_receipt=receipt, _position=4)
    put(waiting, [whole])
    await waiting.take(1)
    parts = [make_event(_receipt=receipt, _position=4) for _ in range(2)]
    waiting.split(whole, parts)
    assert (receipt.added, receipt.settled) == ([(4, 2)], [4])
    assert (waiting.events, waiting.bytes) == (2, size_of(parts))


def test_drops_are_counted_for_so_many_channels_and_the_rest_together():
    book = SinkBook()
    book.drop([f"c{n}" for n in range(CHANNELS + 5)] + ["c0"], Reason.FULL)
    assert book.dropped == {Reason.FULL: CHANNELS + 6}
    assert book.dropped_by_channel["c0"] == 2
    assert book.dropped_by_channel[OTHER] == 5
    assert len(book.dropped_by_channel) == CHANNELS + 1


async def test_a_source_hears_of_an_attempt_that_came_back_to_be_repeated():
    receipt = Receipt()
    waiting, event = queue(), make_event(_receipt=receipt, _position=4)
    waiting.put([event], 2)
    await waiting.take(1)
    waiting.later(event, 1.0)
    assert (receipt.came_back, receipt.settled) == ([4], [])
    waiting.close([])
