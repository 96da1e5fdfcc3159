"""What a sink's answer asks for is kept to: who is left alone, for how long, and that it costs no attempt."""

import asyncio
import json
import time
from collections import Counter

import pytest

from router.errors import PartialError, PermanentError, TransientError
from router.options import Addresses, SinkOptions
from tests.support.engine import bench, make_event
from tests.support.waiting import moment, until


class To(SinkOptions):
    to: Addresses = Addresses()


TEMPLATE = To(to="{{ payload.to }}")


class Service:
    """A service that answers as `answers` says, by address (`team` where there is none), and keeps when calls began.

    Each answer is a list of errors, raised one after another; then it takes everything.
    """

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []
        self.answered = {}
        self.attempts = Counter()
        self.got = []
        self.late = asyncio.Event()

    async def __call__(self, event, options):
        name = ",".join(options.to) if isinstance(options, To) else "team"
        self.calls.append((name, time.monotonic()))
        self.attempts[event.attempt] += 1
        await moment(0.005)
        errors = self.answers.get(name)
        if errors:
            self.answered.setdefault(name, []).append(time.monotonic())
            raise errors.pop(0)
        self.got.append((event.id, name))

    def began_within(self, name, seconds, at=0):
        """Calls of a name that began within so many seconds after its answer number `at`."""
        answered = self.answered[name][at]
        return [began for of, began in self.calls if of == name and answered < began < answered + seconds]


def to(*addresses, **more):
    return make_event(json.dumps({"to": list(addresses), **more}).encode())


def limited(seconds, **more):
    return TransientError("HTTP 429", retry_after=seconds, **more)


@pytest.mark.parametrize("asked", [1.0, 0, -5, 0.2])
@pytest.mark.parametrize("keys", [{}, {"order_by": "payload.k"}, {"rate": "1000/s"}])
async def test_a_team_is_left_alone_for_a_second_at_least_whatever_the_concurrency(asked, keys):
    service = Service(team=[limited(asked)])
    async with bench(service, concurrency=4, retry={"initial": "1ms", "attempts": 1}, **keys) as at:
        at.put(*[make_event(json.dumps({"k": number % 3}).encode()) for number in range(30)])
        await at.settled()
    assert service.began_within("team", 0.999) == []
    assert (at.book.delivered, at.letters.kept) == (30, [])
    assert service.attempts == {1: 31}


async def test_what_was_being_prepared_when_the_answer_came_is_not_sent():
    """One waits for its rate when another's answer asks for time: it had passed the gate before."""
    service = Service(team=[limited(1)])
    async with bench(service, concurrency=4, rate="2/s") as at:
        at.put(*[make_event() for _ in range(4)])
        await at.settled()
    assert len(service.calls) == 5
    assert [began for began in service.began_within("team", 0.999) if began > service.answered["team"][0]] == []


async def test_an_address_is_left_alone_and_all_others_are_not():
    service = Service(busy=[limited(1), limited(1)])
    async with bench(service, concurrency=4, options=TEMPLATE) as at:
        at.put(*[to("busy") for _ in range(5)], *[to(f"free{number}") for number in range(20)])
        await until(lambda: len([name for _, name in service.got if name != "busy"]) == 20)
        assert service.began_within("busy", 999) == [], "the others have not waited for it"
        await at.settled()
    assert service.began_within("busy", 0.999) == []
    assert service.attempts == {1: 27}
    assert at.book.delivered == 25


async def test_the_whole_sink_is_left_alone_where_the_answer_says_so():
    service = Service(busy=[limited(1, scope="sink")])
    async with bench(service, concurrency=4, options=TEMPLATE) as at:
        at.put(to("busy"), *[to(f"free{number}") for number in range(50)])
        await at.settled()
    answered = service.answered["busy"][0]
    assert [name for name, began in service.calls if answered < began < answered + 0.999] == []
    assert at.book.delivered == 51


