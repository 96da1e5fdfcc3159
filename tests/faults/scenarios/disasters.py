"""Scenarios in which Redis is killed, emptied, flushed or paused, or in which its consumer groups are destroyed."""

from __future__ import annotations

import time

from tests.faults.recorder import LIST, PUBSUB, STREAM
from tests.faults.registry import scenario
from tests.faults.scenarios.kills import after
from tests.faults.stage import SINKS, Stage, channels, items, sink, stream

ALL = {"billing": stream(), "jobs": items(), "web-app": channels()}


def up(stage: Stage, *sources: str) -> bool:
    """Return True if the router reports that these sources are subscribed or reading."""
    told = stage.told("one")
    return told is not None and all(told["sources"][name]["up"] for name in sources)


def down(stage: Stage) -> bool:
    """Return True if `/readyz` answers 503: the router is not ready."""
    return stage.readyz()[0] == 503


def mixed(stage: Stage, events: int, rate: float) -> None:
    """Publish to the stream, the list and pub/sub at the same time. `events` and `rate` are those of the stream."""
    stage.flow(STREAM, events, rate=rate)
    stage.flow(LIST, events // 4, rate=rate / 4)
    stage.flow(PUBSUB, events // 4, rate=rate / 4)


@scenario(
    "Redis (AOF, `appendfsync always`) is killed with -9 three times under load, and is down for 10 s each time",
    "stream and list lost 0, repeated under 1 %; all sources are read again within 5 s after each outage, and the router "
    "logs each outage once",
)
def redis_killed(stage: Stage) -> None:
    events, outages = stage.of((1_500, 1), (40_000, 3))
    stage.serve("always")
    stage.configure(ALL)
    router = stage.start()
    mixed(stage, events, 500)
    subscribed = slowest = 0.0
    for outage in range(outages):
        stage.step(f"outage {outage + 1} of {outages}")
        after(stage, STREAM, (outage + 1) / (outages + 2))
        stage.server.kill()
        time.sleep(stage.of(1.0, 10.0))
        stage.server.start()
        opened = time.monotonic()
        subscribed = max(subscribed, stage.until(lambda: up(stage, "web-app"), "the subscription to be back"))
        stage.until(lambda: up(stage, *ALL), "all sources to be up")
        slowest = max(slowest, time.monotonic() - opened)
    stage.step("the rest")
    stage.everything()
    stage.figure("longest time from the opened port of Redis to the new subscription", subscribed, 5)
    stage.figure("longest time from the opened port until all sources were read again", slowest, 5)
    stage.finish(router, faults=outages, may_repeat=events / 100)


@scenario(
    "Redis without persistence is restarted under load, so that it is empty afterwards",
    "every event that is published afterwards is delivered; all sources are read again within 5 s, and the router logs "
    "each loss once",
)
def emptied(stage: Stage) -> None:
    events = stage.of(1_000, 10_000)
    stage.serve("no")
    stage.configure(ALL)
    router = stage.start()
    mixed(stage, events, 400)
    stage.until(lambda: stage.recorder.count("first") > events // 5, "a fifth of the events")
    for flow in stage.flows:
        flow.stop()
    before, stage.flows = stage.flows, []
    stage.server.kill()
    time.sleep(stage.of(0.5, 5.0))
    stage.server.start()
    stage.figure(
        "time until all sources were read again", stage.until(lambda: up(stage, *ALL), "all sources to be up"), 5
    )
    stage.flow(STREAM, events, rate=1_000, first=500_000)
    stage.flow(LIST, events // 4, rate=250, first=500_000)
    stage.flow(PUBSUB, events // 4, rate=250, first=500_000)
    wanted = {flow.kind: set(flow.events) for flow in stage.flows}
    for flow in stage.flows:
        flow.wait()
    stage.until(
        lambda: all(wanted[kind] <= stage.recorder.numbers(name, kind).keys() for kind in wanted for name in SINKS),
        "all that was added afterwards",
    )
    lines = [line for line in router.err.splitlines() if "was deleted; the router creates the group again" in line]
    resets = sum('"source":"billing"' in line for line in lines)
    stage.check(resets == 1, f"the loss of the stream was logged {resets} times")
    gone = sum(len(flow.events) for flow in before) - sum(
        stage.recorder.count("first", kind) - len(wanted[kind]) for kind in wanted
    )
    stage.figure("events published before the restart and never delivered", gone, unit="")
    stage.finish(router, faults=1, exact_books=False, pubsub=True, read_again=True)


@scenario(
    "FLUSHALL after half of the events of a stream were delivered",
    "the group is created again; lost 0, repeated 0; the counters of the books are not reset",
)
def flushed(stage: Stage) -> None:
    events = stage.of(1_000, 5_000)
    stage.serve()
    stage.configure({"billing": stream()})
    router = stage.start()
    stage.flow(STREAM, events)
    stage.everything()
    stage.until(lambda: not stage.pending() and _settled(stage), "everything to be settled")
    stage.server.do("FLUSHALL")
    stage.flow(STREAM, events, first=events)
    stage.everything()
    stage.finish(router, faults=1)


def _settled(stage: Stage) -> bool:
    told = stage.status()
    return all(not book["pending"] for book in told["books"]["sinks"].values())


@scenario(
    "XGROUP DESTROY, once while the router is idle with 1,000 old entries, and then ten times under load",
    "the group is created again; lost 0, repeated 0: the old entries are not delivered again",
)
def destroyed(stage: Stage) -> None:
    events, times = stage.of((2_000, 3), (20_000, 10))
    stage.serve()
    stage.configure({"billing": stream()})
    router = stage.start()
    stage.flow(STREAM, 1_000)
    stage.everything()
    stage.server.do("XGROUP", "DESTROY", "billing", "event-router")
    stage.flow(STREAM, events, rate=1_000, first=1_000)
    for number in range(times):
        stage.step(f"XGROUP DESTROY {number + 1} of {times}")
        after(stage, STREAM, (number + 1) / (times + 2))
        stage.server.do("XGROUP", "DESTROY", "billing", "event-router")
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=times + 1)


@scenario(
    "XGROUP DESTROY ten times under load, with queues in memory, so that an entry is acknowledged only when all its "
    "deliveries are settled",
    "the group is created again; lost 0, repeated 0",
)
def destroyed_in_memory(stage: Stage) -> None:
    events, times = stage.of((2_000, 3), (20_000, 10))
    stage.serve()
    stage.configure({"billing": stream()}, {name: sink("memory") for name in SINKS})
    router = stage.start()
    stage.flow(STREAM, events, rate=1_000)
    for number in range(times):
        stage.step(f"XGROUP DESTROY {number + 1} of {times}")
        after(stage, STREAM, (number + 1) / (times + 2))
        stage.server.do("XGROUP", "DESTROY", "billing", "event-router")
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=times)


@scenario(
    "XGROUP DESTROY ten times under load, about every two seconds. Two routers share the stream",
    "the group is created again; lost 0. Only entries of the seconds before each XGROUP DESTROY are repeated, because a "
    "router does not know which entries the other router had in flight",
)
def destroyed_for_two(stage: Stage) -> None:
    events, times, rate = stage.of((2_000, 2, 500), (20_000, 10, 1_000))
    stage.serve()
    stage.configure({"billing": stream()})
    routers = stage.start("one"), stage.start("two")
    stage.flow(STREAM, events, rate=rate)
    for number in range(times):
        stage.step(f"XGROUP DESTROY {number + 1} of {times}")
        after(stage, STREAM, (number + 1) / (times + 2))
        time.sleep(stage.of(0.5, 1.0))
        stage.server.do("XGROUP", "DESTROY", "billing", "event-router")
    stage.step("the rest")
    stage.everything()
    # The events of two seconds, and the entries that both routers have in flight.
    stage.finish(*routers, faults=times, may_repeat=times * (2 * rate + 2_000), exact_books=False)


@scenario(
    "Redis is stopped (SIGSTOP) for 30 s under load",
    "`/readyz` answers 503 within 10 s, and 200 again within 10 s after Redis continues; then the backlog is delivered; "
    "stream and list lost 0, repeated 0",
)
def paused(stage: Stage) -> None:
    events = stage.of(1_000, 20_000)
    stage.serve()
    stage.configure(ALL)
    router = stage.start()
    mixed(stage, events, 500)
    after(stage, STREAM, 0.2)
    stage.server.pause()
    began = time.monotonic()
    try:
        stage.figure("time until `/readyz` answered 503", stage.until(lambda: down(stage), "/readyz to answer 503"), 10)
        stage.check(stage.readyz()[1]["reasons"], "/readyz gives no reason")
        time.sleep(max(0.0, began + stage.of(0.0, 30.0) - time.monotonic()))
    finally:
        stage.server.resume()
    stage.figure(
        "time from the continuation of Redis until `/readyz` answered 200",
        stage.until(lambda: not down(stage), "/readyz to answer 200"),
        10,
    )
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=1)


@scenario(
    "CLIENT PAUSE 8000 ALL under load: Redis is slow, but not down",
    "no subscription is lost, so there is no gap; lost 0",
)
def asleep(stage: Stage) -> None:
    events = stage.of(1_000, 10_000)
    stage.serve()
    stage.configure(ALL)
    router = stage.start()
    mixed(stage, events, 500)
    after(stage, STREAM, 0.2)
    stage.server.do("CLIENT", "PAUSE", stage.of(3_000, 8_000), "ALL")
    stage.everything()
    gaps = stage.status()["sources"]["web-app"]["gaps"]
    stage.check(gaps == 0 or not stage.full, f"{gaps} gaps in a subscription that was never lost")
    stage.finish(router, faults=1, pubsub=True)
