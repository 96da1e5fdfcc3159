"""The draft of a configuration while it is checked; floor 4."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from router.config.models import (
    AdminConfig,
    DeadLettersConfig,
    DeliverOnly,
    PluginsConfig,
    RedisConfig,
    RouteConfig,
    RouteSink,
    SchemaConfig,
    ShutdownConfig,
    SourceConfig,
)
from router.core.conditions import Condition
from router.core.routing import SchemaRule
from router.errors import Problem
from router.ops.loading.checking.sinks import CheckedSink, TemplateReader
from router.ops.loading.reading.nodes import Entry, Mapping, Node, items, word
from router.ops.loading.reading.problems import Problems
from router.plugin_loading.plugin_manager import Plugins

if TYPE_CHECKING:
    from router.config.cases import Case
    from router.ops.loading.lookup_entries import CheckedLookup


class Draft(msgspec.Struct):
    """The merged tree of a configuration, and the parts that are checked so far."""

    root: Mapping
    problems: Problems
    plugins: Plugins
    environ: MappingType[str, str]
    files: set[Path]
    folders: set[Path]
    secrets: set[str]
    unknown: MappingType[str, Problem]
    """The reasons why values are unknown, by the paths of their placeholders."""
    reader: TemplateReader = msgspec.field(default_factory=TemplateReader)
    redis: RedisConfig = msgspec.field(default_factory=RedisConfig)
    plugin_paths: PluginsConfig = msgspec.field(default_factory=PluginsConfig)
    allow_commands: bool = False
    sources: dict[str, SourceConfig] = msgspec.field(default_factory=dict)
    schemas: list[tuple[SchemaConfig, SchemaRule, Node]] = msgspec.field(default_factory=list)
    lookups: dict[str, CheckedLookup] = msgspec.field(default_factory=dict)
    sinks: dict[str, CheckedSink] = msgspec.field(default_factory=dict)
    routes: list[RouteConfig] = msgspec.field(default_factory=list)
    conditions: dict[str, Condition] = msgspec.field(default_factory=dict)
    """The compiled `match` and `when` by route id."""
    lookups_used: dict[tuple[str, str | None], frozenset[str]] = msgspec.field(default_factory=dict)
    """The names of the lookups that deliveries need, by (sink, route id). The route id is None for the sink's own
    options."""
    places: dict[tuple[str, str | None], Mapping] = msgspec.field(default_factory=dict)
    """The written options by (sink, route id), for the routes that override options of a sink."""
    unmatched: Literal["drop", "dead-letter"] | list[RouteSink] = "drop"
    deliver: Literal["send", "print"] | DeliverOnly = "send"
    timezone: str = "UTC"
    dead_letters: DeadLettersConfig = msgspec.field(default_factory=DeadLettersConfig)
    admin: AdminConfig = msgspec.field(default_factory=AdminConfig)
    shutdown: ShutdownConfig = msgspec.field(default_factory=ShutdownConfig)
    cases: list[Case] = msgspec.field(default_factory=list)

    def entries(self, section: str) -> dict[str, Entry]:
        """Return the entries of a section; empty if the section is not a mapping."""
        node = self.root.get(section)
        return node.entries if isinstance(node, Mapping) else {}

    def routes_by_id(self) -> dict[str | None, Mapping]:
        """The nodes of the routes, by id."""
        return {word(route.get("id")): route for route in items(self.root.get("routes")) if isinstance(route, Mapping)}

    def remark(self, message: str, entry: Entry, severity: str = "warning", at: Node | None = None) -> None:
        """Add a warning or a note on an entry, at its key or at `at`."""
        mark = entry.mark if at is None else at.mark
        self.problems.add(message, mark, path=entry.node.path, severity=severity)
