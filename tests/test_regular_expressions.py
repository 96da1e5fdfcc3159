"""The regular expressions of the router and its plugins: constructs that Python 3.11 reads wrongly."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POSSESSIVE_GROUP = re.compile(r"(?<!\\)\)(?:[*+?]|\{\d*,?\d*\})\+")
# The patterns of these files are for the package `regex`, which has no such fault.
OTHERS = {"plugins/chat/length.py", "plugins/chat/services/telegram.py"}


def test_no_group_is_possessive():
    """Before version 3.11.5, `re` matches `(?:a|b)*+` wrongly (CPython issue 106052); `(?>(?:a|b)*)` does the same."""
    files = {str(file.relative_to(ROOT)): file for top in ("router", "plugins") for file in (ROOT / top).rglob("*.py")}
    found = {name for name, file in files.items() if POSSESSIVE_GROUP.search(file.read_text())}
    assert found == OTHERS


@pytest.mark.parametrize("pattern", ["(?:a|b)*+", "(a)++", r"(\d,)?+", "(a|b){2,3}+"])
def test_a_possessive_group_is_found(pattern):
    assert POSSESSIVE_GROUP.search(pattern)


@pytest.mark.parametrize("pattern", ["(?>(?:a|b)*)", "[^)]*+", r"\)*+", "(a)+(b)"])
def test_other_patterns_are_not_found(pattern):
    assert not POSSESSIVE_GROUP.search(pattern)
