"""Scenarios in which the router gets SIGTERM: under load, while a sink hangs, and a second time."""

from __future__ import annotations

import time

from tests.faults.recorder import LIST, NEVER, OK, PUBSUB, STREAM
from tests.faults.registry import scenario
from tests.faults.scenarios.kills import after
from tests.faults.stage import SINKS, Stage, channels, items, sink, stream
from tests.support.process import Process


@scenario(
    "A stream, a list and pub/sub go to three sinks. SIGTERM ten times under load, with a start after each",
    "lost 0, repeated 0; every pub/sub event that was published while the router was subscribed is delivered",
)
def stopped(stage: Stage) -> None:
    events, stops = stage.of((2_000, 3), (60_000, 10))
    stage.serve()
    stage.configure({"billing": stream(), "jobs": items(), "web-app": channels()})
    router = stage.start()
    stage.flow(STREAM, events, rate=1_000)
    stage.flow(LIST, events // 5, rate=200)
    stage.flow(PUBSUB, events // 5, rate=200)
    slowest = 0.0
    for number in range(stops):
        stage.step(f"SIGTERM {number + 1} of {stops}")
        after(stage, STREAM, (number + 1) / (stops + 2))
        slowest = max(slowest, stage.stop(router))
        router = stage.start()
    stage.step("the rest")
    stage.everything()
    stage.figure("slowest shutdown", slowest, 20)
    stage.finish(router, faults=stops, pubsub=True)


@scenario(
    "A stream and a list go to three sinks with queues in memory. SIGTERM ten times under load, with a start "
    "after each",
    "lost 0, repeated 0",
    small=False,
)
def stopped_in_memory(stage: Stage) -> None:
    events, stops = stage.of((2_000, 3), (40_000, 10))
    stage.serve()
    stage.configure({"billing": stream(), "jobs": items()}, {name: sink("memory") for name in SINKS})
    router = stage.start()
    stage.flow(STREAM, events, rate=1_000)
    stage.flow(LIST, events // 5, rate=200)
    for number in range(stops):
        stage.step(f"SIGTERM {number + 1} of {stops}")
        after(stage, STREAM, (number + 1) / (stops + 2))
        stage.stop(router)
        router = stage.start()
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=stops, exact_books=False)


def _hung(stage: Stage, queue: str, drain: int, events: int) -> Process:
    """Start a router whose second sink hangs. Return the router when the other two sinks have delivered every event."""
    stage.serve()
    sinks = {name: sink(queue, timeout="10m") for name in SINKS}
    stage.configure({"billing": stream(claim={"idle": "20m"})}, sinks, shutdown={"drain": f"{drain}s"})
    stage.recorder.answer = lambda name, _number: NEVER if name == "second" else OK
    router = stage.start()
    stage.flow(STREAM, events).wait()
    stage.until(
        lambda: stage.recorder.count("first") == stage.recorder.count("third") == events, "the two sinks that work"
    )
    return router


def _hanging(stage: Stage, queue: str, events: int, may_repeat: int) -> None:
    drain = stage.of(2, 10)
    router = _hung(stage, queue, drain, events)
    stage.step("SIGTERM")
    router.signal()
    router.wait_for('"draining"')
    began = time.monotonic()
    stage.check(router.wait(300) == 0, "the exit code after SIGTERM is not 0")
    off = time.monotonic() - began - drain
    stage.figure("difference from the drain limit", abs(off), 1)
    stage.recorder.answer = lambda _name, _number: OK
    router = stage.start()
    stage.everything()
    stage.finish(router, faults=1, may_repeat=may_repeat, exact_books=queue == "redis")


@scenario(
    "SIGTERM while one of three sinks hangs. Then the sink works again, and the router is started",
    "the router ends within 1 s of the drain limit; unfinished deliveries are made after the start; nothing is repeated",
)
def hanging(stage: Stage) -> None:
    _hanging(stage, "redis", stage.of(300, 5_000), 0)


@scenario(
    "SIGTERM while one of three sinks hangs, with queues in memory. Then the sink works again, and the router is started",
    "the router ends within 1 s of the drain limit; unfinished deliveries are made after the start. Events that the hanging "
    "sink had not received may go to the other two sinks a second time. These are at most the 1,000 entries in flight",
    small=False,
)
def hanging_in_memory(stage: Stage) -> None:
    _hanging(stage, "memory", 500, 500)


@scenario("A second SIGTERM while a sink hangs", "the router ends within 2 s; after the next start, nothing is lost")
def stopped_twice(stage: Stage) -> None:
    router = _hung(stage, "redis", 60, stage.of(300, 5_000))
    router.signal()
    router.wait_for('"draining"')
    stage.figure("time from the second SIGTERM to the end", stage.stop(router), 2)
    stage.recorder.answer = lambda _name, _number: OK
    router = stage.start()
    stage.everything()
    stage.finish(router, faults=1)
