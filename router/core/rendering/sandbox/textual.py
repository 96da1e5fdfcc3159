"""Replacements for methods and filters of strings that take more than linear time in Python; floor 2.

An event may contain a megabyte of any text, so each of these functions takes time in proportion to the length of its
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from router.core.rendering.sandbox.bounds import bounded

_MAX_STRIPPED = 100
_TOKENS = re.compile(r"\s+|\S+")
_HYPHENED = re.compile(r"\s+|[^\s-]*-+|[^\s-]+")


def rfind(whole: str, part: str) -> int:
    """Return the last index of a part in a string; -1 if the string does not contain it.

    Python searches from the left in linear time (since 3.10), but from the right in quadratic time.
    """
    place = whole[::-1].find(part[::-1])
    return place if place < 0 else len(whole) - len(part) - place


def rpartition(whole: str, separator: str) -> tuple[str, str, str]:
    """Return the text before the last separator, the separator, and the text after the separator, as `str.rpartition`
    does.
    """
    behind, found, before = whole[::-1].partition(separator[::-1])
    return (before[::-1], separator, behind[::-1]) if found else ("", "", whole)


def rsplit(whole: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """Return the parts of a string, split from its end at most `maxsplit` times, as `str.rsplit` does."""
    if sep is None:
        return whole.rsplit(None, maxsplit)
    return [part[::-1] for part in reversed(whole[::-1].split(sep[::-1], maxsplit))]


def _stripping(name: str) -> Callable[..., str]:
    def stripped(whole: str, chars: str | None = None) -> str:
        """Return a string without these characters at its ends.

        Raises `OverflowError` if `chars` has too many different characters.
        """
        if chars is not None and len(chars) > 1:
            chars = "".join(set(chars))
            if len(chars) > _MAX_STRIPPED:
                raise OverflowError(f"strip() can remove at most {_MAX_STRIPPED} different characters")
        ends: str = getattr(whole, name)(chars)  # a marked string stays marked
        return ends

    return stripped


strip = _stripping("strip")
lstrip = _stripping("lstrip")
rstrip = _stripping("rstrip")

METHODS: dict[str, Callable[..., Any]] = {
    "lstrip": lstrip,
    "rfind": rfind,
    "rpartition": rpartition,
    "rsplit": rsplit,
    "rstrip": rstrip,
    "strip": strip,
}
"""The replacements of Python's methods, by name."""


def wordwrap(
    whole: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str = "\n",
    break_on_hyphens: bool = True,
) -> str:
    """Return a string in lines of at most `width` characters. Existing line breaks stay.

    The parameters are those of Jinja's filter. Python's textwrap, which Jinja uses, copies the rest of a long word for
    each line. Raises `ValueError` for a width below 1, and `OverflowError` if the text becomes too long.
    """
    if width < 1:
        raise ValueError("the width must be at least 1")
    tokens = _HYPHENED if break_on_hyphens else _TOKENS
    longest = width if break_long_words else len(whole)
    lines = [line for each in whole.splitlines() for line in _lines(tokens.findall(each), width, longest) or ("",)]
    bounded(len(whole) + len(lines) * len(wrapstring))
    return wrapstring.join(lines)


def _lines(tokens: list[str], width: int, longest: int) -> list[str]:
    """Return the lines of a paragraph.

    A token longer than `longest` is cut, and its beginning fills the current line.
    """
    lines: list[str] = []
    line: list[str] = []
    size = 0
    for token in tokens:
        start = 0
        if len(token) > longest and not token.isspace():
            while len(token) - start > width - size:
                line.append(token[start : start + width - size])
                start += width - size
                lines.append("".join(line).rstrip())
                line, size = [], 0
        elif size + len(token) > width and line:
            lines.append("".join(line).rstrip())
            line, size = [], 0
        if not (token.isspace() and not line and size == 0):
            line.append(token[start:])
            size += len(token) - start
    rest = "".join(line).rstrip()
    return [*lines, rest] if rest else lines
