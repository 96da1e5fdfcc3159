"""How many entries were lost unread, from what two looks say."""

import pytest

from router.core.delivery.trimming import GroupState, lost_unread, passed_entries

FIRST = {
    "last": b"10-1",
    "lowest": None,
    "peers": False,
    "added": 10,
    "missed": 0,
    "read": 10,
    "counted": 10,
    "gap": False,
    "oldest": b"5-1",
    "deleted": b"0-0",
}
LATER = {"last": b"20-1", "added": 20, "read": 20, "counted": 20, "oldest": b"8-1"}


def look(**changes):
    return GroupState(**{**FIRST, **changes})


def later(**changes):
    return look(**{**LATER, **changes})


LOOK = look()


def test_the_first_look_tells_what_the_server_counts():
    assert lost_unread(None, LOOK, 0) == (0, True)
    assert lost_unread(None, look(missed=3), 0) == (3, True)


def test_what_the_server_took_for_read_and_nobody_read_was_lost():
    assert lost_unread(LOOK, later(), 10) == (0, True)
    assert lost_unread(LOOK, later(), 6) == (4, True)
    assert lost_unread(LOOK, later(missed=2), 6) == (6, True)


def test_more_read_than_the_server_counts_is_no_loss():
    assert lost_unread(LOOK, later(), 11) == (0, True)


@pytest.mark.parametrize(
    ("now", "read"),
    [
        (later(oldest=b"11-1"), None),
        (later(oldest=None), None),
        (later(oldest=b"11-1", read=None), 10),
        (later(deleted=b"12-1"), 10),
        (later(gap=True, read=None), 10),
        (later(added=None), 10),
    ],
)
def test_where_something_may_be_lost_that_nobody_counts_it_is_at_least_so_many(now, read):
    assert lost_unread(LOOK, now, read) == (0, False)


@pytest.mark.parametrize(
    "now",
    [
        later(),  # what was next at the look before is still there
        look(oldest=None),  # all was read, and nothing was added
        later(deleted=b"9-1"),  # deleted after it was read
    ],
)
def test_where_nothing_can_be_lost_it_is_exact_though_others_read_too(now):
    assert lost_unread(LOOK, now, None) == (0, True)


def test_a_first_look_that_can_not_know_says_so():
    assert lost_unread(None, look(added=None), 0) == (0, False)
    assert lost_unread(None, look(gap=True, read=None), 0) == (0, False)
    assert lost_unread(None, look(deleted=b"11-1"), 0) == (0, False)


def test_a_count_that_can_not_be_trusted_is_no_loss():
    forgot = later(read=3, counted=20, compared=True, doubt=True)
    assert lost_unread(None, forgot, 0) == (0, False)
    assert lost_unread(look(passed=10), forgot, None) == (0, False)
    assert lost_unread(look(passed=None), forgot, 10) == (0, False)


def test_what_the_router_has_counted_itself_tells_what_was_lost():
    forgot = later(read=None, counted=20, compared=True, doubt=True)
    assert lost_unread(look(passed=10), forgot, 10) == (0, True)
    assert lost_unread(look(passed=10), forgot, 6) == (4, True)
    assert lost_unread(look(passed=10), forgot, 12) == (0, True)
    assert lost_unread(look(passed=10), forgot._replace(deleted=b"12-1"), 6) == (4, False)


def test_a_count_that_went_back_says_nothing_of_what_was_read():
    assert lost_unread(LOOK, later(read=4), 2) == (0, True), "what was next is still there"
    assert lost_unread(LOOK, later(read=4, oldest=b"11-1"), 2) == (0, False)


def test_how_far_a_group_has_come_is_known_by_comparison_or_by_counting():
    assert passed_entries(None, later(compared=True), None, 0) == 20
    assert passed_entries(look(passed=10), later(), 6, 4) == 20
    assert passed_entries(look(passed=10), later(), None, 0) is None
    assert passed_entries(LOOK, later(), 6, 4) is None
    assert passed_entries(None, later(), 6, 4) is None
