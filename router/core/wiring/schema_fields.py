"""The check whether a payload that is valid for a JSON Schema can have a field; pure.

The check understands only some keywords of schemas. It assumes that any other keyword may allow the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

NEAR = 0.8
"""The similarity from which one name may be a misspelling of another; `message` and `mesage` have 0.93."""

_DEEPEST = 20
_BRANCHES = ("allOf", "anyOf", "oneOf")
_SUBSCHEMAS = ("if", "then", "else", "not")


class Absent(NamedTuple):
    """A field that a schema does not have.

    `known` are the names that the schema has in that place. `closed` is true if the schema allows no other names.
    `near` is the known name that the user probably meant, or None.
    """

    known: tuple[str, ...]
    closed: bool
    near: str | None


def absent(document: Any, path: Sequence[object]) -> Absent | None:
    """Return the field of a path that payloads of a schema do not have; None if the path may exist.

    Many schemas allow fields that they do not list. For such a schema, a name counts as absent only if it is similar to
    a listed name.
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
    """Return whether a schema names a field of the payload.

    The result is True if the check does not understand the schema.
    """
    schema = resolved(document, document)
    if schema is None:
        return True
    parts = _parts(schema, document)
    return any(part is None or "patternProperties" in part or name in _named(part) for part in parts)


def requires(document: Any, path: Sequence[object]) -> bool:
    """Return True if every payload that is valid for a schema certainly has the field at a path of names."""
    schema = resolved(document, document)
    for key in path:
        required = None if schema is None else schema.get("required")
        if schema is None or schema.get("type") != "object" or not isinstance(required, list) or key not in required:
            return False
        schema = resolved(schema.get("properties", {}).get(key), document)
    return bool(path)


def _near(key: str, names: Sequence[str] | Mapping[str, Any]) -> str | None:
    return next(iter(get_close_matches(key, list(names), n=1, cutoff=NEAR)), None)


def _named(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of fields that occur in the keywords of a schema."""
    yield from schema.get("properties", {})
    yield from schema.get("required", [])
    for key in ("dependentRequired", "dependentSchemas", "dependencies"):
        yield from schema.get(key, {})


def _parts(schema: Mapping[str, Any], document: Any, depth: int = 0) -> Iterator[Mapping[str, Any] | None]:
    """Yield a schema and its subschemas for the same object.

    Yield None for a subschema that the check does not understand.
    """
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
    """Follow the reference of a schema, and return the schema at its end.

    Return None if the reference leads out of the document, or if the check does not understand the schema.
    """
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict) or "$dynamicRef" in schema or "$recursiveRef" in schema:
            return None
        if schema is not document and _is_named(schema, document):
            return None
        if "$ref" not in schema:
            return schema
        if "properties" in schema or any(key in schema for key in _BRANCHES):
            return None  # the draft decides whether these keywords apply beside a reference
        schema = _at(document, schema["$ref"])
    return None


def _at(document: Any, reference: str) -> Any:
    """Return the value at a `#/…` reference in the document.

    Return None if there is no such value, or if the reference has another form.
    """
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
    """Return whether a part of a document has a URI of its own.

    References `#/…` inside such a part are relative to the part.
    """
    return isinstance(part.get("id" if "draft-04" in str(document.get("$schema")) else "$id"), str)
