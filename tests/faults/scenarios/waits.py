"""Scenarios with waiting deliveries: for a `Retry-After`, while clocks are set, and when the router gets SIGTERM."""

from __future__ import annotations

import time
from collections import Counter

from tests.faults.recorder import LATER, OK, REFUSED, STREAM, asks_for
from tests.faults.registry import scenario
from tests.faults.scenarios.kills import IN_HAND
from tests.faults.stage import SINKS, Stage, sink, stream
from tests.support.faketime import Clock, lacking

AT_ONCE = 4
"""The number of simultaneous attempts of a sink (`concurrency`)."""

UNDER_WAY = 0.35
"""The seconds after a response in which a request may arrive that began before the response."""


class Limits:
    """A service that sometimes asks the router to wait, and counts the requests that arrive during the wait.

    The sinks `first` and `second`, and each of five users of the sink `third`, are asked to wait separately. `seconds`
    is the length of a wait. Every `every`-th request starts a wait. `delay` is the time in seconds that a response
    takes.
    """

    def __init__(self, seconds: float, every: int, delay: float) -> None:
        self.windows = 0
        self.early = 0
        """The number of requests that began during a wait: more than `UNDER_WAY` seconds after its beginning."""
        self.again = 0
        """The number of requests for a delivery that the service itself had asked to wait, before its wait was over."""
        self._seconds = seconds
        self._every = every
        self._delay = delay
        self._requests: Counter[str] = Counter()
        self._asked: dict[str, float] = {}
        self._events: dict[tuple[str, int], float] = {}

    def answer(self, name: str, number: int) -> str:
        """Return the response to the request of a sink for an event."""
        now = time.monotonic()
        whose = f"user {number % 5}" if name == "third" else name
        asked = self._asked.get(whose, 0.0)
        self.early += asked + UNDER_WAY < now < asked + self._seconds
        answered = self._events.get((name, number), 0.0)
        self.again += answered < now < answered + self._seconds
        self._requests[whose] += 1
        if self._requests[whose] % self._every or now < asked + self._seconds:
            return OK
        self.windows += 1
        self._asked[whose] = self._events[name, number] = now + self._delay
        return asks_for(self._seconds)

    def killed(self) -> None:
        """Forget the waits that a new router can't know after a kill.

        The killed router may not have stored the last responses in Redis. Deliveries of the sink `second` are made in
        order, so they wait in flight, and their wait is not stored in Redis.
        """
        begun = time.monotonic() - UNDER_WAY
        self._asked.clear()
        self._events = {
            (name, number): answered
            for (name, number), answered in self._events.items()
            if answered < begun and name != "second"
        }