async def test_a_plugin_may_ask_for_one_address_of_a_team_alone():
    async def team(event, options):
        calls.append(tuple(options.to))
        if len(calls) == 1:
            raise PartialError({"a": limited(1, scope="address")})

    calls = []
    async with bench(team, options=To(to=["a", "b"])) as at:
        at.put(make_event(), make_event())
        await until(lambda: len(calls) == 2)
        assert calls == [("a", "b"), ("b",)], "the second went to the one that may be reached"
        await at.settled()
    assert Counter(calls) == {("a", "b"): 1, ("b",): 1, ("a",): 2}


async def test_of_several_addresses_those_that_may_be_reached_get_it_now():
    service = Service(busy=[limited(1)])
    async with bench(service, options=TEMPLATE) as at:
        at.put(to("busy"), to("busy", "free"))
        await until(lambda: service.got)
        assert [name for _, name in service.got] == ["free"]
        await at.settled()
    assert sorted(name for _, name in service.got) == ["busy", "busy", "free"]
    assert at.book.pending == 0


async def test_in_a_batch_each_answer_is_heeded_for_itself():
    class Batches:
        def __init__(self, options):
            pass

        async def deliver_batch(self, batch):
            addresses = [options.to[0] for _, options in batch]
            batches.append((time.monotonic(), addresses))
            if len(batches) == 1:
                return [limited(1) if address == "busy" else None for address in addresses]
            return None

    batches = []
    async with bench(Batches, options=TEMPLATE, batch=3, start=False) as at:
        at.put(to("busy"), to("free"), to("free"), to("busy"), to("free"))
        at.worker.start()
        await at.settled()
    called = [addresses for _, addresses in batches]
    assert called[:2] == [["busy", "free", "free"], ["free"]]
    assert [each for addresses in called[2:] for each in addresses] == ["busy", "busy"], (
        "together, or one as soon as it may"
    )
    assert batches[2][0] - batches[0][0] >= 0.999


async def test_keys_in_order_stay_in_order_while_their_address_is_left_alone():
    service = Service(a=[limited(1)])
    async with bench(service, concurrency=4, options=TEMPLATE, order_by="payload.to") as at:
        events = [to("a") for _ in range(5)]
        at.put(*events)
        await at.settled()
    assert [which for which, _ in service.got] == [event.id for event in events]


async def test_answers_that_ask_for_time_open_no_breaker_and_burn_no_attempts():
    service = Service(**{f"u{number}": [limited(0)] for number in range(20)})
    async with bench(service, options=TEMPLATE, breaker={"failures": 2, "reset": "1h"}, retry={"attempts": 1}) as at:
        at.put(*[to(f"u{number}") for number in range(20)])
        await at.settled()
        assert not at.worker.breaker_open
    assert (at.book.delivered, at.letters.kept) == (20, [])


async def test_what_keeps_asking_for_time_is_given_up_by_its_age():
    service = Service(team=[limited(1)] * 9)
    async with bench(service, retry={"initial": "1ms", "max_age": "1500ms"}) as at:
        at.put(make_event())
        await at.settled()
    assert [(letter.reason, letter.attempts) for letter in at.letters.kept] == [("exhausted", 3)]


async def test_the_wait_of_a_message_that_is_refused_holds_nobody_up():
    service = Service(team=[PermanentError("no")])
    async with bench(service) as at:
        at.put(make_event(), make_event())
        await at.settled()
    assert at.book.delivered == 1


class HalfMadeError(TransientError):
    def __init__(self):
        pass


async def test_an_error_of_a_plugin_that_is_only_half_made_is_an_attempt_like_any_other():
    service = Service(team=[HalfMadeError(), HalfMadeError()])
    async with bench(service) as at:
        at.put(make_event())
        await at.settled()
    assert service.attempts == {1: 1, 2: 1, 3: 1}


def test_a_scope_is_one_of_two():
    assert TransientError("x", retry_after=1, scope="address").scope == "address"
    with pytest.raises(ValueError, match="`scope` must be 'sink' or 'address', but it is 'host'"):
        TransientError("x", scope="host")
