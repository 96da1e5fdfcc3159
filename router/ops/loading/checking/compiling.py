"""Compiles the templates and expressions of every sink and route, and reports each fault with its place; floor 4."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from typing import TYPE_CHECKING, Any

from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.dependencies import cycle, in_order
from router.core.rendering import OptionsTemplate, TemplateEnvironment, TemplateFault, TemplateFaults, compile_options
from router.core.rendering.faults import BrokenExpressionError
from router.core.rendering.walk import Path, default_in
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Mapping, Mark, Node, Scalar, Sequence, child_path, find, items, word
from router.ops.loading.reading.problems import Problems, faulty_default

if TYPE_CHECKING:
    from router.core.rendering.expressions import Expiry, Expression

Key = tuple[str, str | None]
"""A sink, and a route that overrides options of the sink. The route is None for the sink's own options."""


def compiled(draft: Draft, environment: TemplateEnvironment) -> dict[Key, OptionsTemplate]:
    """Return the compiled options of each sink, and of each (sink, route) with overrides; report faults."""
    found: dict[Key, OptionsTemplate] = {}
    for name, sink in draft.sinks.items():
        if sink.config is not None:
            template = _compile(sink.config.options, environment, sink.keys, sink.type.origin, draft.problems)
            if template is not None:
                found[name, None] = template
    for route in draft.routes:
        for target in route.sinks:
            key = (target.sink, route.id)
            own = (
                found.get((target.sink, None))
                if target.options is None
                else _compile(
                    target.options, environment, draft.places[key], draft.sinks[target.sink].type.origin, draft.problems
                )
            )
            if own is not None:
                found[key] = own
    return found


def lookups(draft: Draft, environment: TemplateEnvironment) -> dict[str, LookupDefinition]:
    """Return the lookups with their compiled keys. Faults, and cycles of keys that need each other, are reported."""
    if not draft.lookups:
        return {}
    from router.config.lookups import HttpLookupConfig
    from router.core.lookups.lookup_key import LookupKey

    found: dict[str, LookupDefinition] = {}
    needs: dict[str, frozenset[str]] = {}
    for name, lookup in draft.lookups.items():
        if lookup.config is None:
            continue
        is_url = isinstance(lookup.config.keys, HttpLookupConfig)
        place = "url" if is_url else "key"
        node = lookup.keys.get(place)
        try:
            key = LookupKey(lookup.config.source, environment, f"lookups.{name}.{place}", url=is_url)
        except BrokenExpressionError as error:
            draft.problems.add(str(error), node)
            continue
        needs[name] = key.names & environment.lookups
        way = cycle(needs, name)
        if way:
            draft.problems.add(f"the key of a lookup must not depend on the lookup itself: {' → '.join(way)}", node)
            needs[name] = frozenset()  # so that the cycle is reported only once, and not for each lookup in it
        found[name] = LookupDefinition(name, lookup.config, key, needs[name], lookup.type)
    return found


def order_by(draft: Draft, environment: TemplateEnvironment) -> dict[str, Expression]:
    """Return the compiled `order_by` of each sink with this key; report faults."""
    found = {}
    for sink in draft.sinks.values():
        source = None if sink.config is None else sink.config.host.order_by
        if source is not None:
            found[sink.name] = _expression("order_by", source, sink.keys.get("order_by"), draft, environment)
    return {name: expression for name, expression in found.items() if expression is not None}


def only_if(draft: Draft, environment: TemplateEnvironment) -> dict[Key, Expression]:
    """Return the compiled `only_if` of sinks, and of routes that override this key of a sink; report faults."""
    found: dict[Key, Expression | None] = {}
    for name, sink in draft.sinks.items():
        source = None if sink.config is None else sink.config.host.only_if
        if source is not None:
            found[name, None] = _expression("only_if", source, sink.keys.get("only_if"), draft, environment)
    for route in draft.routes:
        for target in route.sinks:
            if target.only_if is not None:
                node = of_target(draft, route.id, target.sink, "only_if")
                found[target.sink, route.id] = _expression("only_if", target.only_if, node, draft, environment)
    return {key: expression for key, expression in found.items() if expression is not None}


