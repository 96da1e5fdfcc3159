"""When an entry is complete: whatever the order of outcomes, exactly once."""

from itertools import permutations

import pytest

from router.core.accounts.acks import Ledger


def test_an_entry_without_deliveries_is_complete_at_once():
    ledger = Ledger(2)
    assert ledger.expect(1, 0)
    assert ledger.left == 1


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 0, 1, 1]))))
def test_an_entry_is_complete_with_its_last_delivery_whatever_the_order(order):
    ledger = Ledger(2)
    ledger.expect(0, 3)
    ledger.expect(1, 2)
    complete = [position for position in order if ledger.settle(position)]
    assert sorted(complete) == [0, 1]
    assert complete[-1] == order[-1]
    assert ledger.left == 0


def test_a_split_delivery_makes_the_entry_wait_for_its_parts():
    ledger = Ledger(1)
    ledger.expect(0, 1)
    ledger.add(0, 2)
    assert [ledger.settle(0) for _ in range(3)] == [False, False, True]


def test_nothing_is_settled_twice():
    ledger = Ledger(1)
    ledger.expect(0, 1)
    ledger.settle(0)
    with pytest.raises(ValueError, match="nothing left"):
        ledger.settle(0)


def test_what_was_never_expected_is_never_complete():
    with pytest.raises(ValueError, match="nothing left"):
        Ledger(1).settle(0)
