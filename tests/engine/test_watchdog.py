"""The watchdog at work: what it tells the service manager, what it says of a hang, and what counts as one."""

import asyncio
import time

import pytest
import structlog

from router.broker.groups.group_source import SourceTiming
from router.broker.pubsub.pubsub_source import PubSubSource
from router.broker.server.client import server
from router.broker.server.link import COMMAND, Link
from router.contracts import Sign
from router.core.accounts.liveness import HangDetector
from router.engine.calling.slots import Slots
from router.engine.clock import SystemClock
from router.engine.life.watchdog import Watchdog
from router.errors import TransientError
from tests.support.engine import bench, make_event
from tests.support.lists import list_source
from tests.support.process import NotifySocket
from tests.support.queues import Line
from tests.support.streams import source_of
from tests.support.waiting import block, stays, until


@pytest.fixture
def manager(short_path, monkeypatch):
    listener = NotifySocket(str(short_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    yield listener
    listener.close()


def pings(manager):
    """How often the manager was told, with what was still on its way."""
    manager.catch_up()
    return manager.messages.count("WATCHDOG=1")


class StillClock(SystemClock):
    """A clock by which no time goes by."""

    def monotonic(self):
        return 1000.0


class Part:
    """Something to be watched; `doing` has its signs."""

    def __init__(self):
        self.doing = []

    def signs(self):
        return self.doing


@pytest.fixture
async def watch(manager):
    made = []

    def start(part, timeout=0.15, clock=None):
        made.append(Watchdog(part.signs, clock or SystemClock(), timeout=timeout))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        await one.stop()


async def test_it_tells_while_all_is_well_and_not_while_something_hangs(manager, watch):
    part = Part()
    with structlog.testing.capture_logs() as logs:
        watchdog = watch(part, clock=StillClock())
        await until(lambda: pings(manager) >= 3)
        part.doing = [Sign("source jobs", "a command", 980.0, 10.0)]
        await until(lambda: watchdog.warnings)
        before = pings(manager)
        await stays(lambda: pings(manager) == before, 0.4)
        assert watchdog.warnings == ("source jobs: a command, for 20 s",)
        part.doing = []
        await until(lambda: pings(manager) > before)
        assert watchdog.warnings == ()
    assert [(entry["log_level"], entry["part"]) for entry in logs] == [
        ("error", "source jobs"),
        ("warning", "source jobs"),
    ]
    assert "service manager" in logs[0]["event"]
    assert logs[0]["since"].endswith("Z")


async def test_each_hang_is_said_once(manager, watch):
    part = Part()
    old = time.monotonic() - 20
    with structlog.testing.capture_logs() as logs:
        watchdog = watch(part)
        part.doing = [Sign("one", "a", old, 1.0)]
        await until(lambda: len(watchdog.warnings) == 1)
        part.doing = [Sign("one", "a", old, 1.0), Sign("two", "b", old, 1.0)]
        await until(lambda: len(watchdog.warnings) == 2)
        part.doing = [Sign("two", "b", old, 1.0)]
        await until(lambda: len(watchdog.warnings) == 1)
        await stays(lambda: len(watchdog.warnings) == 1, 0.2)
    assert [(entry["log_level"], entry["part"]) for entry in logs] == [
        ("error", "one"),
        ("error", "two"),
        ("warning", "one"),
    ]


async def test_nobody_who_asks_is_told_nothing_but_a_hang_is_said(manager, watch, monkeypatch):
    monkeypatch.setattr("router.engine.life.watchdog.EVERY", 0.05)
    part = Part()
    part.doing = [Sign("one", "a", time.monotonic() - 20, 1.0)]
    with structlog.testing.capture_logs() as logs:
        watchdog = watch(part, timeout=None)
        await until(lambda: watchdog.warnings)
        part.doing = []
        await until(lambda: not watchdog.warnings)
    assert logs[0]["event"] == "a component of the router hangs"
    assert manager.messages == []


async def test_while_the_event_loop_stands_still_nothing_is_told_and_no_part_is_blamed(manager, watch, clock):
    part = Part()
    part.doing = [Sign("one", "a", clock.monotonic(), 500.0)]
    watchdog = watch(part, clock=clock)
    await until(lambda: pings(manager))
    before = pings(manager)
    block(0.5)
    clock.ahead += 1000  # as long as that
    assert pings(manager) <= before + 1
    await until(lambda: pings(manager) > before + 1)
    assert watchdog.warnings == ()


async def test_a_watchdog_that_can_not_look_tells_nothing(manager):
    def broken():
        raise KeyError("sink")

    watchdog = Watchdog(broken, SystemClock(), timeout=0.1)
    with structlog.testing.capture_logs() as logs:
        watchdog.start()
        await asyncio.wait([watchdog._task])
        assert isinstance(watchdog._task.exception(), KeyError)
        await watchdog.stop()
    assert manager.messages == []
    assert logs[0]["log_level"] == "critical"


async def test_a_link_knows_since_when_a_command_is_under_way(start_server):
    redis = start_server()
    link = Link(server(redis.url))
    assert link.since is None
    before = time.monotonic()
    await link.call("PING")
    assert link.since is None
    blocked = asyncio.create_task(link.call("BLPOP", "nothing", "0"))
    behind = asyncio.create_task(link.call("PING"))
    await until(lambda: link.since is not None)
    assert before <= link.since <= time.monotonic()
    first = link.since
    redis.do("LPUSH", "nothing", "x")
    await blocked
    await behind
    assert link.since is None
    redis.pause()
    hung = asyncio.create_task(link.call("PING"))
    await until(lambda: link.since is not None)
    assert link.since > first
    hung.cancel()
    await asyncio.wait([hung])
    assert link.since is None
    await link.close()


async def test_a_server_that_does_not_answer_or_is_away_is_no_hang(start_server, clock):
    """Each try ends by its own timeout, long before the watchdog would call it a hang."""

    class Nobody:
        def receive(self, source, batches): ...

        def refuse(self, source, batch, reason, detail): ...

    redis = start_server()
    receiver = Nobody()
    sources = [
        PubSubSource("web", redis.url, ["c"], [], receiver=receiver, clock=clock),
        source_of(redis.url, ["s"], receiver, clock, timing=SourceTiming()),
        list_source(redis.url, ["l"], receiver, clock, timing=SourceTiming()),
    ]
    line = Line(redis.url).start()
    for source in sources:
        await source.start()
    running = [asyncio.create_task(source.run()) for source in sources]
    line.put(make_event())
    detector, seen = HangDetector(), set()

    def none_hangs():
        signs = [sign for source in sources for sign in source.signs()]
        signs += [*line.queue.signs(), *line.enqueuer.signs()]
        seen.update(sign.part for sign in signs if sign.since is not None)
        return not detector.check(signs, time.monotonic())

    await stays(none_hangs, 2.0)
    assert {"source web", "source billing", "source in", "queue of s"} <= seen
    redis.pause()
    line.put(make_event())
    await stays(none_hangs, 12.0)
    await until(lambda: not any(source.up for source in sources))
    redis.kill()
    await stays(none_hangs, 4.0)
    redis.start()
    await until(lambda: all(source.up for source in sources))
    for source in sources:
        await source.stop()
        await source.close()
    await asyncio.gather(*running)
    await line.die()


def hangs(one, *, after=0.0):
    return HangDetector().check(one.worker.signs(), time.monotonic() + after)


async def test_a_sink_that_fails_or_is_late_or_waits_does_not_hang():
    async def failing(event, options):
        raise TransientError("no")

    async def late(event, options):
        await asyncio.Event().wait()

    async def deaf(event, options):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if over.is_set():
                    raise
                swallowed.append(event)

    swallowed: list[object] = []
    for sink in (failing, late, deaf):
        over = asyncio.Event()  # of this sink: the next one has to be deaf again
        async with bench(sink, timeout="100ms", breaker={"failures": 2, "reset": "1h"}) as one:
            assert hangs(one, after=1000) == ()  # nothing to do
            one.put(make_event())
            await stays(lambda one=one: hangs(one, after=5) == (), 0.4)
            over.set()
    assert swallowed, "the last one was late, and did not hear that it was to end"


async def test_a_call_that_nobody_ends_hangs(monkeypatch):
    async def late(event, options):
        await asyncio.Event().wait()

    monkeypatch.setattr(Slots, "_check", lambda slots: None)
    async with bench(late, timeout="100ms") as one:
        one.put(make_event())
        (due,) = await until(lambda: [sign.since for sign in one.worker.signs() if sign.since is not None])
        assert HangDetector().check(one.worker.signs(), due + 10) == ()
        (hang,) = HangDetector().check(one.worker.signs(), due + 10.1)
        assert (hang.part, hang.doing) == ("sink s", "a call exceeds its timeout and can't be ended")


async def test_a_worker_that_ended_by_itself_is_told_and_replaced(monkeypatch):
    async def sink(event, options): ...

    async with bench(sink) as one:
        with structlog.testing.capture_logs() as logs:
            monkeypatch.setattr(one.worker.queue, "settle", None)
            one.put(make_event())
            await until(lambda: one.worker.replaced)
        assert logs[0]["log_level"] == "critical"
        assert logs[0]["sink"] == "s"
        assert "exc_info" in logs[0]
        monkeypatch.undo()
        await until(lambda: hangs(one) == ())


async def test_a_queue_whose_task_ended_by_itself_hangs(start_server):
    line = Line(start_server().url).start()
    await until(lambda: line.queue.tasks)
    line.queue.tasks[0].cancel()
    await asyncio.wait(line.queue.tasks[:1])
    assert [(sign.part, sign.ended) for sign in line.queue.signs() if sign.ended] == [("queue of s", True)]
    assert COMMAND in {sign.doing for sign in line.queue.signs()}
    await line.die()
