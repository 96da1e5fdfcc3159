"""The regular expressions of the router and its plugins: a construct that Python before 3.11.5 reads wrongly."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POSSESSIVE_GROUP = re.compile(r"[)}](?:[*+?]|\{+\d*,?\d*\}+)\+")
OTHERS = {
    "router/core/patterns.py",  # has the form that all versions read rightly
    "plugins/chat/length.py",  # the patterns of these two files are for the package `regex`
    "plugins/chat/services/telegram.py",
}


def has_possessive_group(code):
    """Whether a regular expression in this code has a group, or a part from elsewhere, with `*+`, `++`, `?+` or `{…}+`."""
    return POSSESSIVE_GROUP.search(re.sub(r"\\.", "", code)) is not None


def test_no_group_is_possessive():
    """`repeated` of `router.core.patterns` does the same on all versions of Python (CPython issue 106052)."""
    files = {str(file.relative_to(ROOT)): file for top in ("router", "plugins") for file in (ROOT / top).rglob("*.py")}
    assert {name for name, file in files.items() if has_possessive_group(file.read_text())} == OTHERS


@pytest.mark.parametrize(
    "code", ["(?:a|b)*+", "(a)++", r"(\d,)?+", "(a|b){2,3}+", r"(?:a|\\)*+", "(a){{2}}+", "{PART}*+"]
)
def test_a_possessive_group_is_found(code):
    assert has_possessive_group(code)


@pytest.mark.parametrize("code", ["(?>(?:a|b)*)", "[^)]*+", r"\)*+", "(a)+(b)"])
def test_other_patterns_are_not_found(code):
    assert not has_possessive_group(code)
