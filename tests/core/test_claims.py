"""Which pending entries are taken together, which is given up, where a lost group goes on."""

import pytest

from router.core.delivery import claims
from router.core.delivery.claims import ClaimBatch, Pending


def entries(deliveries, number, first=1):
    return [Pending(b"%d-0" % n, deliveries) for n in range(first, first + number)]


def sizes(pending):
    return [
        (len(take.entries), take.entries[0].deliveries if take.alone else None)
        for take in claims.claim_batches(pending)
    ]


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        ([], []),
        (entries(0, 3), [(3, None)]),
        (entries(1, 250), [(100, None), (100, None), (50, None)]),
        (entries(2, 25), [(10, None), (10, None), (5, None)]),
        (entries(3, 2), [(1, 3), (1, 3)]),
        (entries(7, 1), [(1, 7)]),
        (entries(4, 1) + entries(1, 2, 5) + entries(3, 1, 9), [(2, None), (1, 4), (1, 3)]),
    ],
)
def test_batches_get_smaller_as_entries_get_more_suspicious(pending, expected):
    assert sizes(pending) == expected


def test_the_harmless_come_first_and_each_kind_in_its_order():
    pending = [Pending(b"1-0", 3), Pending(b"2-0", 1), Pending(b"3-0", 2), Pending(b"4-0", 1)]
    taken = [ClaimBatch([pending[1], pending[3]]), ClaimBatch([pending[2]]), ClaimBatch([pending[0]], alone=True)]
    assert list(claims.claim_batches(pending)) == taken


@pytest.mark.parametrize(
    ("deliveries", "most", "poison"),
    [(4, 5, False), (5, 5, True), (9, 5, True), (3, 1, False), (4, 1, True), (4, 3, True), (99, 100, False)],
)
def test_only_what_was_alone_in_hand_is_poison(deliveries, most, poison):
    assert claims.is_poison(deliveries, most) is poison


def test_one_bad_entry_among_a_thousand_is_found_and_nobody_else_is():
    """A process that dies whenever it tries entry 500, restarted until nothing is left."""
    counts = dict.fromkeys(range(1000), 1)
    given_up, deaths = [], 0
    while counts:
        for number in [n for n, count in counts.items() if claims.is_poison(count, 5)]:
            given_up.append(number)
            del counts[number]
        for take in claims.claim_batches([Pending(b"%d-0" % n, count) for n, count in counts.items()]):
            numbers = [claims.parse(entry.id)[0] for entry in take.entries]
            for number in numbers:
                counts[number] += 1
            if 500 in numbers:
                deaths += 1
                break
            for number in numbers:
                del counts[number]
    assert given_up == [500]
    assert deaths == 4


@pytest.mark.parametrize(
    ("entry_id", "expected"),
    [(b"5-3", b"5-2"), (b"5-0", b"4-18446744073709551615"), (b"5", b"4-18446744073709551615"), (b"0-1", b"0-0")],
)
def test_the_id_before(entry_id, expected):
    assert claims.before(entry_id) == expected
    assert claims.before(b"0-0") == b"0-0"


def test_ids_are_ordered_as_numbers():
    assert claims.parse(b"9-10") > claims.parse(b"9-9")
    assert claims.parse(b"10-0") > claims.parse(b"9-99")


@pytest.mark.parametrize(
    ("last", "unsettled", "after"),
    [
        (b"10-5", [], b"10-5"),
        (b"10-5", [b"10-5", b"9-1", b"10-2"], b"9-0"),
        (b"10-5", [b"11-0"], b"10-5"),
        (b"0-0", [b"7-0"], b"0-0"),
    ],
)
def test_a_lost_group_goes_on_before_the_oldest_unsettled_entry(last, unsettled, after):
    assert claims.resume_after(last, unsettled) == after


@pytest.mark.parametrize(
    ("newest", "added", "added_now", "new"),
    [
        (b"10-5", 100, 100, False),
        (b"11-0", 100, 120, False),
        (b"10-4", 100, 200, True),
        (b"11-0", 100, 3, True),
        (b"11-0", None, 3, False),
        (b"11-0", 100, None, False),
    ],
)
def test_a_stream_whose_numbers_went_back_is_another_one(newest, added, added_now, new):
    assert claims.is_new(b"10-5", added, newest=newest, added_now=added_now) is new


@pytest.mark.parametrize("idle", [0.3, 3.0, 60.0, 3600.0])
def test_what_is_in_hand_is_renewed_in_time_and_looked_for_often(idle):
    assert claims.renew_every(idle) <= idle / 3
    assert claims.look_every(idle) <= 5.0
    assert claims.patience(idle) < idle
    assert claims.renew_every(idle) < claims.undisputed(idle) < idle
