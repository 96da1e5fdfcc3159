"""Redis's globs, as the server's own matcher reads them."""

import time

import pytest

from router.core.matching import any_of, example_of, glob, is_glob


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        ("orders", b"orders", True),
        ("orders", b"orders.x", False),
        ("orders.*", b"orders.", True),
        ("orders.*", b"orders.a.b", True),
        ("orders.*", b"order", False),
        ("*", b"", True),
        ("**", b"x", True),
        ("a*c", b"abcbc", True),
        ("a*c*e", b"abcde", True),
        ("a*c*e", b"abde", False),
        ("?", b"x", True),
        ("?", b"", False),
        ("?", "ä".encode(), False),
        ("??", "ä".encode(), True),
        ("[abc]x", b"bx", True),
        ("[a-c]x", b"dx", False),
        ("[c-a]x", b"bx", True),
        ("[^a]x", b"ax", False),
        ("[^a]x", b"bx", True),
        ("[a\\]]", b"]", True),
        ("[]x", b"x", False),
        ("[^]x", b"ax", True),
        ("[ab", b"b", True),
        ("[", b"[", False),
        ("a\\*", b"a*", True),
        ("a\\*", b"ab", False),
        ("a\\", b"a\\", True),
        ("a.b", b"axb", False),
        ("(a|b)+$", b"(a|b)+$", True),
        ("a*", b"a\nb", True),
        ("[\\d]", b"d", True),
        ("[\\d]", b"5", False),
    ],
)
def test_glob(pattern, channel, expected):
    assert glob(pattern)(channel) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", "orders"),
        ("orders.*", "orders.test"),
        ("*t*", "testttest"),
        ("a?b", "aab"),
        ("[^a-y]1", "z1"),
        ("[A-C]", "A"),
        ("[!]", "!"),
        ("\\*", "*"),
        ("ä?", "äa"),
        ("x[]y", None),
        ("[ab", "a"),
    ],
)
def test_an_example_is_matched(text, expected):
    assert example_of(text) == expected
    assert expected is None or glob(text)(expected.encode())


def test_many_stars_do_not_explode():
    began = time.process_time()
    assert not glob("*a" * 12 + "b")(b"a" * 5000)
    assert time.process_time() - began < 5  # backtracking would take longer than the universe has


@pytest.mark.parametrize(
    ("text", "expected"), [("a.b", False), ("a*", True), ("a?", True), ("[a]", True), ("a\\b", True)]
)
def test_is_glob(text, expected):
    assert is_glob(text) is expected


def test_any_of_nothing_matches_nothing():
    assert not any_of([])(b"x")
    assert any_of(["a", "b*"])(b"bc")
