"""A Redis queue while the clock of its server is set back."""

import pytest

from tests.broker.test_queue import LATER, STREAM, numbered, raws
from tests.support.faketime import Clock, lacking
from tests.support.queues import Line
from tests.support.redis import RedisServer, binary

pytestmark = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@pytest.fixture(params=["redis", "valkey"])
def clock_and_server(request, tmp_path):
    if binary(request.param) is None:
        pytest.skip(f"no {request.param} on this machine")
    clock = Clock(tmp_path / "time")
    server = RedisServer(request.param, tmp_path / "server", env=clock.env).start()
    yield clock, server
    server.kill()


@pytest.fixture
async def line():
    made: list[Line] = []

    def make(url: str, **changes) -> Line:
        made.append(Line(url, **changes).start())
        return made[-1]

    yield make
    for one in made:
        await one.die()


async def test_retries_come_in_their_time_when_the_clock_is_set_back(clock_and_server, line):
    clock, server = clock_and_server
    one = line(server.url)
    one.put(*numbered(30))
    for event in await one.take_all(30):
        one.queue.later(event, 0.5)
    await one.until(lambda: server.do("ZCARD", LATER) == 30)
    clock.set("-1h")
    assert sorted(raws(await one.take_all(30))) == list(range(30))


async def test_what_a_dead_router_had_in_hand_is_taken_over_when_the_clock_was_set_back(clock_and_server, line):
    clock, server = clock_and_server
    dead = line(server.url, consumer="dead")
    dead.put(*numbered(5))
    await dead.take_all(5)
    await dead.die()
    clock.set("-1h")
    two = line(server.url, consumer="two", idle=0.3)
    assert raws(await two.take_all(5)) == list(range(5))
    assert server.do("XPENDING", STREAM, "event-router")["pending"] == 5


async def test_what_is_in_hand_stays_in_hand_when_the_clock_is_set_back(clock_and_server, line):
    clock, server = clock_and_server
    one = line(server.url)
    one.put(*numbered(5))
    taken = await one.take_all(5)
    clock.set("-1h")
    two = line(server.url, consumer="two")
    await two.until(lambda: not two.queue.books.server_time.went_back)
    with server.client() as link:
        assert link.xpending(STREAM, "event-router")["consumers"] == [{"name": b"one", "pending": 5}]
    one.deliver(taken)
    book = await one.refreshed()
    assert (book.delivered, book.pending) == (5, 0)
