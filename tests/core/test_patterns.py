"""Parts of regular expressions: what `repeated` matches, on every version of Python, and what it costs."""

import re
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from router.core.patterns import repeated
from tests.support.cost import mebibyte

INSIDE = r'[^",]++|"(?:[^"\\]++|\\.)*"'  # the parts of an address in a list: a choice, with a choice inside


@given(st.text('",ab\\', max_size=12))
def test_it_takes_one_match_after_the_other_as_long_as_there_is_one(text):
    one, end = re.compile(INSIDE), 0
    while found := one.match(text, end):
        end = found.end()
    assert re.match(repeated(INSIDE), text).end() == end


@given(st.text("ab", max_size=8))
def test_it_gives_nothing_back(text):
    assert re.fullmatch(f"{repeated('a|ba?')}a", text) is None


def test_a_long_text_needs_no_memory():
    """A group that is atomic as a whole needs 120 MiB for this text."""
    text, pattern = mebibyte('a"b"'), re.compile(repeated(INSIDE))
    tracemalloc.start()
    try:
        assert pattern.match(text).end() == len(text)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
