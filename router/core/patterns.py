"""Parts of regular expressions that work on every version of Python; floor 2."""

from __future__ import annotations


def repeated(pattern: str) -> str:
    """Return a regular expression for as many matches of `pattern` as possible, without backtracking into them.

    Versions of Python before 3.11.5 match a possessive group such as `(?:a|b)*+` wrongly if there is a choice inside
    (CPython issue 106052). So the inside is an atomic group. `(?>(?:a|b)*)` would be right too, but would need memory
    for each match until the end of the group: 120 MiB for a text of 1 MiB.
    """
    return f"(?:(?>{pattern}))*+"
