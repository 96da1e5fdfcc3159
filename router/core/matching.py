r"""Matching of channels by the globs of Redis; pure.

The rules are those of the Redis documentation of PSUBSCRIBE and KEYS (`? * [a-c] [^a] \x`). Matching is byte by byte,
as in the server. A class without `]` runs to the end of the pattern. A single backslash at the end of the pattern
matches itself.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

Matcher = Callable[[bytes], bool]
"""A function that returns whether a channel's bytes match."""

Token = frozenset[int]
"""The set of bytes that one part of a glob matches."""

ANY: Token = frozenset(range(256))
STAR: Token = frozenset([-1])
"""The part `*`, which matches any number of any bytes. It is compared by identity."""

_SPECIAL = re.compile(r"[*?\[\\]")

_LIKELY = (string.ascii_lowercase + string.digits + string.ascii_uppercase).encode()
"""The bytes that are likely in names of channels."""


def is_glob(text: str) -> bool:
    """Return whether `text` is a glob rather than a name."""
    return _SPECIAL.search(text) is not None


def exactly(name: str) -> str:
    """Return the glob that matches only this name, with its special characters escaped."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", name)


def is_open(text: str) -> bool:
    """Return whether a glob has a class without its closing `]`, such as `[a-c`."""
    pattern = text.encode()
    i = 0
    while i < len(pattern):
        if pattern[i] == ord("["):
            _, i = _class(pattern, i + 1)
            if i > len(pattern):
                return True
        else:
            i += 1 + (pattern[i] == ord("\\"))
    return False


def example_of(text: str) -> str | None:
    """Return an example of a channel that a glob or name matches, with letters and digits if possible.

    Return None if no valid text matches.
    """
    parts = tokens(text.encode())
    matches = glob(text)
    for filling in (b"test", b""):
        made = b"".join(filling if part is STAR else _likely(part) for part in parts)
        channel = made.decode(errors="replace")
        if channel and matches(channel.encode()):
            return channel
    return None


def _likely(members: Token) -> bytes:
    """Return one byte of a set, preferably the first one of `_LIKELY`; empty bytes for an empty set."""
    return bytes([each for each in (*_LIKELY, *sorted(members)) if each in members][:1])


def literal_prefix(text: str) -> str:
    """Return the text before the first special character of a glob; for a name, the name."""
    special = _SPECIAL.search(text)
    return text if special is None else text[: special.start()]


def glob(pattern: str) -> Matcher:
    """Return a matcher of channels by a Redis glob or an exact name.

    For each star of the glob, the matcher takes time in proportion to the length of the channel.
    """
    wanted = pattern.encode()
    if not is_glob(pattern):
        return wanted.__eq__
    full = re.compile(_regex(wanted), re.DOTALL).fullmatch
    return lambda channel: full(channel) is not None


def any_of(patterns: Iterable[str]) -> Matcher:
    """Return a matcher of channels that at least one of the names or globs matches."""
    matchers = [glob(pattern) for pattern in patterns]
    return lambda channel: any(match(channel) for match in matchers)


class ChannelIndex(Generic[T]):
    """An index of entries with names and globs.

    It finds the entries for a channel without testing every entry. An entry is a number with its names and globs.
    `make` computes the result from the numbers of the matching entries, in ascending order. Names are found in a dict.
    Globs are found by their literal prefix, which is the text before the first special character. A glob is tested only
    if the channel begins with this prefix. A glob that consists of a prefix and a star, such as `orders.*`, needs no
    test.
    """

    def __init__(self, entries: Iterable[tuple[int, Iterable[str]]], make: Callable[[tuple[int, ...]], T]) -> None:
        names: dict[bytes, set[int]] = {}
        sure: dict[bytes, set[int]] = {b"": set()}
        asked: dict[bytes, list[tuple[int, Matcher]]] = {}
        for number, patterns in entries:
            for pattern in patterns:
                prefix = literal_prefix(pattern).encode()
                if not is_glob(pattern):
                    names.setdefault(prefix, set()).add(number)
                elif pattern.encode() == prefix + b"*":
                    sure.setdefault(prefix, set()).add(number)
                else:
                    asked.setdefault(prefix, []).append((number, glob(pattern)))
        self._make = make
        self._begins: list[tuple[int, dict[bytes, _Globs[T]]]] = []
        """The globs that may match a channel, by the prefix of the channel. Prefixes are grouped by their length,
        longest first.
        """
        texts = sure.keys() | asked.keys()
        for length in sorted(set(map(len, texts)), reverse=True):
            begins = {}
            for text in texts:
                if len(text) == length:
                    starts = [text[:end] for end in range(length + 1)]
                    numbers = set[int]().union(*(sure.get(start, ()) for start in starts))
                    more = [each for start in starts for each in asked.get(start, ())]
                    begins[text] = _Globs(make(tuple(sorted(numbers))), frozenset(numbers), more)
            self._begins.append((length, begins))
        self._names: dict[bytes, T] = {name: self._found(name, numbers) for name, numbers in names.items()}

    def find(self, channel: bytes) -> T:
        """Return the result for a channel."""
        if channel in self._names:
            return self._names[channel]
        for length, begins in self._begins:
            start = channel[:length]
            if start in begins:  # the last group has an empty prefix, so it always matches
                break
        globs = begins[start]
        return self._found(channel, globs=globs) if globs.asked else globs.found

    def _found(self, channel: bytes, named: AbstractSet[int] = frozenset(), globs: _Globs[T] | None = None) -> T:
        """Return the result for a channel.

        `named` are the entries that name the channel, `globs` the globs that may match it.
        """
        if globs is None:
            globs = next(begins[channel[:length]] for length, begins in self._begins if channel[:length] in begins)
        more = {number for number, matches in globs.asked if matches(channel)}
        return self._make(tuple(sorted(globs.sure | more | named))) if more or named else globs.found


class _Globs(NamedTuple, Generic[T]):
    """The globs for channels with one prefix.

    `sure` are the entries that match without a test, `found` is their result, and `asked` are the globs to test.
    """

    found: T
    sure: frozenset[int]
    asked: list[tuple[int, Matcher]]


def _regex(pattern: bytes) -> bytes:
    """Return the regular expression of a glob.

    The text between two stars is matched at its first occurrence, without backtracking. The result is the same as in
    Redis.
    """
    segments: list[list[bytes]] = [[]]
    for token in tokens(pattern):
        if token is STAR:
            segments.append([])
        else:
            segments[-1].append(_one_of(token))
    first, *rest = (b"".join(segment) for segment in segments)
    if not rest:
        return first
    *middle, last = rest
    return first + b"".join(b"(?>.*?" + part + b")" for part in middle if part) + b".*" + last


def _one_of(members: Token) -> bytes:
    """Return the regular expression of one byte out of a set."""
    if len(members) == 256:
        return b"."
    if not members:
        return b"(?!)"
    if len(members) == 1:
        return re.escape(bytes(members))
    listed, negated = (members, b"") if len(members) <= 128 else (ANY - members, b"^")
    return b"[" + negated + b"".join(b"\\x%02x" % member for member in sorted(listed)) + b"]"


def tokens(pattern: bytes) -> list[Token]:
    """Parse a glob to a list with one item per part: `STAR`, or the set of bytes that matches one byte."""
    found: list[Token] = []
    i = 0
    while i < len(pattern):
        c = pattern[i]
        i += 1
        if c == ord("*"):
            found.append(STAR)
        elif c == ord("?"):
            found.append(ANY)
        elif c == ord("["):
            members, i = _class(pattern, i)
            found.append(members)
        else:
            if c == ord("\\") and i < len(pattern):
                c = pattern[i]
                i += 1
            found.append(frozenset([c]))
    return found


def _class(pattern: bytes, i: int) -> tuple[Token, int]:
    """Return the bytes of a class, and the index after the class. `i` is the index after the `[` of the class."""
    negated = pattern[i : i + 1] == b"^"
    i += negated
    members: set[int] = set()
    while i < len(pattern) and pattern[i] != ord("]"):
        if pattern[i] == ord("\\") and i + 1 < len(pattern):
            members.add(pattern[i + 1])
            i += 2
        elif i + 2 < len(pattern) and pattern[i + 1] == ord("-"):
            low, high = sorted((pattern[i], pattern[i + 2]))
            members.update(range(low, high + 1))
            i += 3
        else:
            members.add(pattern[i])
            i += 1
    return (ANY - members if negated else frozenset(members)), i + 1
