"""Whether a value of a payload that fits a JSON Schema can be what a clause of `match` asks for; pure.

A schema is a conjunction of its keywords, so the few that are read here (types, enumerations, the schemas of properties and
elements) rule a value out whatever stands beside them. What is not understood may allow everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from router.core.conditions import paths
from router.core.conditions.clauses import Clause, Test, shown
from router.core.conditions.match import holding
from router.core.conditions.paths import EACH, Path
from router.core.conditions.reading import NUMBERS
from router.core.wiring.schema_fields import resolved

_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
_TYPES = frozenset({*_SCALARS, "array", "object"})
_NEAR = 0.6
"""How alike a value and a listed one are that may be meant: "hihg" and "high" are 0.75."""
_MOST = 10
"""How many values of an enumeration are shown."""


class Refusal(NamedTuple):
    """What no payload of a schema has.

    `test` and `value` are the numbers of the test of the clause and of the value that it wants, None where the path alone is
    refused. `what` is what no event can do (`have payload.a.b`, `meet …`), `fact` what the schema does instead (`says …`,
    `allows …`), `cure` what may be meant.
    """

    test: int | None
    value: int | None
    what: str
    fact: str
    cure: str = ""


class _Blocked(NamedTuple):
    """A path that leads on from a value which has nothing below it: how far it gets, and the types of that value."""

    length: int
    types: tuple[str, ...]


def refusals(document: Any, clause: Clause) -> list[Refusal]:
    """Return what a clause asks for that no payload of a schema has; nothing where the schema may allow all of it."""
    found = _walk(document, clause.path)
    if isinstance(found, _Blocked):
        return [_of_path(clause.path, found)]
    if found is None:
        return []
    refused = []
    for number, test in enumerate(clause.tests):
        for place, single in enumerate(_singles(test)):
            refusal = _of_value(document, found, clause.path, single)
            if refusal is not None:
                refused.append(refusal._replace(test=number, value=place))
    return refused


def _walk(document: Any, path: Path) -> Mapping[str, Any] | _Blocked | None:
    """Return the schema of the values at a path; None where they may be anything, or where there are none."""
    schema = resolved(document, document)
    for length, segment in enumerate(path):
        if schema is None:
            return None
        needed = "object" if isinstance(segment, str) else "array"
        types = _types(schema)
        if needed not in types:
            return _Blocked(length, types)
        if isinstance(segment, str):
            below = _property(schema, segment)
        else:
            below = None if "prefixItems" in schema else schema.get("items")
        schema = resolved(below, document)
    return schema


def _property(schema: Mapping[str, Any], name: str) -> Any:
    """Return the schema of a property; None where there may be others for it."""
    if "patternProperties" in schema:
        return None
    own = schema.get("properties", {})
    return own[name] if name in own else schema.get("additionalProperties")


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types that a schema allows, as it says them; all where it does not say."""
    said = schema.get("type")
    types = (said,) if isinstance(said, str) else tuple(said) if isinstance(said, list) else ()
    return types if types and _TYPES.issuperset(types) else tuple(sorted(_TYPES))


def _of_path(path: Path, blocked: _Blocked) -> Refusal:
    """Return the refusal of a path that leads through a value without fields or elements."""
    before, rest = path[: blocked.length], path[blocked.length :]
    cure = ""
    if blocked.types == ("array",):
        cure = f"; write `{paths.shown((*before, EACH, *rest))}` for any of its elements"
    elif blocked.types == ("object",) and isinstance(rest[0], int):
        cure = f"; a key of digits stands in double quotes: `{paths.shown((*before, str(rest[0]), *rest[1:]))}`"
    return Refusal(None, None, f"have {_field(path)}", f"{_said(blocked.types)} of {_field(before)}", cure)


def _singles(test: Test) -> Iterator[Test]:
    """Yield a test for each value that one of several suffices of."""
    if not isinstance(test.wanted, tuple):
        yield test
        return
    for wanted in test.wanted:
        yield Test("eq", wanted) if test.operator == "in" else Test(test.operator, (wanted,))


