"""What is meant by conditions that are written as other languages have them, as the lines to write; pure."""

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
"""The most characters of a line that is proposed."""

Clauses = Mapping[str, Any]
"""Conditions by path, as they are written."""


def misplaced(word: str, written: Any, operators: Collection[str]) -> str | None:
    """Return the fault of a word that joins clauses and stands where a path is expected; None where it may be a path.

    `written` is what stands below the word. It is a condition of a field of that name if it could be one.
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
        told = "`any` takes a list of mappings" if word == "any" else f"alternatives stand in `any`, not in `{word}`"
        return f"{told}{_write({'any': parts})}{named}"
    negated = [{path: _negated(condition)} for each in parts for path, condition in each.items()]
    several = isinstance(written, Mapping) and len(negated) > 1  # not all of them: one that does not hold is enough
    line = {"any": negated} if several else _side_by_side(negated)
    return f"`not` stands below a path{_write(line)}{named}"


def joined_below(path: Path, word: str, written: Any) -> str | None:
    """Return the fault of a word that joins conditions below a path; None where it is no such word."""
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
    """Return the cure for a mapping that an operator was given: the fields of an object have paths of their own."""
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
    """Return clauses as one mapping; None where two of them can't stand beside each other."""
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
    """Return the line to write, as ` ; write …`; nothing where there is none, or it is too long."""
    if clauses is None:
        return ""
    try:
        line = yaml.safe_dump(clauses, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10 * _WIDEST)
    except (yaml.YAMLError, RecursionError):
        return ""
    line = line.strip()[1:-1]
    return f"; write `{line}`" if len(line) <= _WIDEST and "\n" not in line else ""
