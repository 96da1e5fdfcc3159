"""Checks of the sections `routes` and `unmatched`: names must exist, and only templates may be overridden; floor 4."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Any, Literal

from router.config.models import Model, OnlyIf, RouteConfig, RouteSink
from router.ops.loading.checking.sinks import (
    HOST_KEYS,
    CheckedSink,
    TemplateReader,
    empty_addresses,
    literal_secrets,
    look_for_cuts,
)
from router.ops.loading.reading import shapes, typed
from router.ops.loading.reading.nodes import Entry, Mapping, Node, Scalar, Sequence, child_path, quoted, word, words
from router.ops.loading.reading.problems import Problems, unknown


class _Conditional(Model):
    only_if: OnlyIf | None = None


class RouteChecker:
    """The checker of routes against the configured sources and sinks."""

    def __init__(
        self,
        sources: list[str],
        names: list[str],
        sinks: MappingType[str, CheckedSink],
        problems: Problems,
        reader: TemplateReader,
    ) -> None:
        self._sources = sources
        self._sinks = sinks
        self._names = names  # all configured sinks, even if they have faults
        self._problems = problems
        self._reader = reader
        self.places: dict[tuple[str, str | None], Mapping] = {}
        """The nodes of the options by (sink, route), for places in messages."""

    def routes(self, node: Sequence) -> list[RouteConfig]:
        """Return the routes of the list that have no faults; report faults."""
        if not node.items:
            self._problems.add("must not be empty: at least one route is needed", node)
        found: list[RouteConfig] = []
        first: dict[str, Scalar] = {}
        for item in node.items:
            keys = typed.mapping(item, self._problems)
            if keys is None:
                continue
            identity = keys.get("id")
            if isinstance(identity, Scalar) and isinstance(identity.value, str):
                self._once(identity, first)
            route = self._route(keys)
            if route is not None:
                found.append(route)
        return found

    def _once(self, identity: Scalar, first: dict[str, Scalar]) -> None:
        earlier = first.setdefault(str(identity.value), identity)
        if earlier is not identity:
            where = f"{earlier.mark.file.name}:{earlier.mark.line}"
            self._problems.add(
                f"a route {quoted(str(identity.value))} is already defined in {where}; give this route another id",
                identity,
            )

    def _route(self, keys: Mapping) -> RouteConfig | None:
        identity = keys.get("id")
        name = str(identity.value) if isinstance(identity, Scalar) else ""
        sinks = self._targets(keys, name)
        entries = {key: entry for key, entry in keys.entries.items() if key != "sinks"}
        if "sinks" in keys.entries:  # checked above
            entries["sinks"] = Entry(keys.entries["sinks"].mark, _stand_in(keys))
        checked = typed.check(RouteConfig, Mapping(keys.mark, entries, path=keys.path), self._problems)
        self._known_sources(keys.get("sources"))
        if checked is None or not sinks:
            return None
        return checked.model_copy(update={"sinks": sinks})

    def _known_sources(self, node: Node | None) -> None:
        for item, name in words(node):
            if self._sources and name not in self._sources:
                self._problems.add(unknown("source", name, self._sources), item)

    def _targets(self, keys: Mapping, route: str) -> list[RouteSink]:
        """Return the sinks of a route that have no faults, with their overrides; report faults."""
        node = typed.sequence(keys.get("sinks"), self._problems)
        if node is None:
            return []
        if not node.items:
            self._problems.add("must not be empty: a route needs at least one sink", node)
        found: list[RouteSink] = []
        first: dict[str, Node] = {}
        for item in node.items:
            named = self._named(item)
            if named is None:
                continue
            if first.setdefault(named, item) is not item:
                self._problems.add(f"this route names the sink {quoted(named)} twice; remove one of the two", item)
                continue
            if isinstance(item, Mapping):
                found.append(self._overridden(item, named, route))
            else:
                found.append(RouteSink(sink=named))
        return found

    def _named(self, item: Node) -> str | None:
        """Return the sink that an item names. If there is no such sink, report this and return None."""
        node = item
        if isinstance(item, Mapping):
            inner = item.get("sink")
            if inner is None:
                path = child_path(item.path, "sink")
                self._problems.add(
                    "`sink` is required: write the name of the sink whose options the route overrides",
                    item.mark,
                    path=path,
                )
                return None
            node = inner
        name = typed.text(node, self._problems)
        if name is not None and self._names and name not in self._names:
            self._problems.add(unknown("sink", name, self._names), node)
            return None
        return name

    def _overridden(self, item: Mapping, name: str, route: str) -> RouteSink:
        """Return the sink with the route's overrides.

        The result has no overrides if none are written, or if the overrides have faults.
        """
        sink = self._sinks.get(name)
        own = {key: entry for key, entry in item.entries.items() if key != "sink"}
        if sink is None or not own:
            return RouteSink(sink=name)
        condition = own.pop("only_if", None)
        part = Mapping(item.mark, {"only_if": condition} if condition else {}, path=item.path)
        conditional = typed.check(_Conditional, part, self._problems)
        options = self._options(item, own, sink, route)
        return RouteSink(sink=name, options=options, only_if=conditional and conditional.only_if)

    def _options(self, item: Mapping, own: dict[str, Entry], sink: CheckedSink, route: str) -> Any:
        """Return the sink's options with the route's overrides; None if there is a fault."""
        model = sink.type.options
        fields = shapes.fields(model)
        allowed = [key for key, field in fields.items() if shapes.anywhere(shapes.of_field(field), shapes.is_template)]
        for key, entry in own.items():
            if key not in allowed:
                self._refuse(key, entry, sink.name, allowed, known=key in fields or key in HOST_KEYS)
        own = {key: entry for key, entry in own.items() if key in allowed}
        base = {key: entry for key, entry in sink.keys.entries.items() if key in fields}
        merged = Mapping(item.mark, {**base, **own}, path=item.path)
        self.places[sink.name, route] = merged
        overrides = Mapping(item.mark, own, path=item.path)
        look_for_cuts(overrides, model, self._problems)
        empty_addresses(overrides, model, self._problems)
        literal_secrets(overrides, model, self._problems)
        if sink.config is None:
            return None
        context = self._reader.context(sink.config.host)
        return typed.check(model, merged, self._problems, at=Entry(item.mark, merged), context=context)

    def _refuse(self, key: str, entry: Entry, sink: str, allowed: list[str], *, known: bool) -> None:
        if known:
            listed = f"the templates ({', '.join(allowed)}) and `only_if`" if allowed else "`only_if`"
            message = f"a route can't override `{key}` of {sink}; of this sink, a route can override only {listed}"
            self._problems.add(message, entry.mark, path=entry.node.path)
            entry.node.faulty = True
        else:
            typed.unknown_key(key, entry, [*allowed, "only_if"], self._problems)

    def unmatched(self, node: Node) -> Literal["drop", "dead-letter"] | list[RouteSink]:
        """Return the value of `unmatched`; `drop` if it has a fault."""
        if isinstance(node, Scalar) and node.value in {"drop", "dead-letter"}:
            return "drop" if node.value == "drop" else "dead-letter"
        if not isinstance(node, Sequence):
            shown = word(node) or ""
            if shown in self._names:
                self._problems.add(f"write the sinks as a list: [{shown}]", node)
            elif shown:
                self._problems.add(unknown("word", shown, ["drop", "dead-letter", "a list of sinks"]), node)
            else:
                self._problems.add(typed.expected("drop, dead-letter or a list of sinks", node), node)
            return "drop"
        if not node.items:
            self._problems.add("must not be empty: list sinks, or write drop", node)
        found: dict[str, RouteSink] = {}
        for item in node.items:
            if isinstance(item, Mapping):
                self._problems.add("must be the name of a sink, because only a route can override options", item)
                continue
            name = self._named(item)
            if name in found:
                self._problems.add(f"the sink {quoted(name)} appears twice in this list; remove one of the two", item)
            elif name is not None:
                found[name] = RouteSink(sink=name)
        return list(found.values())


def _stand_in(keys: Mapping) -> Node:
    """Return a placeholder list of sinks that the model accepts. The real sinks are checked separately."""
    mark = keys.entries["sinks"].mark
    return Sequence(mark, [Mapping(mark, {"sink": Entry(mark, Scalar(mark, "-", "-"))})])
