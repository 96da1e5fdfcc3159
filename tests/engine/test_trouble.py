"""What a sink's worker does with trouble: breaker, rate, fallback, expiry, order."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from router.core.accounts.books import SinkBook
from router.engine.delivery.sink_health import SinkHealth
from router.engine.queues.ordered_queue import MOST, Ordered
from router.errors import PartialError, PermanentError, Reason, SinkError, TransientError
from router.events import Event, Outcome, size_of
from router.options import Addresses, SinkOptions, Text
from tests.support.engine import bench, make_event
from tests.support.waiting import moment, stays, until


class Service:
    """A sink that answers what `down` says while it is set; keeps what got through, in order."""

    def __init__(self, down=None):
        self.down = down
        self.calls = 0
        self.got = []

    async def __call__(self, event, options):
        self.calls += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down
        self.got.append(event)

    @property
    def ids(self):
        return [event.id for event in self.got]


class Receipt:
    """A source that waits to hear."""

    def __init__(self):
        self.open = 1
        self.back = 0

    def expect(self, position, deliveries):
        raise AssertionError

    def add(self, position, deliveries):
        self.open += deliveries

    def settle(self, position):
        self.open -= 1
        assert self.open >= 0

    def returned(self, position):
        self.back += 1


# The breaker.


async def test_while_the_sink_is_at_fault_nothing_is_lost_nor_out_of_order():
    sink = Service(SinkError("HTTP 401: token revoked"))
    async with bench(sink, retry={"initial": "1ms", "attempts": 1}) as at:
        events = [make_event() for _ in range(20)]
        at.put(*events)
        await until(lambda: sink.calls >= 5)
        assert at.worker.breaker_open
        assert at.worker.fault is not None
        assert at.worker.fault.why == "HTTP 401: token revoked"
        assert at.worker.in_flight == 1
        sink.down = None
        await at.settled()
        assert not at.worker.breaker_open
        assert at.worker.fault is None
    assert sink.ids == [event.id for event in events]
    assert [event.attempt for event in sink.got] == [1] * 20
    assert at.letters.kept == []


async def test_an_open_breaker_makes_no_attempt_until_the_reset():
    sink = Service(SinkError("HTTP 401"))
    async with bench(sink, concurrency=8, breaker={"reset": "1h"}) as at:
        at.put(*[make_event() for _ in range(100)])
        await until(lambda: at.worker.breaker_open)
        calls = sink.calls
        for _ in range(200):
            await asyncio.sleep(0)
        assert sink.calls == calls <= 8
        assert not at.worker.may_settle_within(60)
        assert at.worker.may_settle_within(3601)
        assert await at.worker.close() == 100
        assert at.book.pending == 0


async def test_failures_in_a_row_pause_the_queue_and_burn_no_attempts():
    sink = Service(TransientError("HTTP 503"))
    async with bench(sink, breaker={"failures": 5, "reset": "1h"}) as at:
        at.put(*[make_event() for _ in range(50)])
        await until(lambda: at.worker.breaker_open)
        for _ in range(200):
            await asyncio.sleep(0)
        assert sink.calls == 5


async def test_a_sink_that_comes_back_gets_everything():
    sink = Service(TransientError("refused"))
    async with bench(sink, concurrency=4, breaker={"failures": 3, "reset": "10ms"}) as at:
        events = [make_event() for _ in range(100)]
        at.put(*events)
        await until(lambda: sink.calls > 10)
        sink.down = None
        await at.settled()
    assert sorted(sink.ids) == sorted(event.id for event in events)
    assert at.book.delivered == 100
    assert at.letters.kept == []


async def test_permanent_failures_open_nothing():
    sink = Service(PermanentError("no such user"))
    async with bench(sink, breaker={"failures": 1, "reset": "1h"}) as at:
        at.put(*[make_event() for _ in range(20)])
        await at.settled()
    assert at.book.dead_lettered == {Reason.PERMANENT: 20}


async def test_a_probe_with_a_bad_message_does_not_hold_up_the_next():
    answers = [SinkError("401"), PermanentError("no"), PermanentError("no"), None]

    async def sink(event, options):
        answer = answers.pop(0) if answers else None
        if answer:
            raise answer

    async with bench(sink) as at:
        at.put(*[make_event() for _ in range(6)])
        await at.settled()
        assert not at.worker.breaker_open
    assert (at.book.delivered, at.book.dead_lettered) == (4, {Reason.PERMANENT: 2})


async def test_what_is_suppressed_gives_the_probe_to_the_next():
    class To(SinkOptions):
        to: Addresses = Addresses()
        text: Text = Text()

    sink = Service(SinkError("401"))
    async with bench(sink, options=To(to="{{ payload.to | default('') }}", text="x"), concurrency=2) as at:
        at.put(make_event(b'{"to": "1"}'))
        await until(lambda: sink.calls > 1)
        at.put(*[make_event(b"{}") for _ in range(20)], make_event(b'{"to": "2"}'))
        await until(lambda: at.book.suppressed.total() > 0)
        sink.down = None
        await at.settled()
    assert at.book.suppressed == {Reason.NO_ADDRESS: 20}
    assert at.book.delivered == 2


async def test_age_alone_ends_it_while_the_sink_is_at_fault():
    sink = Service(SinkError("401"))
    async with bench(sink, retry={"initial": "1ms", "max_age": "50ms", "attempts": 1}) as at:
        at.put(make_event())
        await at.settled()
    (letter,) = at.letters.kept
    assert (letter.reason, letter.detail) == ("exhausted", "401")
    assert letter.attempts == sink.calls > 1


class Batches:
    def __init__(self, options):
        self.batches = []
        self.answers = []
        type(self).made = self

    async def deliver_batch(self, batch):
        self.batches.append([event.id for event, _ in batch])
        answer = self.answers.pop(0) if self.answers else None
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_what_is_at_fault_in_a_batch_stays_what_was_delivered_of_it_does_not():
    async with bench(Batches, batch=3, start=False) as at:
        fault = SinkError("401")
        Batches.made.answers = [[None, fault, PermanentError("no")], fault]
        events = [make_event() for _ in range(5)]
        at.put(*events)
        at.worker.start()
        await at.settled()
        ids = [event.id for event in events]
        assert Batches.made.batches == [ids[:3], [ids[1]], [ids[1]], ids[3:]]
    assert (at.book.delivered, at.book.dead_lettered) == (4, {Reason.PERMANENT: 1})


async def test_the_probe_is_one_delivery_and_the_others_of_its_batch_follow_in_order():
    async with bench(Batches, batch=3, start=False) as at:
        Batches.made.answers = [SinkError("401")] * 3
        events = [make_event() for _ in range(5)]
        at.put(*events)
        at.worker.start()
        await at.settled()
        ids = [event.id for event in events]
        assert Batches.made.batches == [ids[:3], ids[:1], ids[:1], ids[:1], ids[1:3], ids[3:]]
    assert at.book.delivered == 5


async def test_while_a_sink_is_down_only_its_probes_count_attempts():
    async with bench(Batches, batch=10, start=False, breaker={"failures": 1, "reset": "5ms"}) as at:
        Batches.made.answers = [TransientError("refused")] * 8
        at.put(*[make_event() for _ in range(100)])
        at.worker.start()
        await until(lambda: not Batches.made.answers)
        calls = Batches.made.batches[:8]
        assert [len(batch) for batch in calls] == [10, *[1] * 7]
        await at.settled()
    failed = Counter(id_ for batch in calls for id_ in batch)
    reached = Counter(id_ for batch in Batches.made.batches[8:] for id_ in batch)
    assert failed.total() == 17
    assert len(reached) == reached.total() == at.book.delivered == 100


@pytest.mark.parametrize("end", ["retire", "close"])
async def test_what_waits_beside_a_probe_is_not_forgotten_when_the_worker_ends(end):
    asked, answers = asyncio.Event(), asyncio.Event()

    async def slow():
        asked.set()
        await answers.wait()
        return SinkError("401")

    async with bench(Batches, batch=4, start=False) as at:
        Batches.made.answers = [SinkError("401"), slow]
        given = [make_event() for _ in range(6)]
        at.put(*given)
        at.worker.start()
        await asked.wait()
        assert at.worker.in_flight == 4
        if end == "close":
            assert await at.worker.close() == 6
        else:
            retiring = asyncio.create_task(at.worker.retire())
            answers.set()
            await retiring
            events, _ = await at.worker.queue.take(10)
            assert [event.id for event in events] == [event.id for event in given]
            assert at.worker.queue.events == 6
    assert at.book.delivered == 0


async def test_what_waits_beside_a_probe_that_never_ends_is_delivered_by_another_slot():
    released = asyncio.Event()

    async def stubborn():
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with bench(Batches, batch=4, start=False, timeout="50ms") as at:
        Batches.made.answers = [SinkError("401"), stubborn]
        events = [make_event() for _ in range(6)]
        at.put(*events)
        at.worker.start()
        await at.settled()
        ids = [event.id for event in events]
        assert Batches.made.batches[:2] == [ids[:4], ids[:1]]
        assert at.book.delivered == 6
        released.set()
        await asyncio.sleep(0)
    assert at.book.delivered == 6


async def test_a_source_hears_that_a_held_attempt_came_back():
    sink, receipt = Service(SinkError("401")), Receipt()
    async with bench(sink) as at:
        at.put(make_event(_receipt=receipt))
        await until(lambda: receipt.back >= 2)
        sink.down = None
        await at.settled()
    assert receipt.open == 0


async def test_an_opener_that_is_left_behind_is_replaced():
    release, opened = asyncio.Event(), []

    class Stubborn:
        def __init__(self, options):
            pass

        async def open(self, context):
            opened.append(1)
            while len(opened) == 1 and not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        async def deliver(self, event, options):
            pass

    async with bench(Stubborn, timeout="50ms", concurrency=3) as at:
        at.put(*[make_event() for _ in range(9)])
        await at.settled()
        release.set()
    assert at.book.delivered == 9
    assert len(opened) == 2


# What is said of it.


class Hands:
    """A clock that is moved by hand."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


