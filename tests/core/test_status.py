"""What a snapshot says of itself: the balance of the books, readiness, warnings."""

import pytest
from msgspec.structs import replace

from router.core.accounts.books import ProcessBook
from router.core.accounts.snapshot import Fault, LoadStatus, RedisStatus, document
from tests.support.status import SINK, SNAPSHOT, SOURCE


def test_what_is_accounted_for_balances():
    assert (SOURCE.difference, SINK.difference) == (0, 0)
    assert SNAPSHOT.balanced
    assert (SNAPSHOT.ready, SNAPSHOT.reasons, SNAPSHOT.warnings) == (True, (), ())


@pytest.mark.parametrize("column", ["received", "unmatched", "routed"])
def test_each_column_of_a_source_counts(column):
    source = replace(SOURCE, **{column: getattr(SOURCE, column) + 1})
    assert abs(source.difference) == 1
    snapshot = replace(SNAPSHOT, sources={"web": source})
    assert not snapshot.balanced
    assert snapshot.differences == (f"source web (difference {source.difference})",)
    assert snapshot.warnings == (f"the books do not balance: source web (difference {source.difference})",)


@pytest.mark.parametrize("column", ["accepted", "delivered", "handed_over", "pending"])
def test_each_column_of_a_sink_counts(column):
    sink = replace(SINK, **{column: getattr(SINK, column) + 2})
    assert abs(sink.difference) == 2
    assert replace(SNAPSHOT, sinks={"audit": sink}).differences == (f"sink audit (difference {sink.difference})",)


@pytest.mark.parametrize("column", ["dead_lettered", "dropped", "suppressed"])
def test_each_reason_of_a_sink_counts(column):
    assert replace(SINK, **{column: {**getattr(SINK, column), "lost": 5}}).difference == -5
    assert replace(SOURCE, rejected={}).difference == 5


@pytest.mark.parametrize("column", ["delayed", "in_hand", "waiting", "degraded"])
def test_what_is_a_part_of_another_column_is_not_counted_again(column):
    assert replace(SINK, **{column: 0}).difference == 0


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"phase": "starting"}, ("the router is starting",)),
        ({"phase": "draining"}, ("the router is draining",)),
        ({"redis": RedisStatus("redis://a:6379", up=False, reason="refused")}, ("redis: refused",)),
        ({"redis": None}, ()),
        ({"sources": {"web": replace(SOURCE, up=False, reason="deaf")}}, ("source web: deaf",)),
        ({"sources": {"web": replace(SOURCE, up=False)}}, ("source web: not subscribed",)),
    ],
)
def test_why_it_is_not_ready(change, reasons):
    snapshot = replace(SNAPSHOT, **change)
    assert snapshot.reasons == reasons
    assert snapshot.ready is (not reasons)
    assert document(snapshot)["ready"] is (not reasons)


def test_a_sink_at_fault_and_a_refused_configuration_are_warnings():
    sinks = {"audit": replace(SINK, fault=Fault(5.0, "disk full"))}
    snapshot = replace(SNAPSHOT, sinks=sinks, config=LoadStatus(1.0, "line 3"), notices=("no AOF",))
    assert snapshot.ready
    assert snapshot.warnings == (
        "sink audit: disk full",
        "the configuration on disk was refused: line 3",
        "no AOF",
    )


@pytest.mark.parametrize("column", ["planned", "accepted", "on_their_way", "left"])
def test_each_column_of_the_process_counts(column):
    """So many deliveries were thrown away between their routes and their queues: 690, as once seen."""
    book = ProcessBook(planned=900, accepted=700, on_their_way=150, left=50)
    assert replace(SNAPSHOT, process=book).balanced
    wrong = replace(SNAPSHOT, process=replace(book, **{column: getattr(book, column) + 690}))
    assert not wrong.balanced
    assert wrong.differences == (f"process (difference {690 if column == 'planned' else -690})",)
    told = document(wrong)
    assert (told["balanced"], told["books"]["process"][column]) == (False, getattr(book, column) + 690)


def test_what_was_trimmed_off_a_stream_is_told():
    source = replace(SOURCE, type="stream", trimmed=7, trimmed_exact=False, possibly_repeated=2)
    told = document(replace(SNAPSHOT, sources={"web": source}))["sources"]["web"]
    assert (told["trimmed"], told["trimmed_exact"], told["possibly_repeated"]) == (7, False, 2)


def test_the_document():
    told = document(SNAPSHOT)
    book = told["books"]["sinks"]["audit"]
    over = ("delivered", "dead_lettered", "dropped", "suppressed", "handed_over", "pending")
    assert book["accepted"] == sum(book[column] for column in over) == 21
    assert book["by_reason"]["dead_lettered"] == {"permanent": 1, "exhausted": 1}
    source = told["books"]["sources"]["web"]
    assert source["received"] == source["rejected"] + source["unmatched"] + source["routed"] == 20
    assert source["by_reason"] == {"rejected": {"schema": 4, "decode": 1}}
    assert (told["balanced"], book["balanced"], source["balanced"]) == (True, True, True)
    assert told["sinks"]["audit"]["dropped_by_channel"] == {"orders": 3}
    assert told["sources"]["web"]["duplicates"] == 3
    assert told["books"]["process"] == {"planned": 0, "accepted": 0, "on_their_way": 0, "left": 0}
    assert told["routes"] == {"all": {"events": 10}, "urgent": {"events": 0}}
    assert told["sources"]["web"]["schema_warnings"] == 1
    assert told["uptime"] == 61.235
    assert told["orphaned"] == {}
    assert document(replace(SNAPSHOT, orphaned={"gone": 3}))["orphaned"] == {"gone": 3}


def test_what_can_not_be_read_and_workers_that_were_replaced_are_warnings_of_a_router_that_is_ready():
    told = replace(SNAPSHOT, sinks={"mail": replace(SINK, unreadable=3, replaced=2), "chat": SINK})
    assert told.ready
    first, second = told.warnings
    assert "sink mail: 3 entries in its queue can't be read" in first
    assert "sink mail: 2 workers ended" in second
    assert (document(told)["sinks"]["mail"]["unreadable"], document(told)["sinks"]["mail"]["replaced"]) == (3, 2)