def _of_value(document: Any, schema: Mapping[str, Any], path: Path, test: Test) -> Refusal | None:
    """Return why no value of a schema meets a test of one value; None where one may."""
    if test.operator == "exists":
        return None
    if test.operator == "ne":  # what it excludes has to be possible
        test = Test("eq", test.wanted)
    what = f"meet `{_field(path)} {test.text}`"
    types = _types(schema)
    fitting = [each for each in types if _may_meet(each, test)]
    if not fitting:
        return Refusal(None, None, what, _said(types), _cure(types, test))
    listed = _listed(schema, document)
    if listed is not None:
        meets = holding((Clause((), (test,)),))
        if not any(map(meets, listed)):
            allowed = ", ".join(map(shown, listed[:_MOST])) + (", …" if len(listed) > _MOST else "")
            return Refusal(None, None, what, f"allows {allowed or 'nothing'}", _meant(listed, test))
    if test.operator == "contains" and fitting == ["array"] and "prefixItems" not in schema:
        elements = resolved(schema.get("items"), document)
        (wanted,) = test.wanted
        inner = None if elements is None else _of_value(document, elements, (*path, EACH), Test("eq", wanted))
        return inner and inner._replace(what=what, fact=f"{inner.fact} as its elements")
    return None


def _listed(schema: Mapping[str, Any], document: Any) -> list[Any] | None:
    """Return the only values that a schema allows; None where it does not list them."""
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if "const" in schema and "draft-04" not in str(document.get("$schema")):  # which knows no `const`
        return [schema["const"]]
    return None


def _may_meet(kind: str, test: Test) -> bool:
    """Return whether a value of a type may meet a test."""
    operator, wanted = test.operator, test.wanted
    if operator == "eq":
        return kind in _types_of(wanted)
    if operator in NUMBERS:
        return kind in {"number", "integer"}
    if operator == "contains":
        return kind == "array" or (kind == "string" and isinstance(wanted[0], str))
    return kind == "string"


def _types_of(value: Any) -> tuple[str, ...]:
    """Return the types that a scalar is of."""
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, str):
        return ("string",)
    return ("number", "integer") if isinstance(value, int) or value.is_integer() else ("number",)


def _cure(types: Sequence[str], test: Test) -> str:
    """Return what may be meant by a test that no type meets."""
    wanted = test.wanted
    if test.operator != "eq":
        return ""
    if "array" in types and not _SCALARS & set(types):
        return f"; write `{{contains: {shown(wanted)}}}`"
    if isinstance(wanted, str) and _types_of_text(wanted) & set(types):
        return f"; write {wanted} without quotes"
    if not isinstance(wanted, str) and "string" in types and wanted is not None:
        return f'; write "{shown(wanted)}" in quotes'
    return ""


def _types_of_text(text: str) -> set[str]:
    """Return the types of what a text says, beside a text."""
    if text in {"true", "false", "null"}:
        return {"null" if text == "null" else "boolean"}
    return {"integer", "number"} if re.fullmatch(r"-?(0|[1-9][0-9]*)", text) else set()


def _meant(listed: Sequence[Any], test: Test) -> str:
    """Return which listed text is near the one that is wanted."""
    texts = {each.lower(): each for each in listed if isinstance(each, str)}
    wanted = test.wanted[0] if isinstance(test.wanted, tuple) else test.wanted
    near = get_close_matches(wanted.lower(), texts, n=1, cutoff=_NEAR) if isinstance(wanted, str) else []
    return f" (did you mean {shown(texts[near[0]])}?)" if near else ""


def _field(path: Path) -> str:
    return "payload" + "".join(f".{paths.shown((each,))}" for each in path)


def _said(types: Sequence[str]) -> str:
    return f"says `type: {types[0] if len(types) == 1 else '[' + ', '.join(types) + ']'}`"
