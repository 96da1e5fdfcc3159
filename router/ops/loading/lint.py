"""What can work and is hardly meant, and what the operator should know; floor 4.

Warnings are what `check --strict` objects to; notes are not.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from router.core.matching import glob, is_glob
from router.ops.loading.draft import Draft
from router.ops.loading.nodes import Mapping


def look_around(draft: Draft) -> None:
    """Add the warnings and notes to a draft without errors."""
    _unused(draft)
    _schemas_without_channel(draft)
    _broken_plugins(draft)
    _memory_queues(draft)
    _databases(draft)


def _unused(draft: Draft) -> None:
    taken = {name for route in draft.routes if route.enabled for name in route.sources or draft.sources}
    for name, entry in draft.entries("sources").items():
        if name not in taken and draft.unmatched == "drop":
            draft.problems.warn("no route takes the events of this source", entry.mark, path=entry.node.path)
    used = {target.sink for route in draft.routes for target in route.sinks}
    if isinstance(draft.unmatched, list):
        used.update(target.sink for target in draft.unmatched)
    for name, entry in draft.entries("sinks").items():
        if name not in used:
            draft.problems.warn("no route uses this sink", entry.mark, path=entry.node.path)


def _schemas_without_channel(draft: Draft) -> None:
    names = [name for source in draft.sources.values() for name in (*source.channels, *source.patterns)]
    for config, _, node in draft.schemas:
        if not any(_may_meet(channel, name) for channel in config.channels for name in names):
            draft.problems.warn("no source listens to a channel of this schema", node)


def _may_meet(channel: str, name: str) -> bool:
    """Whether some channel may be matched by both; two globs are given the benefit of the doubt."""
    if is_glob(name):
        return is_glob(channel) or glob(name)(channel.encode())
    return glob(channel)(name.encode())


def _broken_plugins(draft: Draft) -> None:
    for plugin in draft.plugins.failures:
        place = plugin.path or plugin.origin
        draft.problems.warn(f"the plugin {plugin.name} ({place}) could not be loaded: {plugin.error}")


def _memory_queues(draft: Draft) -> None:
    """Name the sinks whose plugin wants a queue in Redis: they have one in memory."""
    names = [
        name
        for name, sink in draft.sinks.items()
        if sink.type.queue == "redis" and sink.config is not None and sink.config.host.queue is None
    ]
    if names:
        message = f"what waits for these sinks is kept in memory and is lost if the process dies: {', '.join(names)}"
        draft.problems.add(message, severity="note")


def _databases(draft: Draft) -> None:
    for name, source in draft.sources.items():
        if _database(source.url or draft.redis.url) in {"", "0"}:
            continue
        entry = draft.entries("sources")[name]
        own = entry.node.get("url") if isinstance(entry.node, Mapping) else None
        message = "pub/sub ignores the database number: events published in any database arrive"
        mark = own.mark if own is not None else entry.mark
        draft.problems.add(message, mark, path=entry.node.path, severity="note")


def _database(url: str) -> str:
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("db")
    if named:
        return named[0]
    return "" if parts.scheme in {"unix", ""} else parts.path.strip("/")
