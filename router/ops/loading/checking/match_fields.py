"""Clauses of `match` that no event can meet, by the schemas of the route's channels; floor 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.core.conditions import paths
from router.core.conditions.clauses import AnyOf, Clause, Node, Not
from router.core.conditions.reading import At, Reader
from router.core.wiring.schema_values import Refusal, refusals
from router.ops.loading.checking.conditions import below, data_of
from router.ops.loading.checking.template_fields import Use, absent_in_all, told_of
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Entry, Mapping, Scalar, quoted
from router.ops.loading.reading.nodes import Sequence as Items


def look_at_matches(draft: Draft, uses: Sequence[Use]) -> None:
    """Warn of what a `match` asks for and the schemas of all events of its route rule out; note names that come near.

    `uses` are the routes, in their order.
    """
    written = draft.routes_by_id()
    for route, use in zip(draft.routes, uses, strict=True):
        if route.enabled and route.match is not None and use.schemas is not None:
            entry = written[route.id].entries["match"]
            for clause, at in _clauses(entry):
                _judge(clause, below(entry, at), use, draft)


def _clauses(entry: Entry) -> Iterator[tuple[Clause, At]]:
    """Yield the clauses of a `match` that name something an event should have, and where in it they stand."""
    places: list[At] = []

    def place(at: At) -> str:
        places.append(at)
        return str(len(places) - 1)

    def flat(nodes: Sequence[Node]) -> Iterator[Clause]:
        for node in nodes:
            if isinstance(node, Clause):
                yield node
            elif isinstance(node, AnyOf):
                yield from flat([each for alternative in node.alternatives for each in alternative])
            elif isinstance(node, Not):
                yield from flat(node.of)

    for clause in flat(Reader(place).match(data_of(entry.node))):
        if clause.place:  # `exists: false` has none, and may well ask for what is not there
            yield clause, places[int(clause.place)]


def _judge(clause: Clause, entry: Entry, use: Use, draft: Draft) -> None:
    """Report what is wrong with a clause, which stands at this entry."""
    keys = [segment if isinstance(segment, str) else 0 for segment in clause.path]
    verdict = absent_in_all(keys, use)
    if verdict is not None:
        told = told_of(f"payload.{paths.shown(clause.path)}", str(keys[-1]), use, verdict)
        if told is not None:
            draft.problems.add(told.message, entry.mark, path=entry.node.path, severity=told.severity)
        return
    for refusal in _refused_by_all(clause, use):
        wanted = _wanted(clause, entry, refusal)
        if not (isinstance(wanted.node, Scalar) and wanted.node.expanded):  # another environment, another value
            at = entry.mark if refusal.test is None or not isinstance(wanted.node, Scalar) else wanted.node.mark
            draft.problems.add(_told(refusal, use), at, path=wanted.node.path, severity="warning")


def _refused_by_all(clause: Clause, use: Use) -> list[Refusal]:
    """Return what every schema of a use refuses; nothing where one of them only warns."""
    assert use.schemas is not None
    if any(rule.mode != "enforce" for rule in use.schemas):
        return []
    found = [refusals(rule.schema.document, clause) for rule in use.schemas if rule.schema is not None]
    whole = [each[0] for each in found if each and each[0].test is None]
    if whole:  # a path that leads nowhere in one schema, and a value that another one does not have
        return whole[:1] if all(found) and len(whole) == len(found) else []
    others = [{(each.test, each.value) for each in of_schema} for of_schema in found[1:]]
    return [each for each in found[0] if all((each.test, each.value) in other for other in others)]


def _wanted(clause: Clause, entry: Entry, refusal: Refusal) -> Entry:
    """Return where a value that is refused stands: below the entry of its clause, as far as it is written out."""
    if refusal.test is None or refusal.value is None:
        return entry
    test, found = clause.tests[refusal.test], entry
    if isinstance(found.node, Mapping) and test.operator in found.node.entries:
        found = found.node.entries[test.operator]
    return below(found, (refusal.value,)) if isinstance(found.node, Items) else found


def _told(refusal: Refusal, use: Use) -> str:
    assert use.schemas is not None
    files = list(dict.fromkeys(rule.file for rule in use.schemas))
    says = f"{files[0]} {refusal.fact}" if len(files) == 1 else f"{' and '.join(files)} rule it out"
    return f"no event of the route {quoted(use.route)} can {refusal.what}: {says}{refusal.cure}"
