"""The books' sums."""

from router.core.books import Books, SinkBook, SourceBook
from router.errors import Reason


def test_pending_is_what_is_not_settled():
    book = SinkBook(accepted=20, delivered=5, handed_over=2)
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
    totals = books.totals()
    assert totals["received"] == 7
    assert totals["rejected"] == {"decode": 1, "schema": 3}
    assert totals["dropped"] == {"full": 7}
    assert totals["suppressed"] == {}
