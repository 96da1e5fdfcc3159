"""Strings that look the same, but consist of different code points; pure.

Unicode writes `é` as one code point (form NFC) or as two, `e` and an accent (form NFD). The router compares code
points, so a payload in one form does not match a condition in the other form.
"""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

HINT = "the two texts look the same, but consist of different code points (Unicode NFC and NFD)"
"""The explanation, for people, of two strings that differ only in their form."""


def composed(value: Any) -> Any:
    """Return a copy of a JSON value in which every string, including every key, is in the Unicode form NFC."""
    if isinstance(value, str):
        return normalize("NFC", value)
    if isinstance(value, dict):
        return {normalize("NFC", key): composed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(composed(each) for each in value)
    return value


def alike(one: str, other: str) -> bool:
    """Return whether two strings look the same but differ in their Unicode form."""
    return one != other and normalize("NFC", one) == normalize("NFC", other)
