"""What can work and is hardly meant, and what the operator should know; floor 4.

Warnings are what `check --strict` objects to; notes are not.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from router.config.models import PubSubConfig, StreamConfig
from router.core.matching import glob, is_glob
from router.ops.loading.checking.sinks import IN_CLEAR, url_secrets
from router.ops.loading.draft import Draft
from router.ops.loading.reading.concealing import HIDDEN
from router.ops.loading.reading.nodes import find, scalars

_OPENING = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"
_CLOSING = "\u201c\u201d\u2018\u2019\u00ab\u00bb"


def look_around(draft: Draft) -> None:
    """Add the warnings and notes to a draft without errors."""
    _typographic_quotes(draft)
    _passwords(draft)
    _unused(draft)
    _schemas_without_channel(draft)
    _broken_plugins(draft)
    _databases(draft)
    _embedded_settings(draft)
    _exact_names(draft)
    _claims(draft)


def _typographic_quotes(draft: Draft) -> None:
    """A word processor's quotes are no quotes of YAML's: they are a part of the text."""
    for scalar in scalars(draft.root):
        if not scalar.style and scalar.text[:1] in _OPENING and scalar.text[-1:] in _CLOSING and len(scalar.text) > 1:
            message = f"the quotes {scalar.text[0]} and {scalar.text[-1]} are a part of the text; YAML's are \" and '"
            draft.problems.warn(message, scalar)


def _passwords(draft: Draft) -> None:
    """A password in a URL is a secret as the options that hold nothing else are."""
    for scalar in scalars(draft.root):
        text = scalar.text if scalar.expanded else str(scalar.value)
        if any("${" not in each and each != HIDDEN for each in url_secrets(text)):
            draft.problems.warn(IN_CLEAR, scalar)


def _unused(draft: Draft) -> None:
    taken = {name for route in draft.routes if route.enabled for name in route.sources or draft.sources}
    for name, entry in draft.entries("sources").items():
        if name not in taken and draft.unmatched == "drop":
            draft.problems.warn("no route takes the events of this source", entry.mark, path=entry.node.path)
    used = {target.sink for route in draft.routes for target in route.sinks}
    if isinstance(draft.unmatched, list):
        used.update(target.sink for target in draft.unmatched)
    if draft.dead_letters.notify is not None:
        used.update(draft.dead_letters.notify.sinks)
    for sink in draft.sinks.values():
        if sink.config is not None:
            used.update(sink.config.host.fallback)
    for name, entry in draft.entries("sinks").items():
        if name not in used:
            draft.problems.warn("no route uses this sink", entry.mark, path=entry.node.path)


def _schemas_without_channel(draft: Draft) -> None:
    names = [name for source in draft.sources.values() for name in source.reads]
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


def _databases(draft: Draft) -> None:
    for name, source in draft.sources.items():
        if not isinstance(source, PubSubConfig) or _database(source.url or draft.redis.url) in {"", "0"}:
            continue
        entry = draft.entries("sources")[name]
        own = find(entry.node, "url")
        message = "pub/sub ignores the database number: events published in any database arrive"
        mark = own.mark if own is not None else entry.mark
        draft.problems.add(message, mark, path=entry.node.path, severity="note")


def _embedded_settings(draft: Draft) -> None:
    """Name what is said of the embedded server where another one is used, which `${REDIS_URL:-embedded}` may decide."""
    entry = draft.entries("redis").get("appendfsync")
    if entry is not None and draft.redis.url != "embedded":
        message = (
            "is for the embedded server, so it does nothing here: set appendfsync in the configuration of Redis itself"
        )
        draft.problems.add(message, entry.mark, path=entry.node.path, severity="note")


def _exact_names(draft: Draft) -> None:
    """Name the streams and lists that look like patterns: they are read by their exact names."""
    for name, source in draft.sources.items():
        if isinstance(source, PubSubConfig):
            continue
        for read in source.reads:
            if is_glob(read):
                entry = draft.entries("sources")[name]
                message = f"{read!r} is read by its exact name: only pubsub knows patterns"
                draft.problems.warn(message, entry.mark, path=entry.node.path)


def _claims(draft: Draft) -> None:
    """Name the streams whose entries another router may take over while a slow attempt is still on its way."""
    timeouts = [sink.config.host.timeout for sink in draft.sinks.values() if sink.config is not None]
    longest = max(timeouts, default=0.0)
    for name, source in draft.sources.items():
        if isinstance(source, StreamConfig) and source.claim.idle < 2 * longest:
            entry = draft.entries("sources")[name]
            message = f"claim.idle should be at least twice the longest timeout of a sink ({longest:g} s)"
            draft.problems.warn(message, entry.mark, path=entry.node.path)


def _database(url: str) -> str:
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("db")
    if named:
        return named[0]
    return "" if parts.scheme in {"unix", ""} else parts.path.strip("/")
