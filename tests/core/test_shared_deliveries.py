"""Deliveries that several sinks share are those that each sink would have got alone, and their lines are encoded once."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.delivery import shared_deliveries
from router.core.delivery.shared_deliveries import (
    Deliveries,
    LineCache,
    Part,
    SharedEvents,
    UniformBatch,
    batch_json_lines,
    batch_options,
    bytes_of,
    copies,
    originals,
    receipt_times,
)
from router.events import Event, json_lines, size_of

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SINKS = ("a", "b", "c")

where_from = attrgetter("id", "_receipt", "_position")
"""Return what a settlement needs of a delivery."""


def first_deliveries(number, route="r", sink="a", times=None):
    return [
        Event(
            str(place), "web", "c", None, AT + timedelta(0, times[place] if times else 0), b"%d" % place, route, sink,
            headers={"n": str(place)}, _receipt="receipt", _position=place,
        )
        for place in range(number)
    ]  # fmt: skip


def shared(events, cache=None, route="r", sink="a"):
    events = SharedEvents(events, {route: len(SINKS)}, cache or LineCache())
    return Deliveries(sink, [Part(events, route, 0, len(events.events))])


@pytest.mark.parametrize(("route", "sink"), [("r", "a"), ("r", "b"), ("other", "a")])
def test_a_delivery_is_the_one_that_the_sink_would_have_got_alone(route, sink):
    events = first_deliveries(9)
    deliveries = shared(events, route=route, sink=sink)
    alone = copies(events, route, sink)
    assert (len(deliveries), list(deliveries), deliveries[3], deliveries[-1]) == (9, alone, alone[3], alone[-1])
    assert list(shared(events, route=route, sink=sink)[2:5]) == alone[2:5]
    assert list(shared(events, route=route, sink=sink)[::2]) == alone[::2]
    assert list(shared(events, route=route, sink=sink)[9:]) == []


@given(
    times=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    sink=st.sampled_from(SINKS),
)
def test_cut_and_joined_deliveries_are_worth_the_same(times, cuts, sink):
    events = first_deliveries(len(times), times=times)
    whole = shared(events, sink=sink)
    places = [0, *sorted(cuts), len(events)]
    pieces = [whole[first:last] for first, last in pairwise(places)]
    joined = Deliveries.of([piece for piece in pieces if len(piece)])
    alone = copies(events, "r", sink)
    assert bytes_of(joined) == size_of(alone)
    assert batch_json_lines(UniformBatch(joined, None)) == json_lines(alone)
    assert [at for at, number in receipt_times(joined) for _ in range(number)] == [one.received_at for one in alone]
    assert [where_from(one) for one in originals(joined)] == [where_from(one) for one in alone]
    assert list(joined) == alone


def test_shared_and_other_deliveries_join_to_a_list():
    others = first_deliveries(2, sink="b")
    assert Deliveries.of([others, shared(first_deliveries(3), sink="b")]) == [
        *others,
        *first_deliveries(3, sink="b"),
    ]


def test_a_delivery_has_a_payload_of_its_own():
    events = [Event("1", "web", "c", None, AT, b"[]", "r", "a")]
    one, other = (shared(events, sink=sink)[0] for sink in ("a", "b"))
    one.payload.append(1)
    assert other.payload == []


def test_lines_are_encoded_once_for_all_sinks_of_a_route_and_then_forgotten(monkeypatch):
    encoded = []
    monkeypatch.setattr(shared_deliveries, "json_lines", lambda events: encoded.append(events) or json_lines(events))
    events, cache = first_deliveries(9), LineCache()
    run = SharedEvents(events, {"r": len(SINKS)}, cache)
    for sink in SINKS:
        deliveries = Deliveries(sink, [Part(run, "r", 0, len(events))])
        assert batch_json_lines(UniformBatch(deliveries, None)) == json_lines(events)
    assert (len(encoded), cache.size) == (1, 0)


def test_lines_are_not_kept_for_the_sinks_of_other_routes():
    cache = LineCache()
    run = SharedEvents(first_deliveries(9), {"r": 1, "other": 1}, cache)
    for route in ("r", "other"):
        Deliveries("a", [Part(run, route, 0, 9)]).json_lines()
        assert cache.size == 0


def test_lines_name_the_route():
    other = batch_json_lines(UniformBatch(shared(first_deliveries(9), route="other"), None))
    assert other == json_lines(first_deliveries(9, route="other"))


def test_the_lines_that_a_slow_sink_has_not_asked_for_are_bounded():
    lines = json_lines(first_deliveries(9))
    cache = LineCache(3 * len(lines))
    late = []
    for _ in range(10):
        run = SharedEvents(first_deliveries(9), {"r": len(SINKS)}, cache)
        for sink in SINKS[:-1]:
            Deliveries(sink, [Part(run, "r", 0, 9)]).json_lines()
        late.append(Deliveries(SINKS[-1], [Part(run, "r", 0, 9)]))
        assert cache.size <= 3 * len(lines)
    assert [deliveries.json_lines() for deliveries in late] == [lines] * 10


def test_a_batch_with_one_set_of_options_is_a_sequence_of_pairs():
    events = first_deliveries(3)
    batch = UniformBatch(events, "options")
    pairs = [(event, "options") for event in events]
    assert (list(batch), len(batch), batch[1], list(batch[1:])) == (pairs, 3, pairs[1], pairs[1:])
    assert (list(batch_options(batch)), list(batch_options(pairs))) == (["options"], ["options"] * 3)
    assert batch_json_lines(batch) == batch_json_lines(pairs) == json_lines(events)
