"""The regular expressions of the router and its plugins: a construct that Python before 3.11.5 reads wrongly."""

import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cost import mebibyte

ROOT = Path(__file__).parents[1]
POSSESSIVE = re.compile(r"(?:[*+?]|\{+\d*,?\d*\}+)\+")
OTHERS = {"plugins/chat/length.py", "plugins/chat/services/telegram.py"}
"""Files with patterns for the package `regex`, which has no such fault."""


def has_wrong_group(line):
    """Whether a regular expression in this line repeats a group with `*+`, `++`, `?+` or `{…}+`.

    The form `(?:(?>…))*+` is allowed: all versions match it rightly. A part from elsewhere, `{PART}*+`, is not.
    """
    if line.lstrip().startswith("#"):
        return False
    line = re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\.", "x", line))  # without escapes and classes
    opened, atomic_end = [], {}
    for place, character in enumerate(line):
        possessive = POSSESSIVE.match(line, place + 1) is not None
        if character == "}" and possessive:
            return True
        if character == "(":
            opened.append(place)
        elif character == ")" and opened:
            begin = opened.pop()
            if possessive and not (line.startswith("(?:(?>", begin) and atomic_end.get(begin + 3) == place - 1):
                return True
            atomic_end[begin] = place
    return False


def test_no_group_is_possessive_unless_its_inside_is_atomic():
    """CPython issue 106052."""
    files = {str(file.relative_to(ROOT)): file for top in ("router", "plugins") for file in (ROOT / top).rglob("*.py")}
    assert {name for name, file in files.items() if any(map(has_wrong_group, file.read_text().splitlines()))} == OTHERS


@pytest.mark.parametrize(
    "code",
    ["(?:a|b)*+", "(a)++", r"(\d,)?+", "(a|b){2,3}+", r"(?:a|\\)*+", "(a){{2}}+", "{PART}*+", "(?:(?>a)|b)*+", "(?:a(?>b))*+"],
)  # fmt: skip
def test_a_wrong_group_is_found(code):
    assert has_wrong_group(code)


@pytest.mark.parametrize("code", ["(?>(?:a|b)*)", "[^)]*+", r"\)*+", "(a)+(b)", "(?:(?>a|(b)))*+", r"(?:(?>[)]|\)))*+"])
def test_other_patterns_are_not_found(code):
    assert not has_wrong_group(code)


INSIDE = r'[^",]++|"(?:[^"\\]++|\\.)*"'  # the parts of an address in a list: a choice, with a choice inside
ALLOWED = f"(?:(?>{INSIDE}))*+"


@given(st.text('",ab\\', max_size=12))
def test_the_allowed_form_takes_one_match_after_the_other(text):
    one, end = re.compile(INSIDE), 0
    while found := one.match(text, end):
        end = found.end()
    assert re.match(ALLOWED, text).end() == end


def test_the_allowed_form_needs_no_memory():
    """An atomic group around the repetition needs 120 MiB for this text."""
    text, pattern = mebibyte('a"b"'), re.compile(ALLOWED)
    tracemalloc.start()
    try:
        assert pattern.match(text).end() == len(text)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
