"""Scenarios in which the router is killed with -9 several times."""

from __future__ import annotations

import time
from functools import partial

from tests.faults.recorder import LIST, STREAM
from tests.faults.registry import scenario
from tests.faults.stage import DEAD, SINKS, Stage, items, sink, stream
from tests.support.process import Process

IN_HAND = 64
"""The maximum number of deliveries of three sinks with eight workers each that may be repeated after a kill.

These deliveries were in flight, or were settled but not yet reported to Redis.
"""


def after(stage: Stage, kind: int, share: float) -> None:
    """Wait until the first sink has received this share of all events of a kind."""
    wanted = int(share * sum(len(flow.events) for flow in stage.flows if flow.kind == kind))
    stage.until(lambda: stage.recorder.count("first", kind) >= wanted, f"{share:.0%} of the events")


def again(stage: Stage, router: Process) -> tuple[Process, float]:
    """Kill the router and start a new one. Return the new router and the seconds until its first delivery."""
    stage.kill(router)
    before = stage.recorder.total("first")
    began = time.monotonic()
    router = stage.start(wait=False)
    stage.until(lambda: stage.recorder.total("first") > before or not router.running, "the first delivery")
    seconds = time.monotonic() - began
    stage.ready(router)
    return router, seconds


@scenario(
    "A stream goes to three sinks. The router is killed with -9 ten times, and Redis (AOF) twice",
    "lost 0, repeated under 1 %",
)
def killed(stage: Stage) -> None:
    events, kills, outages = stage.of((3_000, 3, 1), (100_000, 10, 2))
    stage.serve("always")
    stage.configure({"billing": stream()})
    router = stage.start()
    stage.flow(STREAM, events, rate=stage.of(1_500, 2_000))
    slowest = 0.0
    for kill in range(kills):
        stage.step(f"kill {kill + 1} of {kills}")
        after(stage, STREAM, (kill + 1) / (kills + 2))
        if kill % (kills // (outages + 1)) == 1:
            stage.server.kill()
            time.sleep(stage.of(0.5, 3.0))
            stage.server.start()
        router, seconds = again(stage, router)
        slowest = max(slowest, seconds)
    stage.step("the rest")
    stage.everything()
    stage.figure("longest time from a start to the first delivery", slowest, 5)
    may = events / 100 if stage.full else IN_HAND * kills
    stage.finish(router, faults=kills + outages, may_repeat=may)


@scenario(
    "A list goes to three sinks. The router is killed with -9 ten times",
    "lost 0; repeated at most the items in flight (100) at each kill",
)
def killed_on_a_list(stage: Stage) -> None:
    events, kills = stage.of((1_500, 3), (30_000, 10))
    stage.serve()
    stage.configure({"jobs": items()})
    router = stage.start()
    stage.flow(LIST, events, rate=stage.of(1_500, 1_000))
    for kill in range(kills):
        stage.step(f"kill {kill + 1} of {kills}")
        after(stage, LIST, (kill + 1) / (kills + 2))
        stage.kill(router)
        router = stage.start()
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=kills, may_repeat=100 * kills)


@scenario(
    "A list goes to two sinks with queues in Redis and one sink with a queue in memory. The router is killed with -9 ten "
    "times",
    "lost 0; each item is queued in Redis exactly once; repeated at most the items in flight (100) at each kill",
)
def killed_on_a_mixed_list(stage: Stage) -> None:
    events, kills = stage.of((1_000, 2), (30_000, 10))
    stage.serve()
    stage.configure({"jobs": items()}, {"first": sink(), "second": sink(), "third": sink("memory")})
    router = stage.start()
    stage.flow(LIST, events, rate=1_000)
    for kill in range(kills):
        stage.step(f"kill {kill + 1} of {kills}")
        after(stage, LIST, (kill + 1) / (kills + 2))
        stage.kill(router)
        router = stage.start()
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=kills, may_repeat=100 * kills, exact_books=False)
    for name in ("first", "second"):
        queued = int(stage.server.do("HGET", f"{{event-router}}:books:{name}", "accepted"))
        stage.check(queued == events, f"{queued} deliveries were queued for {name}")


