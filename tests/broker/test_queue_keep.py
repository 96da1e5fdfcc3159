"""What stays in hand for long, for its sink is at fault or others of its key come first, holds up nobody else."""

import time

import pytest

from router.broker.groups import pending
from router.broker.groups.pending import PendingEntries
from router.engine.queues.ordered_queue import Ordered
from router.errors import Reason
from router.events import Outcome
from tests.support.engine import make_event
from tests.support.queues import Line


@pytest.fixture
async def line():
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes).start())
        return made[-1]

    yield make
    for one in made:
        await one.die()


def numbered(*numbers):
    return [make_event(b"%d" % number) for number in numbers]


async def test_what_is_taken_over_and_kept_does_not_stop_new_deliveries(redis_server, line):
    first = line(redis_server.url)
    first.put(*numbered(1, 2, 3))
    await first.take_all(3)
    await first.die()
    again = line(redis_server.url)
    old = await again.take_all(3)
    assert all(again.queue.may_wait(event) for event in old)
    again.put(*numbered(4))
    (new,) = await again.take()
    assert new.raw == b"4"
    again.deliver([new, *old])
    book = await again.refreshed()
    assert (book.delivered, book.pending) == (4, 0)


async def test_a_renewal_ends_although_more_is_read_meanwhile(redis_server, line, monkeypatch):
    one = line(redis_server.url)
    one.put(*numbered(0, 1, 2))
    await one.take_all(3)
    renewed = []
    claim = PendingEntries.claim

    async def slow(entries, ids, **how):
        if ids:
            renewed.extend(ids)
            if len(renewed) < 30:
                one.put(*numbered(3, 4, 5))
                await one.take_all(3)
        return await claim(entries, ids, **how)

    monkeypatch.setattr(pending, "PAGE", 3)
    monkeypatch.setattr(PendingEntries, "claim", slow)
    await one.queue.renewal.catch_up()
    assert len(renewed) == 3


async def test_one_that_must_be_alone_may_not_stay(redis_server, line):
    one = line(redis_server.url)
    one.put(*numbered(1, 2))
    alone, other = await one.take_all(2)
    await one.queue.in_flight.be_alone(alone._receipt)
    assert not one.queue.may_wait(alone)
    assert one.queue.may_wait(other)
    one.queue.later(alone, 0.0)
    (back,) = await one.take()
    assert back.raw == alone.raw
    assert one.queue.may_wait(back)


async def test_lanes_on_a_redis_queue(redis_server, line):
    one = line(redis_server.url)
    lanes = Ordered(one.queue, key=lambda event: "odd" if int(event.raw) % 2 else None, now=time.monotonic)
    one.put(*numbered(1, 2, 3, 4, 5))
    got = []
    while len(got) < 3:
        got += (await lanes.take(5))[0]
    assert [event.raw for event in got] == [b"1", b"2", b"4"]
    lanes.later(got[0], 0.05)
    assert lanes.delayed == 3
    lanes.settle(got[1:], 2, Outcome.DELIVERED)
    ((first,), _) = await lanes.take(5)
    lanes.settle([first], 1, Outcome.DEAD_LETTERED, Reason.PERMANENT)
    for number in (b"3", b"5"):
        ((event,), _) = await lanes.take(5)
        assert event.raw == number
        lanes.settle([event], 1, Outcome.DELIVERED)
    book = await one.refreshed()
    assert (book.delivered, book.dead_lettered, book.pending) == (4, {Reason.PERMANENT: 1}, 0)
    lanes.close([])
