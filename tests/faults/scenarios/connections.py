"""Scenarios in which connections to Redis pass no data, are closed by the server, or are reset repeatedly."""

from __future__ import annotations

import time

from tests.faults.recorder import PUBSUB, STREAM
from tests.faults.registry import scenario
from tests.faults.scenarios.disasters import mixed, up
from tests.faults.scenarios.kills import after
from tests.faults.stage import Stage, channels, cpu, every, items, sink, stream


@scenario(
    "The network path to Redis passes no data for 60 s under load, for sources and queues (half-open connections: no "
    "byte and no reset arrives)",
    "the router notices the fault within 10 s, is subscribed again within 2 s after the path is restored, and reports the "
    "gap; stream and list lost 0, repeated 0",
)
def half_open(stage: Stage) -> None:
    events = stage.of(600, 12_000)
    stage.serve()
    way = stage.proxy()
    stage.configure({"billing": stream(), "jobs": items(), "web-app": channels()}, redis={"url": way.url})
    router = stage.start()
    mixed(stage, events, stage.of(100, 150))
    after(stage, STREAM, 0.1)
    stage.on_proxy(way.blackhole)
    began = time.monotonic()
    before = set(stage.heard())
    noticed = stage.until(lambda: not up(stage, "web-app"), "the dead subscription to be noticed")
    stage.figure("time until the fault was noticed", noticed, 10)
    time.sleep(max(0.0, began + stage.of(0.0, 60.0) - time.monotonic()))
    deaf = time.monotonic() - began
    stage.on_proxy(way.heal)
    back = stage.until(lambda: up(stage, "web-app"), "the subscription to be back")
    stage.figure("time from the restored path to the new subscription", back, 2)
    for flow in stage.flows:
        flow.wait()
    stage.until(lambda: up(stage, "billing", "jobs"), "the others to be up")
    stage.step("the rest")
    stage.everything()
    told = stage.status()["sources"]["web-app"]
    stage.check(told["gaps"] == 1, f"{told['gaps']} gaps were reported, but there was one")
    measured = told["gap_seconds"] > (deaf - 1.5 if stage.full else 0)
    stage.check(measured, f"a gap of {told['gap_seconds']} s was reported, but it lasted {deaf:.1f} s")
    stage.figure("time for which no data passed", deaf)
    stage.figure("length of the reported gap", told["gap_seconds"])
    # The last events before the fault may have been lost on the way to the router.
    early = {number for number in before if number < max(before, default=0) - 50}
    missed = early - stage.recorder.numbers("first", PUBSUB).keys()
    stage.check(not missed, f"{len(missed)} events published before the gap did not arrive")
    stage.finish(router, faults=1)


@scenario(
    "CLIENT KILL of every connection, including subscriptions, thirty times under load",
    "each gap is counted, and the router is subscribed again within 1 s; stream and list lost 0, repeated 0",
)
def client_killed(stage: Stage) -> None:
    kills = stage.of(3, 30)
    stage.serve()
    stage.configure({"billing": stream(), "jobs": items(), "web-app": channels("notification", "orders.*")})
    router = stage.start()
    mixed(stage, stage.of(1_500, 40_000), 500)
    after(stage, STREAM, 0.05)
    slowest = 0.0
    for kill in range(kills):
        stage.step(f"CLIENT KILL {kill + 1} of {kills}")
        # The connections of producers are killed too. Producers try again, and know which events Redis has accepted.
        stage.server.do("CLIENT", "KILL", "TYPE", "pubsub")
        stage.server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        seconds = stage.until(
            lambda kill=kill: stage.status()["sources"]["web-app"]["gaps"] > kill and up(stage, "web-app"),
            "the subscription to be back",
        )
        slowest = max(slowest, seconds)
        subscribed = stage.server.subscribers("notification"), stage.server.do("PUBSUB", "NUMPAT")
        stage.check(subscribed == (1, 1), f"subscribed to {subscribed}")
        time.sleep(stage.of(1.0, 2.0))  # long enough for the connection to count as stable
    stage.figure("longest time to a new subscription", slowest, 1)
    stage.step("the rest")
    stage.everything()
    gaps = stage.status()["sources"]["web-app"]["gaps"]
    stage.check(gaps == kills, f"{gaps} gaps were counted, but there were {kills}")
    stage.finish(router, faults=kills)


@scenario(
    "Every connection to Redis, both for sources and for queues, is reset every 200 ms for 60 s under load",
    "stream and list lost 0, repeated 0; the router reconnects no more often than it is disconnected; CPU under 30 %",
)
def reset(stage: Stage) -> None:
    seconds = stage.of(4.0, 60.0)
    stage.serve()
    ways = stage.proxy(), stage.proxy()
    sources, queues = ways
    url = sources.url
    stage.configure(
        {"billing": stream(url=url), "jobs": items(url=url), "web-app": channels(url=url)}, redis={"url": queues.url}
    )
    router = stage.start()
    mixed(stage, stage.of(1_000, 20_000), 200)
    after(stage, STREAM, 0.05)
    used, began = cpu(router), time.monotonic()
    before = [way.accepted for way in ways]

    def break_them() -> None:
        for way in ways:
            stage.on_proxy(way.reset)

    with every(0.2, break_them):
        time.sleep(seconds)
    took = time.monotonic() - began
    per_second = [(way.accepted - start) / took for way, start in zip(ways, before, strict=True)]
    stage.figure("CPU use of the router during the fault", (cpu(router) - used) / took * 100, 30, unit="%")
    # Sources have 5 connections: one for the subscription, two for the stream, two for the list. Queues have 13
    # connections: two for each queue, one for each source that enqueues, and four more.
    stage.figure("new connections for sources per second", per_second[0], 5 * 5, unit="")
    stage.figure("new connections for queues per second", per_second[1], 5 * 13, unit="")
    stage.step("the rest")
    stage.everything()
    stage.until(lambda: up(stage, "billing", "jobs", "web-app"), "all to be up")
    stage.finish(router, faults=int(took / 0.2))


@scenario(
    "Redis is a read-only replica (READONLY) for 30 s, under load from a stream, a list and pub/sub",
    "fewer than 12 log lines during the fault; stream and list lost 0, repeated 0; the books balance",
)
def read_only(stage: Stage) -> None:
    stage.serve()
    stage.configure({"billing": stream(), "jobs": items(), "web-app": channels()}, {"first": sink()})
    router = stage.start()
    mixed(stage, stage.of(600, 12_000), stage.of(100, 150))
    stage.until(lambda: stage.recorder.count("first", STREAM) > 60, "the first events")
    before = len(router.err.splitlines())
    stage.step("read only")
    stage.server.do("REPLICAOF", "127.0.0.1", "1")
    time.sleep(stage.of(5.0, 30.0))
    stage.server.do("REPLICAOF", "NO", "ONE")
    stage.until(lambda: up(stage, "billing", "jobs", "web-app"), "all sources to be up")
    stage.step("the rest")
    stage.everything(["first"])
    stage.figure("log lines of all levels during the fault", len(router.err.splitlines()) - before, 11, unit="")
    stage.finish(router, faults=1, sinks=["first"])
