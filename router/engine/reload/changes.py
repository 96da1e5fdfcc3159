"""The differences between two configurations: which sources, sinks and lookups are new, removed or changed; floor 5, pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.config.models import Model, PubSubConfig, RouteConfig, SourceConfig
from router.errors import ConfigError
from router.ops.loading import Loaded
from router.plugin_loading.plugin_manager import LoadedPlugin

_READ_BY_THE_PIPELINE = {"format", "id", "max_bytes"}
"""The keys of a source that affect only the decoding of its messages, not its connection."""

_SUBSCRIPTIONS = {"channels", "patterns"}

_SWITCHED = _SUBSCRIPTIONS | {"max_read_ahead"}
"""The keys of a pub/sub source that can be changed without a new connection."""


class Difference(msgspec.Struct, frozen=True):
    """The names that were added, removed, changed and kept.

    Removed names are in the order of the old configuration, all other names in the order of the new one.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the difference as plain values: lists of names, and the number of kept names."""
        return {
            "added": list(self.added),
            "changed": list(self.changed),
            "removed": list(self.removed),
            "kept": len(self.kept),
        }


class Changes(msgspec.Struct, frozen=True):
    """The changes of a reload. `switched` are the changed sources that need no new connection."""

    sources: Difference
    switched: frozenset[str]
    sinks: Difference
    routes: Difference
    lookups: Difference
    sections: tuple[str, ...]
    """The other changed sections of the configuration."""

    def document(self, files: list[str]) -> dict[str, Any]:
        """Return the changes as plain values; `files` are the changed files of the configuration."""
        return {
            **{kind: difference.document() for kind, difference in self._differences().items()},
            "sections": list(self.sections),
            "files": files,
        }

    def log_fields(self, files: list[str]) -> dict[str, str]:
        """Return the changes as fields of a log line, such as `added a; changed b`. Empty fields are left out."""
        fields = {"sections": ", ".join(self.sections), "files": ", ".join(files)}
        for kind, difference in self._differences().items():
            parts = {"added": difference.added, "changed": difference.changed, "removed": difference.removed}
            fields[kind] = "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)
        return {kind: text for kind, text in fields.items() if text}

    def _differences(self) -> dict[str, Difference]:
        """Return the differences, by section, in the sections with named entries."""
        return {"sources": self.sources, "sinks": self.sinks, "routes": self.routes, "lookups": self.lookups}


def changes(old: Loaded, new: Loaded) -> Changes:
    """Return the differences between `old` and `new`. Raises `ConfigError` if a change needs a restart of the router."""
    _refuse(old, new)
    before, now = old.config, new.config
    sources = _difference(_connections(old), _connections(new))
    return Changes(
        sources=sources,
        switched=frozenset(n for n in sources.changed if _keeps_connection(before.sources[n], now.sources[n])),
        sinks=_difference(_identities(old), _identities(new)),
        routes=_difference(
            {route.id: _route(route) for route in before.routes},
            {route.id: _route(route) for route in now.routes},
        ),
        lookups=_difference(_lookups(old), _lookups(new)),
        sections=tuple(
            section
            for section in ("allow_commands", "schemas", "unmatched", "timezone", "dead_letters", "shutdown", "redis")
            if _plain(getattr(before, section)) != _plain(getattr(now, section))
        ),
    )


def _refuse(old: Loaded, new: Loaded) -> None:
    """Raise `ConfigError` if there are differences that need a restart of the router."""
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
            f"a reload can't change `{path}`: restart the router to change it, or undo the change",
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


def _route(route: RouteConfig) -> object:
    """Return a route in a form that can be compared.

    The form includes the text of `match`, because 1, 1.0 and True are equal in Python.
    """
    return route.model_dump(), repr(route.match)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Model) else value


def _connections(loaded: Loaded) -> dict[str, object]:
    """Return the settings of each source's connection, without the settings that only the pipeline reads."""
    return {name: config.model_dump(exclude=_READ_BY_THE_PIPELINE) for name, config in loaded.config.sources.items()}


def _keeps_connection(before: SourceConfig, now: SourceConfig) -> bool:
    """Return whether a source can keep its connection.

    Only a pub/sub source can keep its connection. Every key that has changed must be in `_SWITCHED` or
    `_READ_BY_THE_PIPELINE`.
    """
    if not isinstance(before, PubSubConfig) or not isinstance(now, PubSubConfig):
        return False
    rest = _READ_BY_THE_PIPELINE | _SWITCHED
    return before.model_dump(exclude=rest) == now.model_dump(exclude=rest)


def _identities(loaded: Loaded) -> dict[str, object]:
    """Return, for each sink, the settings that can't be changed without a new worker.

    The templates of routes are not among these settings, because they can be replaced in a running worker.
    """
    plugins = {kind: _version(plugin) for plugin in loaded.plugins.loaded for kind in plugin.sinks}
    return {
        name: (
            (loaded.types[name].name, plugins.get(loaded.types[name].name)),
            sink.host.model_dump(),
            sink.options.model_dump(),
            loaded.config.timezone if sink.host.order_by else None,
            loaded.has_keys(name),
        )
        for name, sink in loaded.config.sinks.items()
    }


def _lookups(loaded: Loaded) -> dict[str, object]:
    """Return, for each lookup, the settings that can't be changed without a new store and a new cache."""
    plugins = {kind: _version(plugin) for plugin in loaded.plugins.loaded for kind in plugin.lookups}
    return {
        name: (
            None if lookup.type is None else plugins[lookup.type.name],
            lookup.config.keys,
            None if lookup.config.options is None else lookup.config.options.model_dump(),
        )
        for name, lookup in loaded.lookups.items()
    }


def _version(plugin: LoadedPlugin) -> object:
    """Return a value that changes with the code of a plugin: with the content of its files or the version of its
    package.
    """
    return (plugin.origin, plugin.path, plugin.digest, plugin.version)
