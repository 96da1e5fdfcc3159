"""Corrections of a `match` in which conditions, paths or values have the notation of other languages; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from router.core.conditions import paths
from router.core.conditions.paths import EACH, Path, PathError, Segment

_ALL = frozenset({"all", "all_of", "allof", "and", "every", "must"})
_SOME = frozenset({"any", "any_of", "anyof", "or", "some", "should"})
_NONE = frozenset({"not", "none", "none_of", "noneof", "nor", "must_not"})
_WIDEST = 160
"""The largest number of characters of a proposed line."""

_STEP = re.compile(
    r"""
    \[\s*(?P<index>[0-9]{1,3})\s*\]          # tags[0]
    | \[\s*(?P<each>\*?)\s*\]                # lines[*] and lines[]
    | \[\s*(?P<quote>['"])(?P<key>[^'"]+)(?P=quote)\s*\]    # order['total']
    | \.?(?P<name>[^.\[\]"*/$]+)             # .total
    | \.(?P<star>\*)                         # lines.*
    """,
    re.VERBOSE,
)
_COMPARISON = re.compile(r"\s*(?P<sign>[<>]=?|[!=]=?|<>|=<|=>)\s*(?P<value>\S(?:.*\S)?)\s*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,20})?")
_OPERATORS = {
    "<": "lt", "<=": "lte", "=<": "lte", ">": "gt", ">=": "gte", "=>": "gte", "=": "eq", "==": "eq", "!=": "ne", "<>": "ne",
}  # fmt: skip
_EXPRESSION = re.compile(r"/(?P<pattern>(?:[^/\\]|\\.)*[\^$*+?\[(\\](?:[^/\\]|\\.)*)/(?P<flags>[a-z]{0,4})")

Clauses = Mapping[str, Any]
"""The written conditions by path."""


def misplaced(word: str, written: Any, operators: Collection[str]) -> str | None:
    """Return the fault of a word such as `and` in the place of a path; None if the word may be a path.

    `written` is the value of the word. If `written` is a valid condition, the word counts as a field's name.
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
    named = f"; if a field has this name, write it in double quotes: '\"{word}\"'"
    if kind in _ALL:
        return (
            f"`{word}` is not needed, because all clauses of a `match` must hold{_write(_side_by_side(parts))}{named}"
        )
    if kind in _SOME:
        fault = (
            "the value of `any` must be a list of mappings"
            if word == "any"
            else f"write alternatives in `any`, not in `{word}`"
        )
        return f"{fault}{_write({'any': parts})}{named}"
    negated = [{path: _negated(condition)} for each in parts for path, condition in each.items()]
    several = (
        isinstance(written, Mapping) and len(negated) > 1
    )  # `not` holds if at least one of the conditions does not hold
    line = {"any": negated} if several else _side_by_side(negated)
    return f"`not` must be written below a path{_write(line)}{named}"


def joined_below(path: Path, word: str, written: Any) -> str | None:
    """Return the fault of a word such as `or` in the place of an operator; None for a word that does not join
    conditions.
    """
    kind = word.lower()
    if kind not in _ALL | _SOME or not isinstance(written, list) or not written:
        return None
    name = paths.shown(path)
    if kind in _ALL:
        parts = [{name: each} for each in written]
        return f"`{word}` is not needed, because all operators below a path must hold{_write(_side_by_side(parts))}"
    if not any(isinstance(each, Mapping | list) for each in written):
        return f"alternative values must be written as a list{_write({name: written})}"
    return f"alternatives must be written in `any`, in the place of a path{_write({'any': [{name: each} for each in written]})}"


def of_fields(path: Path, operator: str, written: Clauses, operators: Collection[str]) -> str:
    """Return the end of the message for an operator with a mapping as its operand.

    The text proposes the path and condition that the user probably meant. It is empty if the operator is neither `eq`
    nor `contains`, or if the mapping does not have exactly one key.
    """
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
    """Return clauses as one mapping; None if two clauses have the same path and operator."""
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
    """Return clauses as the end of a message, `; write …`.

    Return an empty string if `clauses` is None or the line would be too long.
    """
    if clauses is None:
        return ""
    try:
        line = yaml.safe_dump(clauses, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10 * _WIDEST)
    except (yaml.YAMLError, RecursionError):
        return ""
    line = line.strip()[1:-1]
    return f"; write `{line}`" if len(line) <= _WIDEST and "\n" not in line else ""


def from_jsonpath(written: str) -> str | None:
    """Convert a string in the syntax of JSONPath or JSON Pointer to a path of `match`.

    Return None for any other string.
    """
    if written.startswith("/"):
        found: Path | None = _from_pointer(written)
    elif "[" in written or written.startswith("$"):
        found = _from_steps(written)
    else:
        return None
    return paths.shown(found) if found else None


def _from_steps(written: str) -> Path | None:
    rest = written.removeprefix("$")
    found: list[Segment] = []
    while rest:
        step = _STEP.match(rest)
        if step is None:
            return None
        if step["index"] is not None:
            found.append(int(step["index"]))
        elif step["each"] is not None or step["star"] is not None:
            found.append(EACH)
        else:
            name = step["key"] or step["name"]
            is_index = step["key"] is None and name.isascii() and name.isdigit() and len(name) <= 3
            found.append(int(name) if is_index else name)
        rest = rest[step.end() :]
    return tuple(found)


def _from_pointer(written: str) -> Path | None:
    """Return the path of a JSON Pointer (RFC 6901), such as `/order/total`; None for any other string."""
    parts = written[1:].split("/")
    if not all(re.fullmatch(r"[\w~-]+", part) for part in parts):
        return None
    names = [part.replace("~1", "/").replace("~0", "~") for part in parts]
    return tuple(int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else name for name in names)


def condition_in(text: str) -> str | None:
    """Convert a string such as `> 5` to the notation of `match`, such as `{gt: 5}`.

    Return None for a string that is not a condition.
    """
    found = _COMPARISON.fullmatch(text)
    if found is not None:
        operator, value = _OPERATORS[found["sign"]], found["value"]
        if _NUMBER.fullmatch(value):
            return f"{{{operator}: {value}}}"
        # Only numbers have an order in a `match`.
        return f"{{{operator}: {_bare(value)}}}" if operator == "ne" or found["sign"] == "==" else None
    expression = _EXPRESSION.fullmatch(text)
    if expression is None:
        return None
    flags = f"(?{expression['flags']})" if set(expression["flags"]) <= set("ims") and expression["flags"] else ""
    return "{{regex: '{}{}'}}".format(flags, expression["pattern"].replace("\\/", "/").replace("'", "''"))


def _bare(value: str) -> str:
    """Return a string as YAML, without the quotes around it.

    The result has single quotes unless the string is one word.
    """
    if re.fullmatch(r"[A-Za-z][\w-]*", value):
        return value
    doubled = value.strip("\"'").replace("'", "''")
    return f"'{doubled}'"


def path_fault(written: str, error: PathError) -> str:
    """Return the message for a string that is not a path.

    The message names the path that the user probably meant, if it is known.
    """
    meant = from_jsonpath(written)
    return f"{error}" if meant is None else f"this looks like JSONPath; write `{meant}`"
