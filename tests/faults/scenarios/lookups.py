"""The scenario in which the store of a lookup fails: only the deliveries that need the lookup wait."""

from __future__ import annotations

import time

from tests.faults.recorder import STREAM
from tests.faults.registry import scenario
from tests.faults.stage import Stage, sink, stream


@scenario(
    "One of three sinks has `attempts: 2` and uses a lookup. The Redis server of the lookup is stopped for 60 s under load",
    "lost 0; one log line when the lookup fails, and one line when the lookup works again; the other two sinks are not "
    "delayed",
)
def lookup_away(stage: Stage) -> None:
    events, rate, seconds = stage.of((3_000, 1_000, 2.0), (15_000, 200, 60.0))
    stage.serve()
    store = stage.store()
    with store.client() as client:
        client.hset("user", mapping={"name": "Jane"})
    needs = sink(retry={"initial": "50ms", "max_delay": "1s", "attempts": 2}, only_if="user.name == 'Jane'")
    sinks = {"first": sink(), "second": needs, "third": sink()}
    # The records are not cached, so every batch of deliveries needs the store.
    lookups = {"user": {"type": "redis-hash", "url": store.url, "key": "user", "ttl": "0s"}}
    stage.configure({"billing": stream()}, sinks, lookups=lookups)
    router = stage.start()
    flow = stage.flow(STREAM, events, rate=rate)
    stage.until(lambda: stage.recorder.count("second") > events // 10, "some deliveries with their record")
    store.stop()
    stopped = time.monotonic()
    before = stage.recorder.count("second")
    stage.until(lambda: not _up(stage), "`status` to report that the lookup fails")
    behind = 0
    while time.monotonic() < stopped + seconds:
        behind = max(behind, *(flow.sent - stage.recorder.count(name) for name in ("first", "third")))
        time.sleep(0.05)
    stage.check(stage.readyz()[0] == 200, "/readyz must answer 200 while a lookup is unavailable")
    stage.check(stage.recorder.count("second") - before < rate, "the sink that needs the lookup delivered without it")
    store.start()
    stage.everything()
    stage.until(lambda: _up(stage), "`status` to report that the lookup works")
    stage.finish(router, faults=1)
    stage.figure("longest delay of the other two sinks", behind / rate, 10)
    said = [line for line in router.err.splitlines() if '"lookup":"user"' in line]
    stage.check(len(said) == 2, f"{len(said)} log lines about the lookup instead of 2: {said[:5]}")


def _up(stage: Stage) -> bool:
    told = stage.told("one")
    return told is not None and bool(told["lookups"]["user"]["up"])
