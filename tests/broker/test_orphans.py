"""What waits for sinks that are gone is noticed, said once, and not looked for too often."""

import pytest
import structlog

from router.broker.queues import orphans
from router.broker.queues.orphans import Orphans, warning
from router.broker.queues.queue_admin import QueueAdmin
from router.broker.server import client
from router.errors import UnavailableError
from tests.support.waiting import moment, stays, until

QUEUE = "{event-router}:queue:"


@pytest.fixture
async def watch():
    """Make one: `watch(url, served, **options)`; each is ended after the test."""
    made: list[Orphans] = []

    def make(url, served=(), **options) -> Orphans:
        made.append(Orphans(client.server(url), prefix="event-router", served=lambda: set(served), **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def put(server, sink, number=1):
    for _ in range(number):
        server.do("XADD", f"{QUEUE}{sink}", "*", "d", "x")


async def test_only_queues_that_no_sink_works_off_are_told(redis_server, watch):
    for sink, number in (("ours", 2), ("gone", 3), ("lost", 1)):
        put(redis_server, sink, number)
    redis_server.do("ZADD", "{event-router}:later:gone", 1, "1-0/0 x")
    served = {"ours"}
    one = watch(redis_server.url, served)
    assert one.waiting == {}
    assert await one.look() == {"gone": 4, "lost": 1}
    assert one.warnings == (warning("gone", 4), warning("lost", 1))
    assert "4 deliveries wait in the queue of gone" in one.warnings[0]
    assert "1 delivery waits in the queue of lost" in one.warnings[1]
    served.add("gone")  # a reload brought it back
    assert one.waiting == {"lost": 1}
    served.clear()
    assert one.waiting == {"gone": 4, "lost": 1, "ours": 2}


async def test_it_looks_now_and_then_and_says_what_is_new_once(start_server, watch):
    server = start_server("valkey")
    put(server, "gone")
    one = watch(server.url, every=0.02)
    with structlog.testing.capture_logs() as logs:
        one.start()
        await until(lambda: one.waiting == {"gone": 1})
        put(server, "gone", 4)
        put(server, "other")
        await until(lambda: one.waiting == {"gone": 5, "other": 1})
        server.do("DEL", f"{QUEUE}gone", f"{QUEUE}other")
        await until(lambda: one.waiting == {})
        put(server, "gone", 2)
        await until(lambda: one.waiting == {"gone": 2})
    assert [line["event"] for line in logs] == [warning("gone", 1), warning("other", 1), warning("gone", 2)]
    assert {line["log_level"] for line in logs} == {"warning"}


async def test_it_waits_for_redis_and_gets_over_its_end(start_server, watch):
    server = start_server("valkey")
    put(server, "gone")
    server.kill()
    one = watch(server.url, every=0.05)
    with pytest.raises(UnavailableError):
        await one.look()
    one.start()
    server.start()
    put(server, "gone", 2)
    await until(lambda: one.waiting == {"gone": 2})


async def test_a_large_database_is_looked_through_seldom(start_server, watch, monkeypatch):
    server = start_server("valkey")
    put(server, "gone")
    looks = []

    async def slow(self, *, pause=0.0):
        looks.append(pause)
        await moment(0.05)
        return ["gone"]

    monkeypatch.setattr(QueueAdmin, "names", slow)
    monkeypatch.setattr(orphans, "SHARE", 1000)
    one = watch(server.url, every=0.001)
    one.start()
    await until(lambda: one.waiting)
    await stays(lambda: looks == [orphans.PAUSE], 0.2)  # four looks, if their length did not count
