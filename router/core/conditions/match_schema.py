"""Compilation of clauses to JSON Schema; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from router.core.conditions.clauses import AnyOf, Clause, Node, Test
from router.core.conditions.paths import EACH, Path

Json = Any

_SIGNS = frozenset("\\^$.|?*+()[]{}")
_BOUNDS = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}


def document(nodes: Iterable[Node]) -> Json:
    """Return the schema for which a payload is valid if all of these clauses hold."""
    schemas = [_schema(node) for node in nodes]
    return schemas[0] if len(schemas) == 1 else {"allOf": schemas}


def _schema(node: Node) -> Json:
    if isinstance(node, Clause):
        return _at(node.path, _all([_test(test) for test in node.tests]))
    if isinstance(node, AnyOf):
        return {"anyOf": [document(each) for each in node.alternatives]}
    return {"not": document(node.of)}


def _all(schemas: list[Json]) -> Json:
    return schemas[0] if len(schemas) == 1 else {"allOf": schemas}


def _at(path: Path, schema: Json) -> Json:
    """Return the schema for payloads with a value at this path that is valid for `schema`."""
    for segment in reversed(path):
        if segment is EACH:
            schema = {"type": "array", "contains": schema}
        elif isinstance(segment, int):
            schema = {"type": "array", "minItems": segment + 1, "prefixItems": [True] * segment + [schema]}
        else:
            schema = {"type": "object", "required": [segment], "properties": {segment: schema}}
    return schema


def _test(test: Test) -> Json:
    """Return the schema of the values that meet a test."""
    operator, wanted = test.operator, test.wanted
    if operator == "exists":
        return True
    if operator == "eq":
        return {"const": wanted}
    if operator == "ne":
        return {"not": {"const": wanted}}
    if operator == "in":
        return {"enum": list(wanted)}
    if operator in _BOUNDS:
        return {"type": "number", _BOUNDS[operator]: wanted}
    if operator == "contains":
        return _contains(wanted)
    before, after = {"prefix": ("^", ""), "suffix": ("", "$"), "regex": ("", "")}[operator]
    texts = wanted if operator == "regex" else [literal(each) for each in wanted]
    return _any([{"type": "string", "pattern": f"{before}{each}{after}"} for each in texts])


def _contains(wanted: Iterable[Any]) -> Json:
    """Return the schema of the operator `contains`.

    It accepts a string that contains one of these values, and a list that has one of these values as an element.
    """
    found: list[Json] = []
    for each in wanted:
        if isinstance(each, str):
            found.append({"type": "string", "pattern": literal(each)})
        found.append({"type": "array", "contains": {"const": each}})
    return _any(found)


def _any(schemas: list[Json]) -> Json:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def literal(text: str) -> str:
    """Return the pattern that matches only this text."""
    return "".join(f"\\{character}" if character in _SIGNS else character for character in text)