async def test_it_is_said_when_the_breaker_opens_and_when_it_closes():
    sink = Service(SinkError("HTTP 401: invalid_auth"))
    with capture_logs() as lines:
        async with bench(sink) as at:
            at.put(*[make_event() for _ in range(30)])
            await until(lambda: sink.calls >= 5)
            sink.down = None
            await at.settled()
    said = [line for line in lines if line["log_level"] in {"warning", "error", "info"}]
    assert [line["log_level"] for line in said] == ["error", "info"]
    assert said[0]["error"] == "HTTP 401: invalid_auth"
    assert said[0]["waiting"] == 30
    assert "credential" in said[0]["cure"]
    assert said[1]["event"] == "the sink delivers again"
    assert said[1]["times"] == 1


class Lines:
    def __init__(self):
        self.said = []

    def __getattr__(self, level):
        return lambda message, **fields: self.said.append((level, message, fields.get("error")))


def test_alike_errors_are_one_and_others_wait_a_second():
    lines, clock = Lines(), Hands()
    trouble = SinkHealth(lines, clock)
    for number in range(1000):
        trouble.happened("delivery failed", f"HTTP 503: request 7f3a9c2{number:04x}-1 took {number} ms")
    assert len(lines.said) == 1
    for number in range(1000):
        clock.at += 0.01
        trouble.happened("delivery failed", "refused" if number % 2 else "timed out")
    assert len(lines.said) <= 1 + 11
    assert trouble.fault is not None
    assert trouble.fault.since == 1000.0
    trouble.ended("the sink delivers again")
    assert lines.said[-1][:2] == ("info", "the sink delivers again")
    before = len(lines.said)
    for _ in range(1000):  # it fails and works by turns
        trouble.happened("delivery failed", "refused")
        trouble.ended("the sink delivers again")
    assert len(lines.said) <= before + 2
    assert trouble.fault is None


