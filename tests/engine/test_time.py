"""What the clock of the machine may do to waiting deliveries: nothing."""

import json

import pytest

from router.errors import SinkError, TransientError
from tests.support.engine import SetClock, bench, make_event

HOUR, DAY = 3_600.0, 86_400.0


class Failing:
    """A sink that fails each delivery `times` times, and sets the clock each time."""

    def __init__(self, clock, step, error, times=3):
        self.clock = clock
        self.step = step
        self.error = error
        self.times = times
        self.calls = {}

    async def __call__(self, event, options):
        self.calls[event.id] = self.calls.get(event.id, 0) + 1
        if self.calls[event.id] <= self.times:
            self.clock.ahead += self.step
            raise self.error


@pytest.mark.parametrize("step", [-DAY, -HOUR, HOUR, DAY, 400 * DAY])
@pytest.mark.parametrize("keys", [{}, {"order_by": "payload.k"}, {"concurrency": 4}])
@pytest.mark.parametrize("error", [TransientError("not now"), SinkError("HTTP 401")])
async def test_a_clock_that_is_set_exhausts_no_delivery_and_holds_none_back(step, keys, error):
    clock = SetClock()
    sink = Failing(clock, step, error)
    async with bench(sink, clock=clock, retry={"initial": "1ms", "max_delay": "10ms", "max_age": "24h"}, **keys) as at:
        at.put(*[make_event(json.dumps({"k": number % 2}).encode()) for number in range(10)])
        await at.settled()
    assert at.letters.kept == []
    assert at.book.delivered == 10


async def test_age_still_ends_what_keeps_failing():
    clock = SetClock()
    sink = Failing(clock, DAY, TransientError("down"), times=10**6)
    async with bench(sink, clock=clock, retry={"initial": "1ms", "max_delay": "1ms", "max_age": "10m"}) as at:
        at.put(make_event())
        await at.settled()
    (letter,) = at.letters.kept
    assert (letter.reason, letter.attempts) == ("exhausted", 11), "each attempt made it a minute older, and no more"
