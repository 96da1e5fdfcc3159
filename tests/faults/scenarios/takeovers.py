"""Scenarios in which one of two routers is killed and not restarted, so that the other router finishes the work."""

from __future__ import annotations

import time
from typing import Any

from tests.faults.recorder import LIST, STREAM
from tests.faults.registry import scenario
from tests.faults.stage import SINKS, Stage, items, sink, stream


def _taken_over(stage: Stage, kind: int, queue: str, source: dict[str, Any], *, events: int, within: float) -> None:
    stage.serve()
    # The sinks are slow, so that the router that is killed has deliveries in flight.
    for name in SINKS:
        stage.recorder.delay[name] = 0.02
    stage.configure({source["type"]: source}, {name: sink(queue) for name in SINKS})
    first, second = stage.start("one"), stage.start("two")
    stage.flow(kind, events)
    stage.until(lambda: _both_work(stage), "both routers to deliver")
    stage.kill(first)
    began = time.monotonic()
    for flow in stage.flows:
        flow.wait()
    stage.recorder.delay.clear()
    stage.everything()
    seconds = time.monotonic() - began
    stage.figure("time from the kill until the other router had delivered everything", seconds, within)
    may = 1_000 if queue == "memory" and kind == STREAM else 100
    stage.finish(second, faults=1, may_repeat=may, exact_books=queue == "redis")


def _both_work(stage: Stage) -> bool:
    told = [stage.told("one"), stage.told("two")]
    return all(
        one is not None and all(book["delivered"] for book in one["books"]["sinks"].values()) for one in told
    ) and all(one is not None and any(each["in_hand"] for each in one["sinks"].values()) for one in told)


@scenario(
    "Two routers read a stream, with queues in memory. One router is killed with -9 and not restarted",
    "the other router has delivered the entries of the killed router within `claim.idle` + 10 s (15 s + 10 s); lost 0",
)
def taken_over(stage: Stage) -> None:
    source = stream(claim={"idle": stage.of("4s", "15s")}, max_in_flight=100)
    _taken_over(stage, STREAM, "memory", source, events=stage.of(600, 4_000), within=stage.of(14, 25))


@scenario(
    "Two routers read a list, with queues in memory. One router is killed with -9 and not restarted",
    "the other router has delivered the items of the killed router within `lease` + 10 s (15 s + 10 s); lost 0",
    small=False,
)
def taken_over_on_a_list(stage: Stage) -> None:
    source = items(lease=stage.of("3s", "15s"))
    _taken_over(stage, LIST, "memory", source, events=stage.of(600, 4_000), within=stage.of(13, 25))


@scenario(
    "Two routers share queues in Redis. One router is killed with -9 and not restarted",
    "the other router has made the deliveries that the killed router had in flight within 60 s + 10 s; lost 0",
    small=False,
)
def taken_over_in_a_queue(stage: Stage) -> None:
    _taken_over(stage, STREAM, "redis", stream(), events=6_000, within=70)
