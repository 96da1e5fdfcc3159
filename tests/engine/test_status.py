"""What a router's parts look like from outside."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from router.broker.queues.orphans import Orphans, warning
from router.broker.server import client
from router.config.models import PubSubConfig, RedisConfig, StreamConfig
from router.contracts import QueueLimits
from router.core.accounts.books import Books, SinkBook, SourceBook
from router.core.accounts.snapshot import Failure, Fault, LoadStatus
from router.engine.clock import SystemClock
from router.engine.expression_failures import ExpressionFailures
from router.engine.life import watch
from router.engine.life.watch import Watch
from router.errors import PartialError, PermanentError, Reason, SinkError, TransientError
from router.events import Outcome
from tests.support.engine import bench, make_event
from tests.support.waiting import PATIENCE, until

LIMITS = QueueLimits(100, 1000, "drop-newest")


class Queue:
    """A queue that others share; `refresh` is what the test says."""

    durable = True

    def __init__(self, refresh):
        self.reason = None
        self.shared_book = SinkBook()
        self.held = 0
        self.events = 0
        self.delayed = 0
        self.unreadable = 0
        self.limits = LIMITS
        self._refresh = refresh

    async def refresh(self):
        await self._refresh(self)


def parts(queue, *, book=None, writer=None):
    """As much of a router as a watch looks at."""
    worker = SimpleNamespace(
        queue=queue,
        book=book or SinkBook(degraded=1),
        fault=Fault(5.0, "full"),
        in_flight=1,
        breaker_open=True,
        replaced=0,
        next_attempt_in=lambda: 20.0,
        last_failure=Failure(4.0, "full"),
    )
    source = SimpleNamespace(
        up=True,
        reason=None,
        address="redis://a",
        gaps=1,
        gap_seconds=2.0,
        read_ahead=SimpleNamespace(size=5, peak=6, lost=7),
        duplicates=0,
        trimmed=0,
        trimmed_exact=True,
        possibly_repeated=0,
    )
    runtime = SimpleNamespace(
        clock=SystemClock(), instance="default", redis_url="redis://127.0.0.1:1", client_name="event-router:default"
    )
    books = Books({"web": SourceBook(received=1, routed=1)}, {"mail": worker.book})
    shared = SimpleNamespace(
        runtime=runtime, books=books, meters={}, writer=writer, durable=None, failures=ExpressionFailures()
    )
    source_config = StreamConfig(type="stream", streams=["web"])
    loaded = SimpleNamespace(
        config=SimpleNamespace(deliver="send", sources={"web": source_config}, redis=RedisConfig(url="redis://a")),
        path=Path("/etc/event-router/config.yaml"),
        redis_origin="redis.url",
        env_file=None,
    )
    sinks = {"mail": SimpleNamespace(type="email", worker=worker)}
    return SimpleNamespace(
        lookups=SimpleNamespace(lookups={}),
        loaded=loaded,
        shared=shared,
        sources={"web": SimpleNamespace(source=source)},
        sinks=sinks,
        every_sink=lambda: sinks,
    )


def memory_queue(book, events=0, delayed=0):
    """As much of a queue of our own as a watch looks at."""
    return SimpleNamespace(
        durable=False,
        reason=None,
        shared_book=book,
        held=events,
        events=events,
        delayed=delayed,
        unreadable=0,
        limits=LIMITS,
    )


def watching(*args, **how):
    return Watch(parts(*args, **how), SimpleNamespace(last=LoadStatus(1.0)))


async def test_the_book_of_a_shared_queue_is_everybodys_and_of_one_moment():
    async def refresh(queue):
        await asyncio.sleep(0)
        queue.shared_book.accepted, queue.shared_book.delivered, queue.held = 10, 6, 4

    queue = Queue(refresh)
    queue.events = 7
    watch = watching(queue)
    await watch.refresh()
    before = time.time()
    sink = watch.snapshot().sinks["mail"]
    assert (sink.queue, sink.accepted, sink.delivered, sink.pending, sink.waiting) == ("redis", 10, 6, 4, 3)
    assert (sink.difference, sink.in_hand, sink.degraded, sink.breaker_open) == (0, 1, 1, True)
    assert (sink.fault, sink.last_failure) == (Fault(5.0, "full"), Failure(4.0, "full"))
    assert (sink.max_events, sink.when_full) == (100, "drop-newest")
    assert before + 20.0 <= sink.next_attempt <= time.time() + 20.0


async def test_the_book_of_a_memory_queue_is_our_own():
    book = SinkBook(accepted=9)
    book.settle(4, Outcome.DELIVERED)
    book.drop(["a", "b"], Reason.FULL)
    watch = watching(memory_queue(book, events=3, delayed=2), book=book)
    sink = watch.snapshot().sinks["mail"]
    assert (sink.queue, sink.pending, sink.delayed, sink.waiting, sink.difference) == ("memory", 3, 2, 0, 0)
    assert (sink.dropped, sink.dropped_by_channel) == ({"full": 2}, {"a": 1, "b": 1})


async def test_a_queue_that_does_not_answer_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(watch, "REFRESH", 0.05)
    cancelled = []

    async def hang(_queue):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with asyncio.timeout(PATIENCE):
        await watching(Queue(hang)).refresh()
    await until(lambda: cancelled)


async def test_a_queue_that_fails_is_its_own_trouble():
    async def fail(queue):
        queue.shared_book.accepted = 3
        raise OSError("gone")

    watch = watching(Queue(fail))
    await watch.refresh()
    assert watch.snapshot().sinks["mail"].accepted == 3  # it was asked, and what it knows is shown


async def test_a_router_that_writes_nothing_has_no_redis_of_its_own():
    watch = watching(memory_queue(SinkBook()))
    snapshot = watch.snapshot()
    assert snapshot.redis is None
    assert snapshot.reasons == ("the router is starting",)
    watch.phase = "running"
    assert watch.snapshot().ready
    watch.start()
    await watch.close()


async def no_news(_queue):
    pass


async def test_what_waits_for_sinks_that_are_gone_is_told(start_server):
    server = start_server("valkey")
    for sink in ("mail", "old-mail"):
        server.do("XADD", f"{{shop}}:queue:{sink}", "*", "d", "x")
    durability = SimpleNamespace(warnings=("no AOF",), power_cut=("a second",))
    durable = SimpleNamespace(
        durability=durability,
        orphans=lambda served: Orphans(client.server(server.url), prefix="shop", served=served),
    )
    watched = parts(Queue(no_news))
    watched.shared.durable = durable
    watch = Watch(watched, SimpleNamespace(last=LoadStatus(1.0)))
    assert watch.snapshot().orphaned == {}
    watch.start()
    await until(lambda: watch.snapshot().orphaned)
    snapshot = watch.snapshot()
    assert snapshot.orphaned == {"old-mail": 1}
    assert snapshot.notices == ("no AOF", warning("old-mail", 1))
    server.do("XADD", "{shop}:queue:old-mail", "*", "d", "x")
    await watch.refresh()
    assert watch.snapshot().orphaned == {"old-mail": 2}
    watched.sinks["old-mail"] = watched.sinks["mail"]  # as a reload does
    assert watch.snapshot().orphaned == {}
    assert watch.snapshot().notices == ("no AOF",)
    watched.loaded.config.sources["other"] = PubSubConfig(type="pubsub", channels=["c"])
    assert watch.snapshot().notices == ("no AOF", "a second")  # it matters for what nobody else has
    await watch.close()


@pytest.mark.parametrize(
    ("of_writer", "of_queue", "expected"),
    [(None, None, None), ("no room", None, "no room"), (None, "read-only", "read-only")],
)
async def test_redis_is_down_for_whoever_notices_first(of_writer, of_queue, expected):
    queue = Queue(None)
    queue.reason = of_queue
    found = watching(queue, writer=SimpleNamespace(reason=of_writer)).snapshot().redis
    assert (found.address, found.up, found.reason) == ("redis://127.0.0.1:1", expected is None, expected)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TransientError("later"), "transient"),
        (ValueError("accident"), "transient"),
        (PermanentError("never"), "permanent"),
        (SinkError("refused"), "sink_fault"),
        (PartialError({"a@example.org": TransientError("later")}), "partial"),
    ],
)
async def test_attempts_are_counted_by_their_result(error, result):
    async def sink(_event, _options):
        raise error

    async with bench(sink) as tried:
        tried.put(make_event())
        await until(lambda: tried.worker.outcomes.meter.attempts[result])
        assert tried.worker.outcomes.meter.attempts["delivered"] == 0
        assert sum(tried.worker.outcomes.meter.seconds.counts) >= 1


async def test_a_delivery_is_an_attempt_a_call_and_an_age():
    async def sink(_event, _options):
        pass

    async with bench(sink) as tried:
        tried.put(*[make_event() for _ in range(5)])
        await tried.settled()
        meter = tried.worker.outcomes.meter
        assert meter.attempts == {**meter.attempts, "delivered": 5, "transient": 0}
        assert sum(meter.seconds.counts) == 5
        assert sum(meter.ages.counts) == 5
