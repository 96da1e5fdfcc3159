"""The check for clauses of `match` that no event can meet, because of other clauses or of schemas; floor 4."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from router.core.conditions import paths
from router.core.conditions.clauses import AnyOf, Clause, Node, Not
from router.core.conditions.contradictions import Contradiction, Effect, contradictions, no_integer
from router.core.conditions.match_slips import from_jsonpath
from router.core.conditions.reading import ANY, At, Reader
from router.core.wiring.schema_fields import lists, requires
from router.core.wiring.schema_values import Refusal, only_integers, refusals
from router.ops.loading.checking.conditions import below, data_of
from router.ops.loading.checking.fields.template_fields import Use, absent_in_all, told_of
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Entry, Mapping, Scalar, items, quoted, scalars
from router.ops.loading.reading.nodes import Sequence as Items

_EFFECTS = {
    "match": "this `match` never holds",
    "alternative": "this alternative never holds",
    "not": "this `not` always holds",
}
_INSTEAD = {
    "payload": "a path of `match` begins with a field of the payload; write `{rest}`",
    "event": "`match` checks only the payload; check the channel with `channels`, the source with `sources`, and all else with `when`",
}
"""The correction for a path that begins with a variable of templates, by the name of the variable."""


def look_at_contradictions(draft: Draft) -> None:
    """Warn about clauses of a `match` that can't hold together."""
    written = draft.routes_by_id()
    for route in draft.routes:
        condition = draft.conditions.get(route.id)
        if route.enabled and condition is not None and any(True for _ in contradictions(condition.clauses)):
            places = _Places(written[route.id].entries["match"])
            for found in contradictions(places.clauses):
                _tell(found, places, draft)


def _tell(found: Contradiction, places: _Places, draft: Draft) -> None:
    entries = [places.entry(clause) for clause in found.clauses]
    if any(scalar.expanded for entry in entries for scalar in scalars(entry.node)):
        return  # `${…}` may have another value in another environment
    texts = [f"`{clause.text}`" for clause in found.clauses]
    together = "can't hold" if len(texts) == 1 else f"can't {'both' if len(texts) == 2 else 'all'} hold"
    message = f"{' and '.join(texts)} {together}: {_EFFECTS[found.effect]}"
    draft.problems.warn(message, entries[-1].mark, path=entries[-1].node.path)


