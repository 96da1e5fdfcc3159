"""Corrections for conditions that are written as in other languages: the line to write instead; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from router.core.conditions import paths
from router.core.conditions.paths import EACH, Path

_ALL = frozenset({"all", "all_of", "allof", "and", "every", "must"})
_SOME = frozenset({"any", "any_of", "anyof", "or", "some", "should"})
_NONE = frozenset({"not", "none", "none_of", "noneof", "nor", "must_not"})
_WIDEST = 160
"""The largest number of characters of a proposed line."""

Clauses = Mapping[str, Any]
"""The written conditions by path."""


def misplaced(word: str, written: Any, operators: Collection[str]) -> str | None:
    """Return the fault of a word such as `and` in the place of a path; None if the word may be a path.

    `written` is the value of the word. If it is a valid condition, the word counts as a field's name.
    """
    kind = word.lower()
    if kind not in _ALL | _SOME | _NONE:
        return None
    if isinstance(written, Mapping):
        if not written or any(key in operators for key in written):
            return None
        parts = [{path: condition} for path, condition in written.items()]
    elif isinstance(written, list) and written and all(isinstance(each, Mapping) and each for each in written):
        if word == "any":
            return None
        parts = list(written)
    else:
        return None
    named = f"; a field of that name stands in double quotes: '\"{word}\"'"
    if kind in _ALL:
        return f"`{word}` is not needed, for all clauses have to hold{_write(_side_by_side(parts))}{named}"
    if kind in _SOME:
        fault = "`any` takes a list of mappings" if word == "any" else f"alternatives stand in `any`, not in `{word}`"
        return f"{fault}{_write({'any': parts})}{named}"
    negated = [{path: _negated(condition)} for each in parts for path, condition in each.items()]
    several = isinstance(written, Mapping) and len(negated) > 1  # not all of them: one that does not hold is enough
    line = {"any": negated} if several else _side_by_side(negated)
    return f"`not` stands below a path{_write(line)}{named}"


def joined_below(path: Path, word: str, written: Any) -> str | None:
    """Return the fault of a word such as `or` in the place of an operator; None if the word joins no conditions."""
    kind = word.lower()
    if kind not in _ALL | _SOME or not isinstance(written, list) or not written:
        return None
    name = paths.shown(path)
    if kind in _ALL:
        parts = [{name: each} for each in written]
        return f"`{word}` is not needed, for all operators have to hold{_write(_side_by_side(parts))}"
    if not any(isinstance(each, Mapping | list) for each in written):
        return f"one of several values is a list{_write({name: written})}"
    return f"alternatives stand in `any`, beside the paths{_write({'any': [{name: each} for each in written]})}"


def of_fields(path: Path, operator: str, written: Clauses, operators: Collection[str]) -> str:
    """Return the cure for a mapping as the operand of an operator: a path for each field of the object."""
    below = (*path, EACH) if operator == "contains" else path
    if operator not in {"contains", "eq"} or len(written) != 1:
        return ""
    if any(key in operators for key in written):
        return _write({paths.shown(below): written})
    return _write({f"{paths.shown(below)}.{key}": condition for key, condition in written.items()})


def _negated(condition: Any) -> Any:
    if isinstance(condition, Mapping) and len(condition) == 1 and "not" in condition:
        return condition["not"]
    return {"not": condition}


def _side_by_side(parts: Sequence[Clauses]) -> Clauses | None:
    """Return clauses as one mapping; None if two of them have the same path and operator."""
    found: dict[str, Any] = {}
    for path, condition in (item for each in parts for item in each.items()):
        before = found.get(path)
        if path not in found:
            found[path] = condition
        elif isinstance(before, Mapping) and isinstance(condition, Mapping) and not before.keys() & condition.keys():
            found[path] = {**before, **condition}
        else:
            return None
    return found


def _write(clauses: Clauses | None) -> str:
    """Return clauses as the end of a message, `; write …`; empty for None, or if the line is too long."""
    if clauses is None:
        return ""
    try:
        line = yaml.safe_dump(clauses, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10 * _WIDEST)
    except (yaml.YAMLError, RecursionError):
        return ""
    line = line.strip()[1:-1]
    return f"; write `{line}`" if len(line) <= _WIDEST and "\n" not in line else ""
