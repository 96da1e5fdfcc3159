"""The scenario in which the configuration is reloaded many times under load; every second configuration is invalid."""

from __future__ import annotations

import json
import re
import signal
import time

from tests.faults.recorder import LIST, PUBSUB, STREAM
from tests.faults.registry import scenario
from tests.faults.stage import SINKS, Stage, channels, items, sink, stream
from tests.support.process import Process


@scenario(
    "A hundred reloads (SIGHUP), half of them invalid, under load from a stream, a list and pub/sub",
    "lost 0, repeated 0, no gap in pub/sub; each reload sends RELOADING=1 with MONOTONIC_USEC and then READY=1 with a STATUS",
)
def reloaded(stage: Stage) -> None:
    events, reloads = stage.of((2_000, 10), (40_000, 100))
    stage.serve()
    sources = {"billing": stream(), "jobs": items(), "web-app": channels()}
    stage.configure(sources)
    router = stage.start()
    rate = stage.of(500, 1_000)
    stage.flow(STREAM, events, rate=rate)
    stage.flow(LIST, events // 4, rate=rate / 4)
    stage.flow(PUBSUB, events // 4, rate=rate / 4)
    for number in range(reloads):
        stage.step(f"reload {number + 1} of {reloads}")
        valid = number % 2 == 0
        if valid:  # this reload changes the timeout of the sink `third`
            sinks = {name: sink() for name in SINKS}
            sinks["third"]["timeout"] = f"{5 + number % 7}s"
            stage.configure(sources, sinks)
        else:
            broken = json.loads(stage.config.read_text())
            broken["routes"] = [{"id": "all", "sinks": ["nobody"]}]
            stage.config.write_text(json.dumps(broken))
        _reload(stage, router, number, valid=valid)
    stage.step("the rest")
    stage.everything()
    gaps = stage.status()["sources"]["web-app"]["gaps"]
    stage.check(gaps == 0, f"{gaps} gaps in a source that did not change")
    stage.finish(router, faults=reloads, pubsub=True)
    heard = len(stage.flows[2].heard)
    stage.check(heard == len(stage.flows[2].events), f"only {heard} events of pub/sub had a subscriber")


def _reload(stage: Stage, router: Process, number: int, *, valid: bool) -> None:
    """Send SIGHUP, and check the messages that the router sends to the service manager."""
    assert router.notify
    notify = router.notify
    seen = len(notify.messages)
    asked = time.monotonic_ns() // 1000
    router.signal(signal.SIGHUP)

    def answered() -> bool:
        return any("READY=1" in message.splitlines() for message in notify.messages[seen:])

    stage.until(answered, f"READY=1 after reload {number + 1}; {notify.messages[seen:]}")
    lines = [message.splitlines() for message in notify.messages[seen:]]
    begun = next((place for place, message in enumerate(lines) if "RELOADING=1" in message), None)
    ended = next(place for place, message in enumerate(lines) if "READY=1" in message)
    if begun is None or begun >= ended:
        stage.check(False, f"reload {number + 1}: no RELOADING=1 before READY=1: {lines}")
        return
    told = re.search(r"MONOTONIC_USEC=(\d+)", "\n".join(lines[begun]))
    stage.check(told and asked <= int(told[1]), f"reload {number + 1}: RELOADING without its time: {lines[begun]}")
    statuses = [line for message in lines[ended:] for line in message if line.startswith("STATUS=")]
    stage.check(statuses, f"reload {number + 1}: READY=1 without a STATUS")
    judged = stage.status()["config"]["error"]
    stage.check((judged is None) == valid, f"reload {number + 1} ({'valid' if valid else 'invalid'}): {judged}")