def lookups_used(
    lookups: MappingType[str, LookupDefinition],
    templates: MappingType[Key, OptionsTemplate],
    only_if: MappingType[Key, Expression],
) -> dict[Key, frozenset[str]]:
    """Return the lookups that each (sink, route) needs in templates, in `only_if`, and in the keys of needed lookups."""
    if not lookups:
        return {}
    needs = {name: lookup.needs for name, lookup in lookups.items()}
    found = {}
    for key, template in templates.items():
        condition = only_if.get(key) or only_if.get((key[0], None))
        names = template.names | (condition.names if condition is not None else frozenset())
        found[key] = frozenset(name for group in in_order(needs, names & needs.keys()) for name in group)
    return found


def _expression(
    where: str, source: str, node: Node | None, draft: Draft, environment: TemplateEnvironment
) -> Expression | None:
    """Return the compiled expression at a node, the value of the key `where`.

    If the expression has faults, report them and return None.
    """
    from router.core.rendering.expressions import Expression

    try:
        return Expression(source, environment, where)
    except BrokenExpressionError as error:
        for fault in error.faults:
            mark = None if node is None else mark_of(node, fault.line)
            draft.problems.add(fault.message, mark, path=None if node is None else node.path)
        return None


def expires(draft: Draft, environment: TemplateEnvironment) -> dict[str, Expiry]:
    """Return the compiled `expires` of each route with this key; report faults."""
    found: dict[str, Expiry] = {}
    for route in draft.routes:
        if route.expires is not None:
            from router.core.rendering.expressions import Expiry

            try:
                found[route.id] = Expiry(route.expires, environment)
            except BrokenExpressionError as error:
                draft.problems.add(str(error), _of_route(draft, route.id, "expires"))
    return found


def _of_route(draft: Draft, route: str, key: str) -> Node | None:
    """Return the node at a key of a route."""
    return next((find(item, key) for item in items(draft.root.get("routes")) if word(find(item, "id")) == route), None)


def of_target(draft: Draft, route: str, sink: str, key: str) -> Node | None:
    """Return the node at a key of a sink in a route."""
    targets = items(_of_route(draft, route, "sinks"))
    return next((find(item, key) for item in targets if word(find(item, "sink")) == sink), None)


def _compile(
    options: Any, environment: TemplateEnvironment, node: Mapping, plugin: str, problems: Problems
) -> OptionsTemplate | None:
    try:
        return compile_options(options, environment)
    except TemplateFaults as faults:
        for fault in faults.faults:
            default = default_in(options, fault.path)
            if default is None:
                _report(fault, node, problems)
            else:
                _report_default(fault, default, node, plugin, problems)
        return None


def _report_default(fault: TemplateFault, option: Path, options: Mapping, plugin: str, problems: Problems) -> None:
    """Report a fault in the default of an option that is not written."""
    node = node_at(option[:-1], options)
    key = str(option[-1])
    problems.add(faulty_default(key, plugin, fault.message), node.mark, path=child_path(node.path, key))


def _report(fault: TemplateFault, options: Mapping, problems: Problems) -> None:
    node = node_at(fault.path, options)
    if not node.faulty:
        problems.add(fault.message, mark_of(node, fault.line), path=node.path)


def node_at(path: Iterable[str | int], node: Node) -> Node:
    """Return the node at a path of a sink's options, or the nearest written node above.

    For a template in a file (`{file: NAME}`), return the node of the name.
    """
    for part in path:
        if isinstance(node, Mapping) and str(part) in node.entries:
            node = node.entries[str(part)].node
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
    if isinstance(node, Mapping) and set(node.entries) == {"file"}:
        node = node.entries["file"].node
    return node


def mark_of(node: Node, line: int | None) -> Mark:
    """Return the place of a line of a template.

    If the template is a literal block (`|`), the place is this line in the configuration. For any other template, it is
    the beginning of the template.
    """
    if not isinstance(node, Scalar) or node.style != "|" or line is None:
        return node.mark
    number = node.mark.line + line
    text = node.mark.file.line(number)
    return Mark(node.mark.file, number, len(text) - len(text.lstrip()) + 1)
