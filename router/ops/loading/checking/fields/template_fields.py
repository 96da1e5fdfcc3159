"""Warnings about templates and expressions that read a field of the payload that no event can have; floor 4."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from router.core.matching import exactly
from router.core.rendering import TemplateEnvironment
from router.core.rendering.faults import dotted
from router.core.rendering.walk import Marker, Part, Path, walk
from router.core.routing import SchemaRule
from router.core.validation import Schema
from router.core.wiring.channel_sets import meet
from router.core.wiring.reach import Reach, globs_of
from router.core.wiring.schema_fields import Absent, absent
from router.ops.loading.checking import compiling
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Node, quoted
from router.ops.loading.reading.problems import did_you_mean
from router.options import is_template

if TYPE_CHECKING:
    from router.core.rendering.syntax.checking import Source
    from router.core.rendering.syntax.reads import Read

_MOST = 10
"""The maximum number of names of fields in one message."""


class Absences:
    """A cache of the fields that schemas lack. A thousand routes may read the same field."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Absent | None] = {}

    def absent(self, schema: Schema, path: tuple[object, ...]) -> Absent | None:
        """Return the result of `schema_fields.absent` for a schema."""
        key = (id(schema), path, *map(type, path))  # with the types, because 1 == 1.0 == True
        if key not in self._known:
            self._known[key] = absent(schema.document, path)
        return self._known[key]


class Use:
    """A route that uses a template or a condition, directly or by a sink."""

    def __init__(self, draft: Draft, reach: Reach, number: int, absences: Absences) -> None:
        self._draft = draft
        self._reach = reach
        self._number = number
        self.absent = absences.absent

    @property
    def route(self) -> str:
        """The id of the route."""
        return self._draft.routes[self._number].id

    @cached_property
    def sources(self) -> list[str]:
        """The sources from which the route takes events."""
        return self._reach.sources_of(self._draft.routes[self._number])

    @cached_property
    def reads(self) -> list[str]:
        """The names and globs that the route's sources read and that match a channel of the route."""
        globs = globs_of(self._draft.routes[self._number])
        pairs = (zip(self._draft.sources[name].reads, self._reach.reads[name], strict=True) for name in self.sources)
        return list(dict.fromkeys(read for each in pairs for read, glob in each if meet((glob,), globs)))

    def may_come_from(self, channel: str) -> bool:
        """Return whether the route may get an event from this channel."""
        globs, name = globs_of(self._draft.routes[self._number]), (exactly(channel),)
        return any(meet(self._reach.reads[source], globs, name) for source in self.sources)

    @cached_property
    def possible(self) -> tuple[SchemaRule, ...]:
        """The schemas that an event of this route may have."""
        found: dict[int, SchemaRule] = {}
        for source in self._reach.sources_of(self._draft.routes[self._number]):
            for place, (_, rule, _) in enumerate(self._draft.schemas):
                if self._reach.takes(self._number, self._reach.with_schema(source, place)):
                    found[place] = rule
        return tuple(found.values())

    @cached_property
    def schemas(self) -> tuple[SchemaRule, ...] | None:
        """The schemas of the events of this route; None without any schema, or if an event may have no schema."""
        sources = self._reach.sources_of(self._draft.routes[self._number])
        if any(self._reach.takes(self._number, self._reach.without_schema(source)) for source in sources):
            return None
        return self.possible if self.possible and all(rule.schema is not None for rule in self.possible) else None


class TemplateUses(NamedTuple):
    """A template or expression of a configuration, its place, and every route that uses it."""

    node: Node
    source: Source
    uses: list[Use]
    only_here: bool
    """True if only routes use the text: no fallback, `unmatched` or `dead_letters.notify` sends events to its sink."""
    is_expression: bool


def look_for_absent_fields(draft: Draft, templates: Iterable[TemplateUses]) -> None:
    """Warn about templates and expressions that read a field that no event can have; note probably misspelt fields."""
    for template in templates:
        from router.core.rendering.syntax.reads import fields_read

        for read in fields_read(template.source):
            _judge(read, template, draft)