@scenario(
    "A service asks each of three sinks (`concurrency: 4`) twenty times to wait 2 s (`Retry-After`). For one of these sinks, "
    "only the deliveries to one user must wait each time. During that time the router is killed with -9",
    "while a service has asked the router to wait, no request begins. (Requests that arrive in the first 0.35 s of a wait may "
    "have begun before the wait.) Nothing is lost, and no attempt is counted",
)
def asked_for_time(stage: Stage) -> None:
    events, seconds, every, delay = stage.of((300, 1.0, 60, 0.01), (2_000, 2.0, 100, 0.03))
    stage.serve()
    keys = {"concurrency": AT_ONCE, "retry": {"initial": "50ms", "max_delay": "1s", "attempts": 1}}
    sinks = {
        "first": sink(**keys),
        "second": sink(**keys, order_by="payload.n % 7"),
        "third": sink(**keys, to="user {{ payload.n % 5 }}"),
    }
    stage.configure({"billing": stream()}, sinks)
    limits = Limits(seconds, every, delay)
    stage.recorder.answer = limits.answer
    stage.recorder.delay = dict.fromkeys(SINKS, delay)
    router = stage.start()
    stage.flow(STREAM, events)
    stage.until(lambda: stage.recorder.count("first") > events // 2, "half of the events")
    stage.kill(router)
    limits.killed()
    router = stage.start()
    stage.everything()
    stage.finish(router, faults=limits.windows + 1, may_repeat=IN_HAND)
    stage.figure("answers that asked the router to wait", limits.windows, unit="")
    stage.figure("requests that began during a wait", limits.early, 0, unit="")
    stage.figure("deliveries that were retried before their wait was over", limits.again, 0, unit="")
    stage.check(limits.windows > 5, "the service asked only five times or less to wait, so the scenario proves nothing")


@scenario(
    "While 100 retries wait, a clock is set forward by 1 h, back by 1 h and forward by 1 day. After each change, the clock is "
    "corrected again. The scenario changes the clock of the router, then the clock of Redis, then both clocks",
    "no dead letter; after each change all 100 deliveries are retried on time; then every event arrives",
    lacks=lacking,
)
def clocks_set(stage: Stage) -> None:
    events, initial, longest = stage.of((100, "200ms", "500ms"), (100, "2s", "5s"))
    clocks = {name: Clock(stage.folder / f"{name}.time") for name in ("server", "router")}
    stage.env.update({name: clock.env for name, clock in clocks.items()})
    stage.serve()
    keys = {"retry": {"initial": initial, "max_delay": longest, "max_age": "24h"}, "breaker": {"failures": 10**6}}
    stage.configure({"billing": stream()}, {"first": sink(**keys)})
    tried: Counter[int] = Counter()

    def answer(_name: str, number: int) -> str:
        tried[number] += 1
        return LATER

    stage.recorder.answer = answer
    router = stage.start()
    stage.flow(STREAM, events).wait()
    stage.until(lambda: len(tried) == events, "an attempt of each")
    steps = 0
    for of in (["router"], ["server"], ["router", "server"]):
        for offset in ("+1h", "+0", "-1h", "+0", "+1d", "+0"):
            stage.step(f"{' and '.join(of)}: {offset}")
            for name in of:
                clocks[name].set(offset)
            before = tried.copy()
            what = f"a retry of each after the clock of {' and '.join(of)} was set to {offset}"
            stage.until(lambda before=before: all(tried[one] >= before[one] + 2 for one in before), what, 60)
            steps += 1
    told = stage.status()["books"]["sinks"]["first"]
    stage.check(not told["by_reason"]["dead_lettered"], f"{told}")
    stage.recorder.answer = lambda _name, _number: OK
    stage.everything(["first"])
    stage.finish(router, faults=steps, sinks=["first"])
    stage.figure("clock changes", steps, unit="")
    stage.figure("attempts", tried.total(), unit="")


@scenario(
    "SIGTERM while three sinks wait: the first for its rate limit, the second for its breaker (open for five minutes), the "
    "third because its service has asked the router to wait. After the next start, all sinks work",
    "the router ends within 3 s, and nothing is lost or repeated",
)
def stopped_while_waiting(stage: Stage) -> None:
    events, seconds = stage.of((200, 8.0), (2_000, 20.0))
    stage.serve()
    sinks = {
        "first": sink(rate=f"{events // 10}/h"),
        "second": sink(breaker={"reset": "5m"}),
        "third": sink(concurrency=AT_ONCE),
    }
    stage.configure({"billing": stream()}, sinks, shutdown={"drain": "10m"})
    answers = {"first": OK, "second": REFUSED, "third": asks_for(seconds)}
    stage.recorder.answer = lambda name, _number: answers[name]
    router = stage.start()
    stage.flow(STREAM, events).wait()
    stage.until(lambda: stage.recorder.count("first") == events // 10, "the rate to be used up")
    stage.until(lambda: {"second", "third"} <= _waiting(stage), "the two others to wait")
    stage.figure("duration of the shutdown", stage.stop(router), 3)
    stage.configure({"billing": stream()}, {name: sink() for name in SINKS})
    stage.recorder.answer = lambda _name, _number: OK
    router = stage.start()
    stage.everything()
    stage.finish(router, faults=2)


def _waiting(stage: Stage) -> set[str]:
    """Return the sinks that do not deliver, according to the warnings of `/readyz`."""
    return {name for name in SINKS if any(one.startswith(f"sink {name}:") for one in stage.readyz()[1]["warnings"])}
