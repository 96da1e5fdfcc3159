"""Ids: unique, and in order."""

from router.core.ids import Ids


def test_ids_are_unique_and_sort_by_time():
    ids = Ids("abcd")
    made = [ids.next(1_700_000_000 + n / 1000) for n in range(20_000)]
    assert len(set(made)) == len(made)
    assert sorted(made) == made


def test_two_routers_never_make_the_same():
    assert Ids("a").next(1.0) != Ids("b").next(1.0)


def test_an_id_is_short_printable_ascii():
    made = Ids("0123456789").next(4_000_000_000.0)
    assert made.isascii()
    assert made.isprintable()
    assert len(made) <= 200
