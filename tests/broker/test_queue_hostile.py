"""The Redis queue of one sink beside what somebody else wrote into its keys, on real servers."""

from __future__ import annotations

import msgspec
import structlog

from router.broker.queues.parts.queue_common import GROUP
from tests.broker.test_queue import BOOKS, LATER, STREAM, line, numbered, raws
from tests.faults.scenarios.junk import records

__all__ = ["line"]  # a fixture


async def test_records_that_can_not_be_read_stay_pending_are_counted_and_named_once(redis_server, line):
    for record in records(44):
        redis_server.do("XADD", STREAM, "*", "d", record)
    one = line(redis_server.url)
    with structlog.testing.capture_logs() as logs:
        one.put(*numbered(100))
        assert raws(await one.deliver_all(100)) == [*range(100)]
        book = await one.refreshed()
    (said,) = [entry for entry in logs if "can't be read" in entry["event"]]
    assert said["entry"]
    assert said["error"]
    assert (one.queue.unreadable, book.pending, book.delivered) == (44, 44, 100)
    assert redis_server.do("XLEN", STREAM) == redis_server.do("XPENDING", STREAM, GROUP)["pending"] == 44


async def test_members_that_are_no_deliveries_do_not_keep_retries_from_coming_back(redis_server, line):
    for member in (b"", b"nospace", b" ", b"\xff", *records(8)):
        redis_server.do("ZADD", LATER, 1, member)
    redis_server.do("ZADD", LATER, "1e300", "far", "inf", "further")
    one = line(redis_server.url)
    one.put(*numbered(3))
    taken = await one.take_all(3)
    for event in taken:
        one.queue.later(event, 0)
    assert sorted(raws(await one.deliver_all(3))) == [0, 1, 2]
    await one.until(lambda: one.queue.unreadable >= 10)


async def test_what_is_no_count_in_the_books_is_left_out(redis_server, line):
    """A newer router may count an outcome that this one does not know; others may write anything."""
    redis_server.do(
        "HSET", BOOKS, "printed", 0, "dead_lettered:nonsense", 0, "junk", "x", b"\xff", "1e9", "dropped:full", ""
    )
    one = line(redis_server.url)
    one.put(*numbered(10))
    await one.deliver_all(10)
    book = await one.refreshed()
    assert (book.accepted, book.delivered, book.pending, one.queue.reason) == (10, 10, 0, None)


async def test_what_can_not_be_read_and_was_delivered_often_holds_nobody_up(redis_server, line):
    """Routers took it over from each other until its count made it poison: then all others were paused, each time."""
    redis_server.do("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
    for number in range(3):
        redis_server.do("XADD", STREAM, f"1-{number + 1}", "d", msgspec.msgpack.encode([99, "new"]))
        redis_server.do("XREADGROUP", "GROUP", GROUP, "gone", "STREAMS", STREAM, ">")
        redis_server.do("XCLAIM", STREAM, GROUP, "gone", 0, f"1-{number + 1}", "RETRYCOUNT", 50)
    one = line(redis_server.url, idle=0.1)
    one.put(*numbered(5))
    assert raws(await one.deliver_all(5)) == [*range(5)]
    await one.until(lambda: one.queue.unreadable == 3)
    assert one.given_up == []
