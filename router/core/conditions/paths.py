"""Paths into a payload: `order.total`, `lines.*.sku`, `lines.0.sku`, `"a.b".c`; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

EACH: Final = None
"""The segment for any element of a list, written `*`."""

Segment = str | int | None
"""A key of an object, an index of a list, or `EACH`."""

Path = tuple[Segment, ...]

MOST_SEGMENTS = 32
"""The largest number of segments of a path."""

HIGHEST_INDEX = 999
"""The highest index. The limit is needed because the JSON Schema for index n lists all n elements before it."""

_ASCII_DIGITS = frozenset("0123456789")


class PathError(ValueError):
    """The error for a string that is not a path. Its message is the reason."""


def parse(written: str) -> Path:
    """Return the segments of a path. Raises `PathError`."""
    segments: list[Segment] = []
    rest = written
    while True:
        segment, rest = _quoted(rest, written) if rest.startswith('"') else _bare(rest)
        segments.append(segment)
        if not rest:
            break
        rest = rest[1:]  # the dot
    if len(segments) > MOST_SEGMENTS:
        raise PathError(f"the path has {len(segments)} parts, but at most {MOST_SEGMENTS} are allowed")
    return tuple(segments)


def _quoted(rest: str, written: str) -> tuple[str, str]:
    """Return the quoted key at the beginning of a string, and the rest of the text."""
    key: list[str] = []
    characters = iter(range(1, len(rest)))
    for at in characters:
        if rest[at] == "\\" and rest[at + 1 : at + 2] in {'"', "\\"}:
            key.append(rest[at + 1])
            next(characters)
        elif rest[at] == '"':
            after = rest[at + 1 :]
            if after and not after.startswith("."):
                raise PathError(
                    'a key in double quotes must be followed by a dot or by the end of the path, as in "a.b".c'
                )
            return "".join(key), after
        else:
            key.append(rest[at])
    raise PathError(f"the double quote in {written} is not closed")


def _bare(rest: str) -> tuple[Segment, str]:
    """Return the segment before the first dot, and the rest of the text."""
    part, dot, after = rest.partition(".")
    if part == "*":
        return EACH, dot + after
    if not part:
        raise PathError('a part of the path is empty; if a key contains a dot, write the key in double quotes: "a.b".c')
    if set(part) <= _ASCII_DIGITS:
        if part[0] == "0" and part != "0":
            raise PathError(
                f'an index must not have leading zeros; if this is a key, write it in double quotes: "{part}"'
            )
        if len(part) > len(str(HIGHEST_INDEX)) or int(part) > HIGHEST_INDEX:
            raise PathError(
                f'the largest index is {HIGHEST_INDEX}; if this is a key, write it in double quotes: "{part}"'
            )
        return int(part), dot + after
    if part[0] == "-" and set(part[1:]) <= _ASCII_DIGITS and len(part) > 1:
        raise PathError(f'an index must not be negative; if this is a key, write it in double quotes: "{part}"')
    for sign in ("*", '"'):
        if sign in part:
            shown = part.replace("\\", "\\\\").replace('"', '\\"')
            raise PathError(f'a key that contains {sign} must be written in double quotes: "{shown}"')
    return part, dot + after


def shown(path: Path) -> str:
    """Return the text of a path, as `parse` reads it."""
    return ".".join(map(_shown, path))


def _shown(segment: Segment) -> str:
    if segment is EACH:
        return "*"
    if isinstance(segment, int):
        return str(segment)
    try:
        plain = parse(segment) == (segment,) and segment != "any"
    except PathError:
        plain = False
    if plain:
        return segment
    escaped = segment.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def values(payload: Any, path: Path) -> Iterator[Any]:
    """Yield the values at a path of a payload: at most one if the path has no `*`."""
    if not path:
        yield payload
        return
    segment, rest = path[0], path[1:]
    if segment is EACH:
        if isinstance(payload, list):
            for element in payload:
                yield from values(element, rest)
    elif isinstance(segment, int):
        if isinstance(payload, list) and segment < len(payload):
            yield from values(payload[segment], rest)
    elif isinstance(payload, dict) and segment in payload:
        yield from values(payload[segment], rest)
