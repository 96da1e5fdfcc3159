"""Whether a payload that fits a JSON Schema can have a field; pure.

Schemas can say more than is understood here. Whatever is not understood may allow the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

NEAR = 0.8
"""How alike two names are that one may be a slip for the other; `message` and `mesage` are 0.93."""

_DEEPEST = 20
_BRANCHES = ("allOf", "anyOf", "oneOf")
_SUBSCHEMAS = ("if", "then", "else", "not")


class Absent(NamedTuple):
    """A field that a schema does not have: the names it has there instead, and whether it allows no others."""

    known: tuple[str, ...]
    closed: bool
    near: str | None


def absent(document: Any, path: Sequence[object]) -> Absent | None:
    """Return why a path leads nowhere in the payloads of a schema; None where it may lead somewhere.

    Where the schema allows other fields beside those it lists, a name is absent if it comes near one of them.
    """
    schema = resolved(document, document)
    for key in path:
        if schema is None:
            return None
        if isinstance(key, int):
            schema = resolved(schema.get("items"), document) if "prefixItems" not in schema else None
            continue
        if not isinstance(key, str) or "patternProperties" in schema:
            return None
        own = schema.get("properties", {})
        parts = list(_parts(schema, document))
        known = tuple(dict.fromkeys(name for part in parts if part for name in _named(part)))
        if schema.get("additionalProperties") is False and key not in own:
            return Absent(tuple(own), True, _near(key, own))
        if key not in known:
            near = None if None in parts else _near(key, known)
            return Absent(known, False, near) if near else None
        schema = resolved(own.get(key), document) if len(parts) == 1 else None
    return None


def lists(document: Any, name: str) -> bool:
    """Return whether a schema says something of a field of the payload; True where that is not understood."""
    schema = resolved(document, document)
    if schema is None:
        return True
    parts = _parts(schema, document)
    return any(part is None or "patternProperties" in part or name in _named(part) for part in parts)


def _near(key: str, names: Sequence[str] | Mapping[str, Any]) -> str | None:
    return next(iter(get_close_matches(key, list(names), n=1, cutoff=NEAR)), None)


def _named(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that a schema says something of."""
    yield from schema.get("properties", {})
    yield from schema.get("required", [])
    for key in ("dependentRequired", "dependentSchemas", "dependencies"):
        yield from schema.get(key, {})


def _parts(schema: Mapping[str, Any], document: Any, depth: int = 0) -> Iterator[Mapping[str, Any] | None]:
    """Yield a schema and all that speak of the same object; None for those that are not understood."""
    yield schema
    branches = [branch for key in _BRANCHES for branch in schema.get(key, [])]
    branches += [schema[key] for key in _SUBSCHEMAS if key in schema]
    for key in ("dependentSchemas", "dependencies"):
        branches += [branch for branch in schema.get(key, {}).values() if isinstance(branch, dict)]
    for branch in branches:
        if isinstance(branch, bool):
            continue
        followed = resolved(branch, document)
        if followed is None or depth == _DEEPEST:
            yield None
        else:
            yield from _parts(followed, document, depth + 1)


def resolved(schema: Any, document: Any) -> Mapping[str, Any] | None:
    """Return a schema with its reference followed; None where that leads out of the document, or where it is no object."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict) or "$dynamicRef" in schema or "$recursiveRef" in schema:
            return None
        if schema is not document and _is_named(schema, document):
            return None
        if "$ref" not in schema:
            return schema
        if "properties" in schema or any(key in schema for key in _BRANCHES):
            return None  # whether they count beside the reference depends on the draft
        schema = _at(document, schema["$ref"])
    return None


def _at(document: Any, reference: str) -> Any:
    """Return what stands at a JSON pointer in the document; None where it leads elsewhere."""
    if reference == "#":
        return document
    if not reference.startswith("#/"):
        return None
    found = document
    for part in reference.removeprefix("#/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict) and _is_named(found, document):
            return None
    return found


def _is_named(part: Mapping[str, Any], document: Any) -> bool:
    """Return whether a part of a document has a URI of its own: then a `#/…` below it leads to a place in that part."""
    return isinstance(part.get("id" if "draft-04" in str(document.get("$schema")) else "$id"), str)
