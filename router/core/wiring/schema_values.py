"""The check whether a payload that is valid for a JSON Schema can meet a clause of `match`; pure.

The check reads only a few keywords: types, enumerations, and the schemas of properties and elements. A value must
satisfy all keywords of a schema. So these few keywords can exclude a value, regardless of the other keywords. The check
assumes that every other keyword allows all values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from router.core.conditions import paths
from router.core.conditions.clauses import NUMBERS, Clause, Test, shown
from router.core.conditions.index import operands
from router.core.conditions.match import holding
from router.core.conditions.paths import EACH, Path
from router.core.wiring.schema_fields import resolved

_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
_TYPES = frozenset({*_SCALARS, "array", "object"})
_NEAR = 0.6
"""The similarity from which a value may be a misspelling of a listed value; "hihg" and "high" have 0.75."""
_MOST = 10
"""The largest number of values of an enumeration that are shown."""


class Refusal(NamedTuple):
    """A part of a clause that no payload of a schema can meet, with the texts for its message.

    `test` is the number of the test in the clause, and `value` the number of the value in the test. Both are None if
    the path itself is impossible. `what` names what no event can do (`have payload.a.b`, `meet …`). `fact` names the
    cause in the schema (`says …`, `allows …`). `cure` names what the user probably meant.
    """

    test: int | None
    value: int | None
    what: str
    fact: str
    cure: str = ""


class _Blocked(NamedTuple):
    """The result for a path that leads through a value without fields or elements.

    `length` is the number of segments up to that value. `types` are the types of the value.
    """

    length: int
    types: tuple[str, ...]


def refusals(document: Any, clause: Clause) -> list[Refusal]:
    """Return the parts of a clause that no payload of a schema can meet; empty if a payload may meet all parts."""
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


def only_integers(document: Any, path: Path) -> bool:
    """Return whether the numbers at a path of valid payloads are integers."""
    found = _walk(document, path)
    return isinstance(found, Mapping) and {"integer", "number"}.intersection(_types(found)) == {"integer"}


def may_be_object(document: Any, path: Path) -> bool:
    """Return whether a schema may allow an object at a path.

    The result is True if the schema of the path is unknown.
    """
    found = _walk(document, path)
    return not isinstance(found, Mapping) or "object" in _types(found)


def _walk(document: Any, path: Path) -> Mapping[str, Any] | _Blocked | None:
    """Return the schema of the values at a path.

    Return None if this schema is unknown, or if the check does not understand it.
    """
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
    """Return the schema of a property.

    Return None if the property has no schema, or if `patternProperties` may apply to it too.
    """
    if "patternProperties" in schema:
        return None
    own = schema.get("properties", {})
    return own[name] if name in own else schema.get("additionalProperties")


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types that a schema allows, as written; all types if the schema has no valid `type`."""
    said = schema.get("type")
    types = (said,) if isinstance(said, str) else tuple(said) if isinstance(said, list) else ()
    return types if types and _TYPES.issuperset(types) else tuple(sorted(_TYPES))


def _of_path(path: Path, blocked: _Blocked) -> Refusal:
    """Return the refusal of a path that leads through a value without fields or elements."""
    before, rest = path[: blocked.length], path[blocked.length :]
    cure = ""
    if blocked.types == ("array",):
        cure = f"; write `{paths.shown((*before, EACH, *rest))}` to check whether any element matches"
    elif blocked.types == ("object",) and isinstance(rest[0], int):
        cure = f"; if this is a key, write it in double quotes: `{paths.shown((*before, str(rest[0]), *rest[1:]))}`"
    return Refusal(None, None, f"have {_field(path)}", f"{_said(blocked.types)} of {_field(before)}", cure)


def _singles(test: Test) -> Iterator[Test]:
    """Yield one test for each value of a test. A test without alternatives is yielded itself."""
    if not isinstance(test.wanted, tuple):
        yield test
        return
    for wanted in test.wanted:
        yield Test("eq", wanted) if test.operator == "in" else Test(test.operator, (wanted,))


def _of_value(document: Any, schema: Mapping[str, Any], path: Path, test: Test) -> Refusal | None:
    """Return the refusal of a test that no value of a schema meets; None if a value may meet it."""
    if test.operator == "exists":
        return None
    if test.operator == "ne":  # with `ne` too, a value that can't occur is a mistake
        test = Test("eq", test.wanted)
    what = f"meet `{_field(path)} {test.text}`"
    types = _types(schema)
    fitting = [each for each in types if _may_meet(each, test)]
    if not fitting:
        return Refusal(None, None, what, _said(types), _cure(types, test))
    listed = _listed(schema, document)
    if listed is not None and not any(map(_meeting(test), listed)):
        allowed = ", ".join(map(shown, listed[:_MOST])) + (", …" if len(listed) > _MOST else "")
        return Refusal(None, None, what, f"allows {allowed or 'nothing'}", _meant(listed, test))
    if test.operator == "contains" and fitting == ["array"] and "prefixItems" not in schema:
        elements = resolved(schema.get("items"), document)
        (wanted,) = test.wanted
        inner = None if elements is None else _of_value(document, elements, (*path, EACH), Test("eq", wanted))
        return inner and inner._replace(what=what, fact=f"{inner.fact} as its elements")
    return None


def _meeting(test: Test) -> Callable[[Any], bool]:
    """Return the function that returns whether a value meets a test."""
    return _meeting_values(test.operator, test.wanted, tuple(map(type, operands(test))))


@lru_cache(maxsize=100)
def _meeting_values(operator: str, wanted: Any, _types: tuple[type, ...]) -> Callable[[Any], bool]:
    """Return the result of `_meeting`.

    The types are an argument because 1, 1.0 and true would otherwise be one key of the cache.
    """
    return holding((Clause((), (Test(operator, wanted),)),))


def _listed(schema: Mapping[str, Any], document: Any) -> list[Any] | None:
    """Return the values that a schema lists as the only allowed values; None if the schema has no such list."""
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if "const" in schema and "draft-04" not in str(document.get("$schema")):  # draft 4 has no `const`
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
    """Return the types of a scalar."""
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, str):
        return ("string",)
    return ("number", "integer") if isinstance(value, int) or value.is_integer() else ("number",)


def _cure(types: Sequence[str], test: Test) -> str:
    """Return the end of the message for a test that no type meets.

    It names what the user probably meant; it is empty if this is unknown.
    """
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
    """Return the other types that a user may have meant by a string. For example, `"5"` may be meant as an integer."""
    if text in {"true", "false", "null"}:
        return {"null" if text == "null" else "boolean"}
    return {"integer", "number"} if re.fullmatch(r"-?(0|[1-9][0-9]*)", text) else set()


def _meant(listed: Sequence[Any], test: Test) -> str:
    """Return a hint that names the listed text most similar to the wanted text; empty if no listed text is similar."""
    texts = {each.lower(): each for each in listed if isinstance(each, str)}
    wanted = test.wanted[0] if isinstance(test.wanted, tuple) else test.wanted
    near = get_close_matches(wanted.lower(), texts, n=1, cutoff=_NEAR) if isinstance(wanted, str) else []
    return f" (did you mean {shown(texts[near[0]])}?)" if near else ""


def _field(path: Path) -> str:
    return "payload" + "".join(f".{paths.shown((each,))}" for each in path)


def _said(types: Sequence[str]) -> str:
    return f"says `type: {types[0] if len(types) == 1 else '[' + ', '.join(types) + ']'}`"
