"""Warnings about a Redis key that two sources read; floor 4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from router.config.models import PubSubConfig, SourceConfig, StreamConfig
from router.ops.loading.checking.redis_loops import server_of
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Node, find, quoted, words


class _Reading(NamedTuple):
    """A source that reads a key: its name, its configuration, and the node of the key."""

    name: str
    source: SourceConfig
    node: Node


def look_for_shared_keys(draft: Draft) -> None:
    """Warn about a key that both a stream source and a list source read.

    Warn too if each entry of a key goes to only one of two sources.
    """
    seen: dict[tuple[str, str, str], list[_Reading]] = {}
    for server, database, key, later in _keys(draft):
        readings = seen.setdefault((server, database, key), [])
        told = next(filter(None, (_conflict(key, earlier, later) for earlier in readings)), None)
        if told is not None:
            draft.problems.warn(told, later.node)
        readings.append(later)


def _keys(draft: Draft) -> Iterator[tuple[str, str, str, _Reading]]:
    """Yield the server, the database and the name of each key that a source reads."""
    for name, entry in draft.entries("sources").items():
        source = draft.sources[name]
        if isinstance(source, PubSubConfig):
            continue
        server, database = server_of(draft, source.url)
        if server is not None:
            for node, key in words(find(entry.node, "streams" if isinstance(source, StreamConfig) else "keys")):
                yield server, database, key, _Reading(name, source, node)


def _conflict(key: str, earlier: _Reading, later: _Reading) -> str | None:
    """Return the warning for a key that two sources read; None if each source gets all entries."""
    if earlier.name == later.name:
        return None
    named = f"source {earlier.name} also reads {quoted(key)} from the same server"
    one, other = earlier.source, later.source
    if isinstance(one, StreamConfig) is not isinstance(other, StreamConfig):
        kinds = f"{earlier.name} needs a {one.type}, and {later.name} needs a {other.type}"
        return f"{named}, but {kinds}, so one of the two sources fails; read another key"
    if not isinstance(one, StreamConfig) or not isinstance(other, StreamConfig):
        return (
            f"{named}, so each item goes to only one of the two sources; read another key, or remove one of the sources"
        )
    if one.group == other.group:
        return f"{named} with the same `group`, so each entry goes to only one of the two sources; give one source another `group`"
    return None
