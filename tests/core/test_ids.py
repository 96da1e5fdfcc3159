"""Ids: unique, and in order."""

import hashlib

import pytest

from router.core.ids import Ids, portable


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


@pytest.mark.parametrize("text", ["a", "billing/1-0", "/shop#A 1", "x" * 200, "~!"])
def test_an_id_that_can_be_carried_stays(text):
    assert portable(text) == text


@pytest.mark.parametrize("text", ["", "x" * 201, "größe", "a\nb", "a\x7f", "\ud800"])
def test_any_other_is_its_digest(text):
    assert portable(text) == hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
