"""Warnings about comparisons, in templates and expressions, with a value that no event can have; floor 4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from router.core.conditions.clauses import Clause, Test, shown
from router.core.conditions.paths import Path
from router.core.rendering.faults import dotted
from router.core.wiring.schema_values import may_be_object
from router.ops.loading.checking import compiling
from router.ops.loading.checking.fields.match_fields import refused_by_all, refused_text
from router.ops.loading.checking.fields.template_fields import TemplateUses, Use
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import quoted
from router.ops.loading.reading.problems import did_you_mean

if TYPE_CHECKING:
    from router.core.rendering.syntax.compared_values import Compared

_ORIGINS = ("channel", "source")
"""The attributes of `event` with values that the configuration lists."""

_MOST = 5
"""The maximum number of names in one message."""


def look_at_compared_values(draft: Draft, templates: Iterable[TemplateUses]) -> None:
    """Warn about comparisons with a value that the schemas, channels or sources of the route exclude."""
    for template in templates:
        from router.core.rendering.syntax.compared_values import comparisons

        for compared in comparisons(template.source):
            # In a template `1 == true` holds, as in Python. Only expressions compare as strictly as a schema does.
            if template.is_expression or isinstance(compared.value, str):
                _judge(compared, template, draft)


def _judge(compared: Compared, template: TemplateUses, draft: Draft) -> None:
    """Report a comparison if no route that uses the template has an event with the value."""
    if not template.only_here:
        return
    findings = [_finding(compared, use) for use in template.uses]
    if not findings or any(finding is None for finding in findings):
        return
    finding = findings[0]
    assert finding is not None
    place = f"{compared.file}: " if compared.file else ""
    mark = compiling.mark_of(template.node, compared.line)
    draft.problems.warn(f"{place}{finding}; {_effect(compared)}", mark, path=template.node.path)


def _effect(compared: Compared) -> str:
    excludes = compared.negated or compared.operator == "ne"
    if compared.several:
        return "this value excludes nothing" if excludes else "this value never matches"
    return f"this comparison is always {'true' if excludes else 'false'}"


def _finding(compared: Compared, use: Use) -> str | None:
    """Return the reason why no event of a route can have the compared value; None if an event may have it."""
    first, *rest = compared.path
    if first == "event":
        return _of_origin(compared, use)
    if use.schemas is None or not all(isinstance(part, str) or _is_index(part) for part in rest):
        return None
    path = tuple(part for part in rest if isinstance(part, str | int))
    if compared.operator == "contains" and isinstance(compared.value, str) and _may_be_object(path, use):
        return None  # for an object, `in` searches the keys
    operator = "eq" if compared.operator == "ne" else compared.operator
    wanted = (compared.value,) if operator == "contains" else compared.value
    clause = Clause(path, (Test(operator, wanted),))
    refusals = [each for each in refused_by_all(clause, use) if each.test is not None]
    if not refusals:
        return None
    # The correction is written for `match`; an expression needs a different syntax.
    (refusal, *_) = refusals
    if compared.value is None:
        refusal = refusal._replace(
            cure=f"; to ask whether the field exists, write `{dotted(compared.path)} is defined`"
        )
    elif refusal.cure.startswith("; write `{contains"):
        refusal = refusal._replace(cure=f"; write `{shown(compared.value)} in {dotted(compared.path)}`")
    return refused_text(refusal, use)


def _may_be_object(path: Path, use: Use) -> bool:
    assert use.schemas is not None
    return any(rule.schema is not None and may_be_object(rule.schema.document, path) for rule in use.schemas)


def _is_index(part: object) -> bool:
    return isinstance(part, int) and not isinstance(part, bool) and part >= 0


def _of_origin(compared: Compared, use: Use) -> str | None:
    """Return the finding if no event of the route comes from the channel or source in the comparison; else None."""
    attribute = compared.path[1] if len(compared.path) == 2 else None
    if attribute not in _ORIGINS or compared.operator not in {"eq", "ne"} or not isinstance(compared.value, str):
        return None
    possible = use.may_come_from(compared.value) if attribute == "channel" else compared.value in use.sources
    if possible:
        return None
    known = use.reads if attribute == "channel" else use.sources
    listed = ", ".join(known[:_MOST]) + (", …" if len(known) > _MOST else "")
    meant = did_you_mean(compared.value, known)
    value = quoted(compared.value)
    return f"no event of the route {quoted(use.route)} comes from the {attribute} {value}; its events come from {listed}{meant}"
