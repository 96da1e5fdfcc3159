"""The books' sums."""

from hypothesis import given
from hypothesis import strategies as st

from router.core.accounts.books import Books, ProcessBook, SinkBook, SourceBook
from router.errors import Reason
from router.events import Outcome


def test_pending_is_what_is_not_settled():
    book = SinkBook(accepted=23, delivered=5, printed=3, handed_over=2)
    book.dead_lettered[Reason.PERMANENT] += 1
    book.dropped[Reason.FULL] += 3
    book.suppressed[Reason.NO_ADDRESS] += 4
    assert book.pending == 5


def test_totals_add_up_by_reason():
    books = Books({"a": SourceBook(received=3), "b": SourceBook(received=4)}, {"x": SinkBook(), "y": SinkBook()})
    books.sources["a"].rejected[Reason.SCHEMA] = 1
    books.sources["b"].rejected[Reason.SCHEMA] = 2
    books.sources["b"].rejected[Reason.DECODE] = 1
    books.sinks["x"].dropped[Reason.FULL] = 7
    books.sinks["x"].printed = 2
    books.sinks["y"].printed = 3
    totals = books.totals()
    assert totals["received"] == 7
    assert totals["printed"] == 5
    assert totals["rejected"] == {"decode": 1, "schema": 3}
    assert totals["dropped"] == {"full": 7}
    assert totals["suppressed"] == {}


def test_routes_that_stay_keep_their_counts():
    books = Books({}, {})
    books.use_routes(["a", "b"])
    books.routes["a"].events += 3
    before = books.routes
    before["b"].events += 4
    books.use_routes(["c", "a"])
    assert [(name, book.events) for name, book in books.routes.items()] == [("c", 0), ("a", 3)]
    before["b"].events += 1  # by a pipeline that is being replaced
    books.use_routes(["b", "a"])
    assert [(name, book.events) for name, book in books.routes.items()] == [("b", 0), ("a", 3)]


FATES = st.sampled_from(["accepted", "dropped", "left", "split", "lost"])


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(1, 500), st.lists(FATES, max_size=20))))
def test_what_is_planned_is_accepted_on_its_way_or_left_and_nothing_else_balances(batches):
    """Batches for two sinks: all of one is on its way, then a delivery of it after the other comes to one of these ends."""
    books = Books({}, {"x": SinkBook(), "y": SinkBook()})
    lost = 0
    for sink, number, fates in batches:
        book = books.sinks[sink]
        book.planned += number
        book.on_their_way += number
        for fate in fates[:number]:
            book.on_their_way -= 1
            if fate == "left":
                book.left += 1
            elif fate == "lost":
                lost += 1
            else:
                book.accepted += 1
            if fate == "dropped":
                book.drop(["channel"], Reason.FULL)
            elif fate == "split":
                book.split(3)
                book.settle(1, Outcome.HANDED_OVER)
    process = books.process
    assert process.difference == lost
    assert min(process.planned, process.accepted, process.on_their_way, process.left) >= 0
    assert sum(book.pending for book in books.sinks.values()) >= 0


@given(*[st.integers(0, 10**6)] * 4)
def test_the_difference_of_the_process_is_exact(planned, accepted, on_their_way, left):
    book = ProcessBook(planned, accepted, on_their_way, left)
    assert book.planned == book.accepted + book.on_their_way + book.left + book.difference


def test_the_closing_line_tells_of_trimmed_entries():
    books = Books({"a": SourceBook(trimmed=3), "b": SourceBook(trimmed=4)}, {})
    assert books.totals()["trimmed"] == 7
    assert "trimmed" not in Books({"a": SourceBook()}, {}).totals()
