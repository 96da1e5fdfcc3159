r"""Redis's globs; pure.

Source of the rule: the Redis documentation of PSUBSCRIBE and KEYS (`? * [a-c] [^a] \x`), byte by byte as the server
does it: an unclosed class runs to the end of the pattern, a lone trailing backslash is itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Matcher = Callable[[bytes], bool]
"""Whether a channel's bytes match."""

_SPECIAL = re.compile(r"[*?\[\\]")


def is_glob(text: str) -> bool:
    """Whether `text` is a glob rather than a name."""
    return _SPECIAL.search(text) is not None


def glob(pattern: str) -> Matcher:
    """A matcher of channels by a Redis glob, or by an exact name; linear in the length of the channel per star."""
    wanted = pattern.encode()
    if not is_glob(pattern):
        return wanted.__eq__
    full = re.compile(_regex(wanted), re.DOTALL).fullmatch
    return lambda channel: full(channel) is not None


def any_of(patterns: Iterable[str]) -> Matcher:
    """A matcher of channels that at least one of the names or globs matches."""
    matchers = [glob(pattern) for pattern in patterns]
    return lambda channel: any(match(channel) for match in matchers)


def _regex(pattern: bytes) -> bytes:
    """The regular expression of a glob. What follows a star is matched atomically at its first place, as Redis does."""
    segments: list[list[bytes]] = [[]]
    i = 0
    while i < len(pattern):
        c = pattern[i : i + 1]
        i += 1
        if c == b"*":
            segments.append([])
        elif c == b"?":
            segments[-1].append(b".")
        elif c == b"[":
            body, i = _class(pattern, i)
            segments[-1].append(body)
        else:
            if c == b"\\" and i < len(pattern):
                c = pattern[i : i + 1]
                i += 1
            segments[-1].append(re.escape(c))
    first, *rest = (b"".join(segment) for segment in segments)
    if not rest:
        return first
    *middle, last = rest
    return first + b"".join(b"(?>.*?" + part + b")" for part in middle if part) + b".*" + last


def _class(pattern: bytes, i: int) -> tuple[bytes, int]:
    """The regular expression of a class whose `[` stands before `i`, and the place after it."""
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
    listed = b"".join(b"\\x%02x" % member for member in sorted(members))
    if not listed:
        return (b"." if negated else b"(?!)"), i + 1
    return b"[" + (b"^" if negated else b"") + listed + b"]", i + 1
