"""The differences of another configuration: which sources and sinks go on untouched, which don't; floor 5, decides only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.config.models import Model, PubSubConfig, SourceConfig
from router.errors import ConfigError
from router.ops.loading import Loaded

_READ_BY_THE_PIPELINE = {"format", "id", "max_bytes"}
"""Keys of a source that say how its messages are read, and nothing of its connection."""

_SUBSCRIPTIONS = {"channels", "patterns"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Names that came, went, are another thing now, and stayed; each in the order of its configuration."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the difference as plain values; `kept` is a number."""
        return {
            "added": list(self.added),
            "changed": list(self.changed),
            "removed": list(self.removed),
            "kept": len(self.kept),
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """The work of a reload. Of `changed` sources, `switched` can stay connected and take other channels."""

    sources: Difference
    switched: frozenset[str]
    sinks: Difference
    routes: Difference
    sections: tuple[str, ...]
    """Other sections of the configuration that say something else."""

    def document(self, files: list[str]) -> dict[str, Any]:
        """Return the changes as plain values; `files` are those behind the configuration that changed."""
        return {
            "sources": self.sources.document(),
            "sinks": self.sinks.document(),
            "routes": self.routes.document(),
            "sections": list(self.sections),
            "files": files,
        }

    def told(self, files: list[str]) -> dict[str, str]:
        """Return what the log says: `added a, changed b`, by kind, where there are any."""
        told = {"sections": ", ".join(self.sections), "files": ", ".join(files)}
        for kind, difference in {"sources": self.sources, "sinks": self.sinks, "routes": self.routes}.items():
            parts = {"added": difference.added, "changed": difference.changed, "removed": difference.removed}
            told[kind] = "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)
        return {kind: said for kind, said in told.items() if said}


def changes(old: Loaded, new: Loaded) -> Changes:
    """Return what is different in `new`. Raises `ConfigError` for what takes another process."""
    _refuse(old, new)
    before, now = old.config, new.config
    sources = _difference(_connections(old), _connections(new))
    return Changes(
        sources=sources,
        switched=frozenset(n for n in sources.changed if _subscribes_elsewhere(before.sources[n], now.sources[n])),
        sinks=_difference(_identities(old), _identities(new)),
        routes=_difference(
            {route.id: route.model_dump() for route in before.routes},
            {route.id: route.model_dump() for route in now.routes},
        ),
        sections=tuple(
            section
            for section in ("schemas", "unmatched", "timezone", "dead_letters", "shutdown", "redis")
            if _plain(getattr(before, section)) != _plain(getattr(now, section))
        ),
    )


def _refuse(old: Loaded, new: Loaded) -> None:
    """Raise `ConfigError` for every difference that the running process can't take."""
    before, now = old.config, new.config
    fixed = {
        "redis.url": (before.redis.url, now.redis.url),
        "redis.key_prefix": (before.redis.key_prefix, now.redis.key_prefix),
        "redis.appendfsync": (before.redis.appendfsync, now.redis.appendfsync),
        "deliver": (_plain(before.deliver), _plain(now.deliver)),
        "admin": (_plain(before.admin), _plain(now.admin)),
    }
    problems = [
        new.placed(
            f"a reload can't change `{path}`: restart the router for it, or take the change back",
            *path.split("."),
        )
        for path, (then, after) in fixed.items()
        if then != after
    ]
    if problems:
        raise ConfigError(problems)


def _difference(before: Mapping[str, object], now: Mapping[str, object]) -> Difference:
    return Difference(
        added=tuple(name for name in now if name not in before),
        removed=tuple(name for name in before if name not in now),
        changed=tuple(name for name in now if name in before and now[name] != before[name]),
        kept=tuple(name for name in now if name in before and now[name] == before[name]),
    )


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Model) else value


def _connections(loaded: Loaded) -> dict[str, object]:
    """All that each source is made of; how its messages are read is the pipeline's."""
    return {name: config.model_dump(exclude=_READ_BY_THE_PIPELINE) for name, config in loaded.config.sources.items()}


def _subscribes_elsewhere(before: SourceConfig, now: SourceConfig) -> bool:
    """Return whether the same connection is to have other subscriptions, and that is all."""
    if not isinstance(before, PubSubConfig) or not isinstance(now, PubSubConfig):
        return False
    rest = _READ_BY_THE_PIPELINE | _SUBSCRIPTIONS
    return before.model_dump(exclude=rest) == now.model_dump(exclude=rest)


def _identities(loaded: Loaded) -> dict[str, object]:
    """All that a sink's worker is made of. What it renders by can be exchanged while it goes on."""
    plugins = {kind: _version(loaded, kind) for kind in {sink.name for sink in loaded.types.values()}}
    return {
        name: (
            plugins[loaded.types[name].name],
            sink.host.model_dump(),
            sink.options.model_dump(),
            loaded.config.timezone if sink.host.order_by else None,
        )
        for name, sink in loaded.config.sinks.items()
    }


def _version(loaded: Loaded, kind: str) -> object:
    """Which code a type of sink is: a file by its content, a package by its version."""
    for plugin in loaded.plugins.loaded:
        if kind in plugin.sinks:
            return (kind, plugin.origin, plugin.path, plugin.digest, plugin.version)
    return kind
