"""Scenarios in which sinks fail: a sink is down, a service refuses the token, the file of a log is renamed."""

from __future__ import annotations

import time

from tests.faults.recorder import LATER, OK, REFUSED, STREAM
from tests.faults.registry import scenario
from tests.faults.scenarios.kills import IN_HAND
from tests.faults.scenarios.pressure import audited, numbers_in
from tests.faults.stage import Stage, stream


@scenario(
    "One of three sinks is down for 60 s. During that time the router is killed with -9",
    "lost 0; each of the other two sinks gets fewer than 0.1 % of the events twice",
)
def sink_down(stage: Stage) -> None:
    events, seconds = stage.of((2_000, 0.0), (60_000, 60.0))
    stage.serve()
    stage.configure({"billing": stream()})
    router = stage.start()
    began = time.monotonic()
    stage.recorder.answer = lambda name, _number: LATER if name == "second" else OK
    stage.flow(STREAM, events, rate=1_000)
    stage.until(lambda: stage.recorder.count("first") > events // 3, "a third of the events")
    stage.kill(router)
    router = stage.start()
    stage.until(lambda: stage.recorder.count("first") > events // 2, "half of the events")
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    stage.recorder.answer = lambda _name, _number: OK
    stage.everything()
    stage.finish(router, faults=2, may_repeat=events / 1_000 if stage.full else IN_HAND)
    stage.figure(
        "events that one of the other two sinks got twice",
        max(stage.found.repeated[name] for name in ("first", "third")),
        unit="",
    )


@scenario(
    "The token of a sink is refused for 60 s and then accepted again",
    "no delivery of the sink becomes a dead letter, `/readyz` names the sink, every event arrives",
)
def token_refused(stage: Stage) -> None:
    events, seconds = stage.of((1_000, 1.0), (20_000, 60.0))
    stage.serve()
    stage.configure({"billing": stream()})
    stage.recorder.answer = lambda name, _number: REFUSED if name == "second" else OK
    router = stage.start()
    began = time.monotonic()
    stage.flow(STREAM, events, rate=stage.of(1_000, 400))
    stage.until(lambda: stage.recorder.count("first") > 0, "the sinks that work")
    stage.until(lambda: _named(stage), "/readyz to name the sink")
    stage.check(stage.readyz()[0] == 200, "/readyz must answer 200 while a sink fails")
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    stage.recorder.answer = lambda _name, _number: OK
    stage.everything()
    stage.until(lambda: not _named(stage), "/readyz to stop naming the sink")
    stage.finish(router, faults=1)


def _named(stage: Stage) -> bool:
    warnings = stage.readyz()[1]["warnings"]
    return any(warning.startswith("sink second:") and "refused" in warning for warning in warnings)


@scenario(
    "The file of a log sink is renamed thirty times under load",
    "no line is lost or written twice",
)
def rotated(stage: Stage) -> None:
    events, times = stage.of((4_000, 5), (60_000, 30))
    stage.serve()
    stage.configure({"billing": stream()}, {"audit": {"type": "log", "path": "audit.jsonl"}})
    router = stage.start()
    stage.flow(STREAM, events, rate=2_000)
    home = stage.config.parent
    for number in range(times):
        stage.until((home / "audit.jsonl").exists, "the file to be there")
        share = (number + 1) / (times + 2)
        stage.until(lambda share=share: _lines(stage) >= events * share, "lines")
        (home / "audit.jsonl").rename(home / f"audit.jsonl.{number}")
    stage.flows[0].wait()
    stage.until(lambda: _lines(stage) >= events, "all lines")
    stage.until(lambda: not stage.pending(), "all to be acknowledged")
    found = numbers_in(*home.glob("audit.jsonl*"))
    stage.found.delivered["audit"] = len(set(found))
    stage.found.lost["audit"] = len(set(stage.flows[0].events) - set(found))
    stage.found.repeated["audit"] = len(found) - len(set(found))
    stage.check(sorted(found) == list(stage.flows[0].events), f"lines: {stage.found.lost}, {stage.found.repeated}")
    audited(stage, len(found))
    stage.finish(router, faults=times, sinks=[])


def _lines(stage: Stage) -> int:
    return sum(file.read_bytes().count(b"\n") for file in stage.config.parent.glob("audit.jsonl*"))
