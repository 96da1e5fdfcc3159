"""The compilation of `match` and `when` of routes. Each fault is reported at its place; floor 4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from router.core.conditions.clauses import NUMBERS
from router.core.conditions.condition import Condition, When
from router.core.conditions.match import BrokenMatchError, Match, compile_match
from router.core.rendering import TemplateEnvironment
from router.core.rendering.faults import BrokenExpressionError
from router.core.wiring.channel_sets import meet
from router.core.wiring.reach import Reach, globs_of
from router.ops.loading.draft import Draft
from router.ops.loading.reading import typed
from router.ops.loading.reading.nodes import (
    Entry,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    find,
    items,
    plain,
    resolve,
    word,
)
from router.ops.loading.reading.problems import Problems

if TYPE_CHECKING:
    from router.core.conditions.reading import At

_TYPED = frozenset({*NUMBERS, "exists"})
"""Operators that need a number or a truth value. For these operators, a string from `${…}` is converted."""


def compiled(draft: Draft, environment: TemplateEnvironment) -> dict[str, Condition]:
    """Return the compiled conditions of routes by id; report faults. Routes without conditions are left out."""
    found: dict[str, Condition] = {}
    for route in items(draft.root.get("routes")):
        if not isinstance(route, Mapping):
            continue
        match, when = route.entries.get("match"), route.entries.get("when")
        condition = Condition(
            _match(match, draft.problems) if match else None,
            _when(when, environment, draft.problems) if when else None,
        )
        name = word(route.get("id"))
        if name is not None and (condition.match or condition.when):
            found[name] = condition
    return found


def _match(entry: Entry, problems: Problems) -> Match | None:
    """Return the compiled `match` of a route. Report its faults, and return None if there are any."""
    node = entry.node
    if node.faulty:
        return None
    if isinstance(node, Scalar) and node.empty:
        problems.add(
            "must not be empty, because the route would then take every event; write paths and conditions, or remove `match`",
            node,
        )
        return None
    if not isinstance(node, Mapping) and not isinstance(node, Sequence):
        problems.add(typed.expected("a mapping of paths to conditions", node), node)
        return None
    try:
        match = compile_match(data_of(node), lambda at: _place(_mark(entry, at)))
    except BrokenMatchError as broken:
        for fault in broken.faults:
            wrong = below(entry, fault.at)
            if not wrong.node.faulty:
                wrong.node.faulty = True
                problems.add(fault.message, _shown_at(wrong, in_key=fault.in_key), path=wrong.node.path)
        return None
    for at in match.nulls:
        message = "`null` holds only for a field that exists and is null; for a missing field, write `exists: false`"
        null = below(entry, at).node
        problems.add(message, null.mark, path=null.path, severity="note")
    for doubt in match.doubts:
        problems.warn(doubt.message, below(entry, doubt.at).node)
    return match


def _when(entry: Entry, environment: TemplateEnvironment, problems: Problems) -> When | None:
    node = entry.node
    if node.faulty:
        return None
    if isinstance(node, Scalar) and node.empty:
        problems.add(
            "must not be empty, because the route would then take every event; write an expression, or remove `when`",
            node,
        )
        return None
    source = typed.text(node, problems)
    if source is None:
        return None
    try:
        return When(source, environment)
    except BrokenExpressionError as error:
        problems.add(str(error), node)
        return None


def data_of(node: Node, operator: str = "") -> Any:
    """Return the values of a `match`. A value from `${…}` is converted only if the operator needs another type."""
    if isinstance(node, Mapping):
        return {key: data_of(entry.node, key) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [data_of(item, operator) for item in node.items]
    assert isinstance(node, Scalar)
    if node.expanded and operator in _TYPED and isinstance(node.value, str):
        return resolve(node.value)
    return plain(node)


def below(entry: Entry, at: At) -> Entry:
    """Return the entry at a path below an entry."""
    for part in at:
        node = entry.node
        if isinstance(node, Mapping):
            entry = node.entries[str(part)]
        elif isinstance(node, Sequence) and isinstance(part, int):
            item = node.items[part]
            entry = Entry(item.mark, item)
    return entry


def _shown_at(entry: Entry, *, in_key: bool) -> Mark:
    """Return the place of a fault: of the value, or of the key if the key is wrong or the value is a collection."""
    return entry.mark if in_key or isinstance(entry.node, Mapping | Sequence) else entry.node.mark


def _mark(entry: Entry, at: At) -> Mark:
    return below(entry, at).mark


def _place(mark: Mark) -> str:
    return f"{mark.file.name}:{mark.line}:{mark.column}"


def without_fields(draft: Draft) -> Iterator[tuple[Entry, str]]:
    """Yield the `match` of each route that may get events of a source with `format: text`, and the name of this source.

    Events of such a source have no fields, so no `match` with a path holds for these events.
    """
    reach = Reach(draft.sources, [], draft.routes)
    texts = [name for name, source in draft.sources.items() if source.format == "text"]
    places = {word(find(route, "id")): route for route in items(draft.root.get("routes"))}
    for route in draft.routes:
        node = places.get(route.id)
        if route.match is not None and isinstance(node, Mapping):
            for name in texts:
                if name in reach.sources_of(route) and meet(reach.reads[name], globs_of(route)):
                    yield node.entries["match"], name