def templates_of(draft: Draft, uses: Sequence[Use], environment: TemplateEnvironment) -> Collection[TemplateUses]:
    """Return the templates and expressions of sinks and routes, each with all routes that use the text.

    `uses` are the routes, in their order. `environment` is the environment in which the templates were compiled.
    """
    elsewhere, written = _sinks_reached_otherwise(draft), draft.routes_by_id()
    own_texts = {name: _texts(sink.config.options) for name, sink in draft.sinks.items() if sink.config is not None}
    found: dict[int, TemplateUses] = {}

    def add(node: Node | None, text: str, use: Use, *, only_here: bool, expression: bool = False) -> None:
        if node is None:
            return
        if id(node) not in found:
            source = _parsed(text, environment, expression=expression)
            found[id(node)] = TemplateUses(node, source, [], only_here, expression)
        found[id(node)].uses.append(use)

    for route, use in zip(draft.routes, uses, strict=True):
        if not route.enabled:
            continue
        if isinstance(route.expires, str):
            add(written[route.id].get("expires"), route.expires, use, only_here=True)
        if route.when is not None:
            add(written[route.id].get("when"), route.when, use, only_here=True, expression=True)
        for target in route.sinks:
            only_here = target.sink not in elsewhere
            sink = draft.sinks[target.sink]
            assert sink.config is not None  # there are no errors
            own = target.options is None
            texts = own_texts[target.sink] if own else _texts(target.options)
            keys = sink.keys if own else draft.places[target.sink, route.id]
            for path, text in texts:
                add(compiling.node_at(path, keys), text, use, only_here=only_here)
            for name in sorted(draft.lookups_used.get((target.sink, route.id), ())):
                lookup = draft.lookups[name]
                assert lookup.config is not None  # there are no errors
                node = lookup.keys.get("url") or lookup.keys.get("key")
                add(node, lookup.config.source, use, only_here=only_here)
            host = sink.config.host
            if host.order_by is not None:
                add(sink.keys.get("order_by"), host.order_by, use, only_here=only_here, expression=True)
            if target.only_if is not None:
                node = compiling.of_target(draft, route.id, target.sink, "only_if")
                add(node, target.only_if, use, only_here=True, expression=True)
            elif host.only_if is not None:
                add(sink.keys.get("only_if"), host.only_if, use, only_here=only_here, expression=True)
    return found.values()


def _parsed(text: str, environment: TemplateEnvironment, *, expression: bool) -> Source:
    from router.core.rendering.expressions import parse_expression
    from router.core.rendering.syntax.checking import parse

    return parse_expression(text, environment) if expression else parse(text, environment.plain)


def _sinks_reached_otherwise(draft: Draft) -> set[str]:
    """Return the sinks that events reach without a route: by a fallback, `unmatched` or `dead_letters.notify`."""
    names = {name for sink in draft.sinks.values() if sink.config is not None for name in sink.config.host.fallback}
    if isinstance(draft.unmatched, list):
        names.update(target.sink for target in draft.unmatched)
    if draft.dead_letters.notify is not None:
        names.update(draft.dead_letters.notify.sinks)
    return names


def _texts(options: Any) -> list[tuple[Path, str]]:
    """Return every template of a sink's options, including addresses, with its path."""
    found: list[tuple[Path, str]] = []

    def leaf(_marker: Marker, value: Any, path: Path, _model: BaseModel) -> Part:
        values = (
            {(*path, place): each for place, each in enumerate(value)} if isinstance(value, list) else {path: value}
        )
        found.extend((at, text) for at, text in values.items() if isinstance(text, str) and is_template(text))
        return Part(value, None)

    walk(options, leaf)
    return found


def _judge(read: Read, template: TemplateUses, draft: Draft) -> None:
    """Report a field that no event of a route can have.

    A template may read a field only under a condition. Such a field is reported only if no event of any route can have
    the field.
    """
    verdicts = [(use, absent_in_all(read.path, use)) for use in template.uses]
    if not read.always and not (template.only_here and all(verdict for _, verdict in verdicts)):
        return
    for use, verdict in verdicts:
        if verdict is None:
            continue
        told = told_of(dotted(("payload", *read.path)), str(read.path[-1]), use, verdict)
        if told is not None:
            place = f"{read.file}: " if read.file else ""
            mark = compiling.mark_of(template.node, read.line)
            draft.problems.add(f"{place}{told.message}", mark, path=template.node.path, severity=told.severity)
            return


def absent_in_all(path: Sequence[object], use: Use) -> list[Absent] | None:
    """Return for each schema of the route why the schema lacks a field; None if an event may have the field."""
    if use.schemas is None:
        return None
    found = [use.absent(rule.schema, tuple(path)) for rule in use.schemas if rule.schema is not None]
    return [each for each in found if each is not None] if None not in found else None


class Told(NamedTuple):
    """The problem to report about a field."""

    message: str
    severity: str


def told_of(field: str, name: str, use: Use, verdict: Sequence[Absent]) -> Told | None:
    """Return the problem of a field that the schemas lack.

    Returns None if the schemas allow unlisted fields and list no similar name. `field` is the path for the message, and
    `name` is the last part of this path.
    """
    assert use.schemas is not None
    closed = all(each.closed and rule.mode == "enforce" for rule, each in zip(use.schemas, verdict, strict=True))
    if not closed and not any(each.near for each in verdict):
        return None
    files = list(dict.fromkeys(rule.file for rule in use.schemas))
    known = list(dict.fromkeys(name for each in verdict for name in each.known))
    meant = did_you_mean(name, known)
    if not closed:
        return Told(f"{' and '.join(files)} {'lists' if len(files) == 1 else 'list'} no {field}{meant}", "note")
    listed = ", ".join(known[:_MOST]) + (", …" if len(known) > _MOST else "")
    allowed = f"{files[0]} allows {listed or 'no fields'}" if len(files) == 1 else f"{' and '.join(files)} exclude it"
    return Told(f"no event of the route {quoted(use.route)} can have {field}: {allowed}{meant}", "warning")