# Rate.


async def test_a_rate_lets_so_many_through_in_a_time_and_counts_no_attempt():
    times = []

    async def sink(event, options):
        times.append((asyncio.get_running_loop().time(), event.attempt))

    began = asyncio.get_running_loop().time()
    async with bench(sink, concurrency=8, rate="1/s", timeout="2s") as at:
        at.put(*[make_event() for _ in range(5)])  # the last waits for longer than an attempt may take
        await at.settled()
    for number, stamp in enumerate(sorted(at for at, _ in times)):
        assert stamp - began >= 0.99 * number
    assert {attempt for _, attempt in times} == {1}
    assert at.book.delivered == 5


async def test_what_waits_for_its_turn_is_not_in_a_call():
    sink = Service()
    async with bench(sink, concurrency=4, rate="10/h") as at:
        at.put(*[make_event() for _ in range(50)])
        await until(lambda: sink.calls == 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert sink.calls == 10
        assert await at.worker.close() == 40


async def test_a_batch_is_no_larger_than_the_rate_allows():
    async with bench(Batches, rate="3/h", start=False) as at:
        at.put(*[make_event() for _ in range(10)])
        at.worker.start()
        await until(lambda: Batches.made.batches)
        assert [len(batch) for batch in Batches.made.batches] == [3]


# Fallback.


class Other:
    """The other sink, as far as the first one sees it."""

    def __init__(self, *names):
        self.names = names or ("b",)
        self.got = []

    def hand_over(self, sink: str, event: Event) -> None:
        if sink not in self.names:
            raise KeyError(sink)
        self.got.append((sink, event))


@pytest.mark.parametrize(
    ("error", "retry"),
    [(PermanentError("no"), {}), (TransientError("down"), {"attempts": 2}), (ValueError("bug"), {"attempts": 1})],
)
async def test_what_is_given_up_goes_to_the_fallback_as_new(error, retry):
    other = Other()
    async with bench(
        Service(error), fallback=["b"], hand_over=other.hand_over, retry={"initial": "1ms", **retry}
    ) as at:
        event = make_event(b'{"a": 1}')
        at.put(event)
        await at.settled()
    ((name, fresh),) = other.got
    assert (name, fresh.sink, fresh.route, fresh.attempt, fresh._history) == ("b", "b", "r", 1, None)
    assert fresh._fallback
    assert fresh.key == f"{event.id}:r:b"
    assert fresh.raw == event.raw
    assert at.letters.kept == []
    assert (at.book.handed_over, at.book.pending) == (1, 0)


async def test_every_fallback_gets_it():
    other = Other("b", "c")
    async with bench(Service(PermanentError("no")), fallback=["b", "c"], hand_over=other.hand_over) as at:
        at.put(make_event())
        await at.settled()
    assert [name for name, _ in other.got] == ["b", "c"]
    assert at.book.handed_over == 1


async def test_a_fallback_that_is_gone_leaves_a_dead_letter():
    other = Other("c")
    async with bench(Service(PermanentError("no")), fallback=["b"], hand_over=other.hand_over) as at:
        at.put(make_event())
        await at.settled()
    assert [letter.reason for letter in at.letters.kept] == ["permanent"]
    assert at.book.handed_over == 0


async def test_an_address_that_gave_up_is_handed_over_by_itself():
    class To(SinkOptions):
        to: Addresses = Addresses()

    other = Other()

    async def sink(event, options):
        if event.address is None:
            raise PartialError({"b": PermanentError("no"), "c": TransientError("later")})

    async with bench(sink, options=To(to=["a", "b", "c"]), fallback=["b"], hand_over=other.hand_over) as at:
        at.put(make_event())
        await at.settled()
    assert [event.address for _, event in other.got] == [None]
    assert (at.book.accepted, at.book.handed_over, at.book.delivered, at.book.pending) == (3, 2, 1, 0)


async def test_a_source_waits_for_the_fallbacks_too():
    receipt, other = Receipt(), Other("b", "c")
    async with bench(Service(PermanentError("no")), fallback=["b", "c"], hand_over=other.hand_over) as at:
        at.put(make_event(_receipt=receipt, _position=3))
        await until(lambda: len(other.got) == 2)
        first, second = (event for _, event in other.got)
        assert (receipt.open, at.book.pending) == (1, 1)
        first._receipt.add(first._position, 1)  # it is split
        for _ in range(2):
            first._receipt.settle(first._position)
        assert receipt.open == 1
        second._receipt.settle(second._position)
        await at.settled()
    assert (receipt.open, at.book.handed_over, at.book.pending) == (0, 1, 0)


async def test_a_chain_of_sinks_ends_in_a_dead_letter_of_the_last():
    receipt = Receipt()
    async with bench(Service(PermanentError("b says no")), name="b") as second:

        def hand_over(sink: str, event: Event) -> None:
            second.worker.queue.put([event], size_of([event]))

        async with bench(Service(PermanentError("a says no")), fallback=["b"], hand_over=hand_over) as first:
            first.put(make_event(_receipt=receipt))
            await until(lambda: second.letters.kept)
            (letter,) = second.letters.kept
            assert (letter.sink, letter.detail) == ("b", "b says no")
            assert receipt.open == 1
            letter.written()
            assert receipt.open == 0
            assert (first.book.handed_over, second.book.dead_lettered.total()) == (1, 1)


async def test_a_fallback_whose_queue_drops_at_once_ends_a_delivery_once():
    receipt = Receipt()

    def full(_name: str, event: Event) -> None:
        assert receipt.open == 1  # the whole delivery is not over while another fallback may still get it
        event._receipt.settle(event._position)

    async with bench(Service(PermanentError("no")), fallback=["b", "c"], hand_over=full) as at:
        at.put(make_event(_receipt=receipt))
        await at.settled()
        assert (receipt.open, at.book.handed_over) == (0, 1)


async def test_a_fallback_in_memory_retries_what_a_source_waits_for():
    receipt, sink = Receipt(), Service(TransientError("later"))
    async with bench(sink, name="b") as second:

        def hand_over(name: str, event: Event) -> None:
            second.worker.queue.put([event], size_of([event]))

        async with bench(Service(PermanentError("no")), fallback=["b"], hand_over=hand_over) as first:
            first.put(make_event(_receipt=receipt))
            await until(lambda: sink.calls > 1)
            assert (receipt.open, second.worker.replaced) == (1, 0)
            sink.down = None
            await second.settled()
    assert (receipt.open, len(sink.got)) == (0, 1)


async def test_what_is_suppressed_or_expired_is_not_handed_over():
    class To(SinkOptions):
        to: Addresses = Addresses()

    other = Other()
    async with bench(
        Service(),
        options=To(to="{{ payload.to | default('') }}"),
        fallback=["b"],
        hand_over=other.hand_over,
        expires={"r": 3600.0, "late": 1.0},
    ) as at:
        at.put(make_event(received_at=datetime.now(UTC)), make_event(b'{"to": "x"}', route="late"))
        await at.settled()
    assert other.got == []
    assert at.book.suppressed == {Reason.NO_ADDRESS: 1}
    assert at.book.dead_lettered == {Reason.EXPIRED: 1}


# Expiry.


async def test_what_comes_too_late_is_a_dead_letter_and_the_rest_is_not():
    sink = Service()
    async with bench(Batches, batch=10, expires={"r": 60.0}, start=False) as at:
        now = datetime.now(UTC)
        fresh = make_event(received_at=now)
        late = make_event(received_at=now - timedelta(seconds=61))
        elsewhere = make_event(route="other")
        at.put(late, fresh, elsewhere)
        at.worker.start()
        await at.settled()
        assert Batches.made.batches == [[fresh.id, elsewhere.id]]
    (letter,) = at.letters.kept
    assert (letter.reason, letter.event_id, letter.attempts) == ("expired", late.id, 0)
    assert letter.detail.startswith("the delivery expired at ")
    assert sink.calls == 0


async def test_it_is_looked_at_again_before_each_attempt():
    sink = Service(TransientError("down"))
    async with bench(sink, expires={"r": 0.1}, breaker={"failures": 10_000}) as at:
        at.put(make_event(received_at=datetime.now(UTC)))
        await at.settled()
    (letter,) = at.letters.kept
    assert letter.reason == "expired"
    assert letter.attempts == sink.calls > 1


async def test_a_template_says_until_when():
    sink = Service()
    async with bench(sink, expires={"r": "{{ payload.until }}"}) as at:
        good = make_event(b'{"until": "2999-01-01T00:00:00Z"}')
        at.put(
            make_event(b'{"until": "2001-01-01T00:00:00Z"}'), good, make_event(b"{}"), make_event(b'{"until": "soon"}')
        )
        await at.settled()
    assert sink.ids == [good.id]
    assert Counter(letter.reason for letter in at.letters.kept) == {"expired": 1, "template": 2}


# Order.


def keyed(key, number, **fields):
    return make_event(json.dumps({"k": key, "n": number}).encode(), **fields)


async def test_equal_keys_keep_their_order_under_failures_and_concurrency():
    got, tries = [], Counter()

    async def sink(event, options):
        key, number = event.payload["k"], event.payload["n"]
        tries[key, number] += 1
        await moment(((number * 7 + tries[key, number] * 3) % 5) / 2000)
        if (number * 31 + len(key)) % 4 == 0 and tries[key, number] <= 2:
            raise TransientError("now and then")
        got.append((key, number))

    async with bench(sink, concurrency=8, order_by="payload.k", breaker={"failures": 10_000}) as at:
        for number in range(40):
            at.put(*[keyed(key, number) for key in ("a", "bb", "ccc", "dddd", "e")])
        await at.settled()
        assert at.worker.line.delayed == 0
    assert len(got) == 200
    for key in ("a", "bb", "ccc", "dddd", "e"):
        assert [number for which, number in got if which == key] == list(range(40))
    assert at.book.delivered == 200


async def test_a_slow_delivery_holds_up_its_own_lane_alone():
    begun, released = [], asyncio.Event()

    async def sink(event, options):
        begun.append(event.payload["k"])
        await released.wait()

    async with bench(sink, concurrency=4, order_by="payload.k") as at:
        at.put(*[keyed(key, number) for number in range(2) for key in "abcd"])
        await until(lambda: len(begun) == 4)
        assert sorted(begun) == ["a", "b", "c", "d"]
        released.set()
        await at.settled()
    assert at.book.delivered == 8


async def test_a_failing_lane_holds_back_only_itself():
    got = []

    async def sink(event, options):
        if event.payload.get("k") == "bad":
            raise TransientError("down")
        got.append(event.payload["n"])

    async with bench(
        sink, order_by="payload.k", retry={"initial": "1h", "max_delay": "1h"}, breaker={"failures": 100}
    ) as at:
        at.put(*[keyed("bad", number) for number in range(20)])
        at.put(*[keyed(f"good {number % 3}", number) for number in range(30)])
        at.put(make_event(b'{"n": 99}'))
        await until(lambda: len(got) == 31)
        assert at.book.pending == 20
        assert not at.worker.may_settle_within(30)
        assert await at.worker.close() == 20
        assert at.book.dropped == {Reason.SHUTDOWN: 20}


async def test_a_lane_goes_on_after_a_dead_letter_a_split_and_a_suppression():
    class To(SinkOptions):
        to: Addresses = Addresses()

    got = []

    async def sink(event, options):
        number = event.payload["n"]
        if number == 0:
            raise PermanentError("no")
        if number == 1 and event.address is None:
            raise PartialError({"x": TransientError("later"), "y": TransientError("later")})
        got.append((number, event.address))

    template = "{{ '' if payload.n == 2 else 'x, y' }}"
    async with bench(sink, concurrency=4, options=To(to=template), order_by="payload.k") as at:
        at.put(*[keyed("a", number) for number in range(5)])
        await at.settled()
        assert not at.worker.line._keys  # type: ignore[union-attr]
    assert sorted(got[:2]) == [(1, "x"), (1, "y")]
    assert got[2:] == [(3, None), (4, None)]
    assert at.book.pending == 0


async def test_what_is_kept_in_lanes_is_bounded_and_heals():
    down = True
    got = []

    async def sink(event, options):
        if down and event.payload["k"] == "bad":
            raise TransientError("down")
        got.append(event.payload["n"])

    async with bench(
        sink, order_by="payload.k", retry={"initial": "5ms", "max_delay": "5ms"}, breaker={"failures": 10**6}
    ) as at:
        at.put(*[keyed("bad", number) for number in range(MOST + 500)])
        await until(lambda: at.worker.line.delayed >= MOST - 1)
        await stays(lambda: at.worker.line.delayed <= MOST + 1, 0.05)
        down = False
        await at.settled()
    assert got == list(range(MOST + 500))


async def test_one_event_twice_is_two_deliveries_of_a_lane():
    sink = Service()
    async with bench(sink, concurrency=4, order_by="payload.k") as at:
        event = keyed("a", 1, id="same")
        at.put(event, keyed("a", 1, id="same"), keyed("a", 2))
        await at.settled()
    assert [event.payload["n"] for event in sink.got] == [1, 1, 2]


class Shared:
    """A queue that others share, and that does not let everything stay in flight."""

    def __init__(self):
        self.put_off = []
        self.over = []
        self.offered = asyncio.Queue()
        self.lets_stay = True
        self.book = SinkBook()
        self.events = 0
        self.delayed = 0

    async def take(self, most):
        event = await self.offered.get()
        return [event], len(event.raw)

    def may_wait(self, event):
        return self.lets_stay

    def later(self, event, delay):
        self.put_off.append(event)

    def settle(self, events, size, outcome, reason=None):
        self.over += [(event.id, outcome) for event in events]

    def due_in(self):
        return None

    def close(self, hand):
        return 0


async def test_what_may_not_stay_goes_back_and_blocks_no_lane():
    shared = Shared()
    ordered = Ordered(shared, key=lambda event: str(event.payload["k"]), now=lambda: 0.0)
    first, second = keyed("a", 1), keyed("a", 2)
    shared.offered.put_nowait(first)
    assert (await ordered.take(5))[0] == [first]
    shared.lets_stay = False
    shared.offered.put_nowait(second)
    taking = asyncio.create_task(ordered.take(5))
    await until(lambda: shared.put_off == [second])
    ordered.later(first, 10.0)
    assert shared.put_off == [second, first]
    shared.offered.put_nowait(second)
    assert (await taking)[0] == [second]
    ordered.settle([second], 1, Outcome.DELIVERED)
    assert not ordered._keys
    assert len(ordered._lanes) == 0
    ordered.close([])