class _Places:
    """The clauses of a `match`, with their places in the configuration."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._at: list[At] = []
        self.clauses = Reader(self._place).match(data_of(entry.node))

    def _place(self, at: At) -> str:
        self._at.append(at)
        return str(len(self._at) - 1)

    def path(self, clause: Node) -> str:
        """Return the path of a clause as written in the configuration."""
        return next(str(part) for part in self._at[int(clause.place)] if isinstance(part, str) and part != ANY)

    def entry(self, clause: Node) -> Entry:
        """Return the entry of a clause in the configuration."""
        return below(self._entry, self._at[int(clause.place)])


def look_for_names_of_templates(draft: Draft, uses: Sequence[Use]) -> None:
    """Warn about paths that begin with `payload` or `event`, as in templates.

    There is no warning if a schema has a field with this name. `uses` are the routes, in their order.
    """
    written = draft.routes_by_id()
    for route, use in zip(draft.routes, uses, strict=True):
        if route.enabled and route.match is not None:
            for path, entry in _paths(written[route.id].entries["match"]):
                told = _slip(path, use)
                if told is not None:
                    draft.problems.warn(told, entry.mark, path=entry.node.path)


def _paths(entry: Entry) -> Iterator[tuple[str, Entry]]:
    """Yield each path of a `match` as written, with its entry."""
    for path, below_path in entry.node.entries.items() if isinstance(entry.node, Mapping) else ():
        if path == ANY:
            for alternative in items(below_path.node):
                yield from _paths(Entry(alternative.mark, alternative))
        else:
            yield path, below_path


def _slip(path: str, use: Use) -> str | None:
    """Return the warning for a path that is written as in a template or in JSONPath; None for any other path."""
    meant = from_jsonpath(path)
    name, _, rest = path.partition(".")
    if meant is None and (name not in _INSTEAD or not rest):
        return None
    key = path if meant is not None and "[" in path else name
    if any(lists(rule.schema.document, key) for rule in use.possible if rule.schema is not None):
        return None
    if meant is None:
        cure, own = _INSTEAD[name].format(rest=rest), f"'\"{name}\".{rest}'"
    else:
        syntax = "JSON Pointer" if path.startswith("/") else "JSONPath"
        cure = f"{quoted(path)} looks like {syntax}; write `{meant}`"
        strange = (f'"{part}"' if re.search(r"[$/\[]", part) else part for part in path.split("."))
        own = "" if "'" in path else f"'{'.'.join(strange)}'"
    return f"{cure}; if the path is meant literally, write it with double quotes{own and f': {own}'}"


def look_at_matches(draft: Draft, uses: Sequence[Use]) -> None:
    """Warn about clauses that the schemas of the route exclude; add notes about probably misspelt fields.

    `uses` are the routes, in their order.
    """
    written = draft.routes_by_id()
    for route, use in zip(draft.routes, uses, strict=True):
        if route.enabled and route.match is not None and use.schemas is not None:
            places = _Places(written[route.id].entries["match"])
            for asked in _asked(places.clauses):
                if _slip(places.path(asked.clause), use) is None:
                    _judge(asked, places.entry(asked.clause), use, draft)
            if all(rule.mode == "enforce" for rule in use.schemas):
                _look_at_absences(places, use, draft)
                _look_at_ranges(places, use, draft)


class _Asked(NamedTuple):
    """A clause that needs a field. `negated` is True if the clause is inside an odd number of `not`."""

    clause: Clause
    negated: bool = False

    def effect(self) -> str:
        """Return the text about the effect on the clause if no event has its field."""
        if self.negated:
            return "this clause always holds"
        if self.clause.tests[0].operator == "ne":
            return "this clause never holds, because `ne` needs an existing field; `not` also holds for a missing one"
        return "this clause never holds"


def _asked(nodes: Sequence[Node], *, negated: bool = False) -> Iterator[_Asked]:
    for node in nodes:
        if isinstance(node, Clause):
            if node.place:  # a clause of `exists: false` has no place, because it may name a field that no schema has
                yield _Asked(node, negated)
        elif isinstance(node, AnyOf):
            yield from _asked(list(chain.from_iterable(node.alternatives)), negated=negated)
        else:
            yield from _asked(node.of, negated=not negated)


def _look_at_absences(places: _Places, use: Use, draft: Draft) -> None:
    """Warn about `exists: false` for a field that all schemas of the route require."""
    for node, inner, negated in _absences(places.clauses):
        if all(rule.schema is not None and requires(rule.schema.document, inner.path) for rule in use.schemas or ()):
            files = list(dict.fromkeys(rule.file for rule in use.schemas or ()))
            field = f"payload.{paths.shown(inner.path)}"
            verb = "requires" if len(files) == 1 else "require"
            effect = f"this clause {'always' if negated else 'never'} holds"
            entry = places.entry(node)
            message = (
                f"every event of the route {quoted(use.route)} has {field}: {' and '.join(files)} {verb} it; {effect}"
            )
            draft.problems.warn(message, entry.mark, path=entry.node.path)


def _absences(nodes: Sequence[Node], *, negated: bool = False) -> Iterator[tuple[Node, Clause, bool]]:
    """Yield each `exists: false` or `not: {exists: true}`, its clause, and whether the number of `not` around it is
    odd.
    """
    for node in nodes:
        if isinstance(node, AnyOf):
            yield from _absences(list(chain.from_iterable(node.alternatives)), negated=negated)
        elif isinstance(node, Not):
            (inner, *others) = node.of
            if not others and isinstance(inner, Clause) and [test.operator for test in inner.tests] == ["exists"]:
                yield node, inner, negated
            else:
                yield from _absences(node.of, negated=not negated)


def _look_at_ranges(places: _Places, use: Use, draft: Draft) -> None:
    """Warn about bounds with no integer between them, if all schemas of the route allow only integers for the field."""
    for clauses, effect in _ranges(places.clauses, (), "match"):
        path = clauses[0].path
        if no_integer([test for clause in clauses for test in clause.tests]) and all(
            rule.schema is not None and only_integers(rule.schema.document, path) for rule in use.schemas or ()
        ):
            entries = [places.entry(clause) for clause in clauses]
            if any(scalar.expanded for entry in entries for scalar in scalars(entry.node)):
                continue  # `${…}` may have another value elsewhere
            needs = " and ".join(clause.needs for clause in clauses)
            files = " and ".join(dict.fromkeys(rule.file for rule in use.schemas or ()))
            message = f"no integer is {needs}, but payload.{paths.shown(path)} must be an integer according to {files}: {_EFFECTS[effect]}"
            draft.problems.warn(message, entries[-1].mark, path=entries[-1].node.path)


def _ranges(
    nodes: Sequence[Node], around: tuple[Clause, ...], effect: Effect
) -> Iterator[tuple[tuple[Clause, ...], Effect]]:
    """Yield groups of clauses about one path that must all hold. At least one clause of a group is in `nodes`."""
    own = tuple(node for node in nodes if isinstance(node, Clause))
    for path in dict.fromkeys(clause.path for clause in own):
        mine = tuple(clause for clause in own if clause.path == path)
        if mine[0].plain:
            yield (*(clause for clause in around if clause.path == path), *mine), effect
        else:  # with `*` in the path, each clause may be met by a different element
            yield from (((clause,), effect) for clause in mine)
    for node in nodes:
        if isinstance(node, AnyOf):
            for alternative in node.alternatives:
                yield from _ranges(alternative, (*around, *own), "alternative")
        elif isinstance(node, Not):
            yield from _ranges(node.of, (), "not")


def _judge(asked: _Asked, entry: Entry, use: Use, draft: Draft) -> None:
    """Report the faults of the clause at this entry."""
    clause = asked.clause
    keys = [segment if isinstance(segment, str) else 0 for segment in clause.path]
    verdict = absent_in_all(keys, use)
    if verdict is not None:
        told = told_of(f"payload.{paths.shown(clause.path)}", str(keys[-1]), use, verdict)
        if told is not None:
            effect = f"; {asked.effect()}" if told.severity == "warning" else ""
            draft.problems.add(f"{told.message}{effect}", entry.mark, path=entry.node.path, severity=told.severity)
        return
    for refusal in refused_by_all(clause, use):
        wanted = _wanted(clause, entry, refusal)
        if not (isinstance(wanted.node, Scalar) and wanted.node.expanded):  # `${…}` may have another value elsewhere
            at = entry.mark if refusal.test is None or not isinstance(wanted.node, Scalar) else wanted.node.mark
            message = f"{refused_text(refusal, use)}; {_effect(asked, refusal)}"
            draft.problems.add(message, at, path=wanted.node.path, severity="warning")


def _effect(asked: _Asked, refusal: Refusal) -> str:
    """Return the text about the effect on a clause if no event can have one of its values."""
    if refusal.test is None:
        return asked.effect()
    test = asked.clause.tests[refusal.test]
    several = isinstance(test.wanted, tuple) and len(test.wanted) > 1
    excludes = asked.negated is not (test.operator == "ne")
    if several or (excludes and len(asked.clause.tests) > 1):
        return "this value excludes nothing" if excludes else "this value never matches"
    if not excludes:
        return "this clause never holds"
    return "this clause always holds" if asked.negated else "this clause holds for every value"


def refused_by_all(clause: Clause, use: Use) -> list[Refusal]:
    """Return the parts of a clause (its path, a test like `gt: 5`, or a value) that every schema of the route refuses.

    The result is empty if a schema does not have the mode `enforce`.
    """
    assert use.schemas is not None
    if any(rule.mode != "enforce" for rule in use.schemas):
        return []
    found = [refusals(rule.schema.document, clause) for rule in use.schemas if rule.schema is not None]
    whole = [each[0] for each in found if each and each[0].test is None]
    if whole:  # if one schema refuses the path and another schema refuses the value, the whole clause never holds
        return whole[:1] if all(found) and len(whole) == len(found) else []
    others = [{(each.test, each.value) for each in of_schema} for of_schema in found[1:]]
    return [each for each in found[0] if all((each.test, each.value) in other for other in others)]


def _wanted(clause: Clause, entry: Entry, refusal: Refusal) -> Entry:
    """Return the entry of a refused value, or the nearest entry above the value that the configuration contains."""
    if refusal.test is None or refusal.value is None:
        return entry
    test, found = clause.tests[refusal.test], entry
    if isinstance(found.node, Mapping) and test.operator in found.node.entries:
        found = found.node.entries[test.operator]
    return below(found, (refusal.value,)) if isinstance(found.node, Items) else found


def refused_text(refusal: Refusal, use: Use) -> str:
    """Return the message for a part of a clause that no event of a route can meet, with the reason and the cure."""
    assert use.schemas is not None
    files = list(dict.fromkeys(rule.file for rule in use.schemas))
    says = f"{files[0]} {refusal.fact}" if len(files) == 1 else f"{' and '.join(files)} exclude it"
    return f"no event of the route {quoted(use.route)} can {refusal.what}: {says}{refusal.cure}"