@scenario(
    "A stream and a list go to three sinks with queues in memory. The router is killed with -9 ten times",
    "lost 0; repeated at most the entries (1,000) and items (100) in flight at each kill",
    small=False,
)
def killed_in_memory(stage: Stage) -> None:
    events, kills = stage.of((2_000, 2), (30_000, 10))
    stage.serve()
    stage.configure({"billing": stream(), "jobs": items()}, {name: sink("memory") for name in SINKS})
    router = stage.start()
    stage.flow(STREAM, events, rate=2_000)
    stage.flow(LIST, events // 5, rate=400)
    for kill in range(kills):
        stage.step(f"kill {kill + 1} of {kills}")
        after(stage, STREAM, (kill + 1) / (kills + 2))
        stage.kill(router)
        router = stage.start()
    stage.step("the rest")
    stage.everything()
    stage.finish(router, faults=kills, may_repeat=1_100 * kills, exact_books=False)


@scenario(
    "A stream at 2,000/s goes to one sink. The router is killed with -9 four times (see also the comparison below)",
    "lost 0; repeated at most 64 per kill",
)
def killed_at_a_rate(stage: Stage) -> None:
    events, kills = stage.of((3_000, 2), (20_000, 4))
    stage.serve()
    stage.configure({"billing": stream()}, {"first": sink()})
    router = stage.start()
    stage.flow(STREAM, events, rate=2_000)
    for kill in range(kills):
        stage.step(f"kill {kill + 1} of {kills}")
        after(stage, STREAM, (kill + 1) / (kills + 2))
        stage.kill(router)
        router = stage.start()
    stage.everything(["first"])
    stage.finish(router, faults=kills, may_repeat=IN_HAND * kills, sinks=["first"])


def _poisoned(stage: Stage, queue: str, kind: int) -> None:
    """Play a scenario in which one event ends the process at each delivery. The router is also killed at other moments.

    With queues in Redis, the poison is found separately for each sink that ends the process. In a small run, only one
    sink ends the process.
    """
    events, deaths = stage.of((200, 0), (1_000, 20))
    deadly = SINKS if stage.full or queue == "memory" else SINKS[1:2]
    dead = len(deadly) if queue == "redis" else 1
    stage.serve()
    source = {"billing": stream()} if kind == STREAM else {"jobs": items()}
    stage.configure(source, {name: sink(queue, deadly=name in deadly) for name in SINKS})
    poison = '{"n": "poison"}'
    stage.flow(kind, events // 2).wait()
    if kind == STREAM:
        stage.server.do("XADD", "billing", f"1700000000000-{events // 2 + 1}", "payload", poison)
        stage.flow(kind, events - events // 2, first=events // 2 + 1).wait()
    else:
        stage.server.do("LPUSH", "jobs", poison)
        stage.flow(kind, events - events // 2, first=events // 2).wait()
    died = 0
    while True:
        stage.step(f"death {died}")
        router = stage.start(wait=False)
        enough = stage.recorder.total("first") + 20 if died < deaths else None
        stage.until(partial(_moves_on, stage, kind, dead, router, enough), "the poison to be found")
        if router.running and died < deaths:
            stage.kill(router)
        elif router.running:
            break
        router.wait()
        stage.killed.add(router)
        died += 1
        if died > 60:
            stage.check(False, "the poison was not found in 60 deaths")
            return
    stage.ready(router)
    stage.everything()
    stage.figure("crashes and kills of the process", died, unit="")
    stage.finish(router, faults=died, may_repeat=150 * died, exact_books=False, dead=dead)
    for _, letter in stage.server.do("XRANGE", DEAD, "-", "+"):
        stage.check(letter[b"reason"] == b"poison", f"a dead letter has the reason {letter[b'reason']!r}, not poison")
        stage.check(letter[b"payload"] == poison.encode(), f"the wrong event became poison: {letter[b'payload']!r}")


def _moves_on(stage: Stage, kind: int, dead: int, router: Process, enough: int | None) -> bool:
    """Return True if the router has ended, has found the poison, or has delivered enough events to be killed."""
    if not router.running or (enough is not None and stage.recorder.total("first") > enough):
        return True
    return stage.arrived(kind) and stage.server.do("XLEN", DEAD) >= dead


@scenario(
    "One event of a stream crashes the process at each delivery. The process is also killed with -9 at other moments. "
    "Queues in memory",
    "this event becomes a dead letter (poison); all other events are delivered; repeated at most 150 per crash or kill",
    small=False,
)
def poisoned(stage: Stage) -> None:
    _poisoned(stage, "memory", STREAM)


@scenario(
    "One event of a stream crashes the process at each delivery. The process is also killed with -9 at other moments. "
    "Queues in Redis",
    "this event becomes a dead letter (poison) for each sink; all other events are delivered; repeated at most 150 per "
    "crash or kill",
)
def poisoned_in_a_queue(stage: Stage) -> None:
    _poisoned(stage, "redis", STREAM)


@scenario(
    "One item of a list crashes the process at each delivery. The process is also killed with -9 at other moments. "
    "Queues in memory",
    "this item becomes a dead letter (poison); all other items are delivered; repeated at most 150 per crash or kill",
    small=False,
)
def poisoned_on_a_list(stage: Stage) -> None:
    _poisoned(stage, "memory", LIST)
