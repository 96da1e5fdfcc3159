"""The configuration's JSON Schema, for editors; floor 4.

The schema uses draft-07, because the YAML language server supports it. It is built from the models that check the
configuration, with the options of every loaded sink. Every value may also be a string with `${…}`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from router.config.cases import CaseConfig
from router.config.lookups import LOOKUP_NAME, LOOKUPS, PluginLookupConfig
from router.config.models import SOURCES, DeliverOnly, HostKeys, RouteConfig, RouterConfig, SchemaConfig
from router.config.scalars import NAME, OFF
from router.core.conditions.reading import ANY
from router.ops.loading.reading import shapes
from router.plugin_contracts import SinkType
from router.plugin_loading.plugin_manager import Plugins
from router.plugin_loading.sink_types import ALL

Json = dict[str, Any]

_EXPRESSION: Json = {"type": "string", "pattern": r"\$"}
_TEXT: Json = {"type": "string"}
_FULL_TEXT: Json = {"type": "string", "minLength": 1}
_TEXTS: Json = {"type": "array", "items": _TEXT}
_NOISE = frozenset({"title", "discriminator", "writeOnly", "default"})
_SCALARS = frozenset({"integer", "number", "boolean", "null"})
_PLAIN_TEXT = frozenset({"type", "description", "examples", "default"})
_ANNOTATIONS = ("description", "examples", "default")


def config_schema(plugins: Plugins) -> Json:
    """Return the draft-07 JSON Schema of a configuration, with the options of every sink in `plugins`."""
    fields = {key: field.description or "" for key, field in RouterConfig.model_fields.items()}
    host = _properties(HostKeys)
    host["queue"] = {
        "description": host["queue"]["description"],
        "anyOf": [{"enum": ["memory", "redis"]}, *host["queue"].get("anyOf", [])],
    }
    kinds = {name: _kind(kind, host) for name, kind in sorted(plugins.sinks.items())}
    simple = {key: _described(_expanded(RouterConfig)["properties"][key], fields[key]) for key in _SIMPLE}
    properties: Json = {
        "version": simple["version"],
        "include": _described(
            {"anyOf": [_TEXT, _TEXTS]}, "the files that are merged into this file: a path or glob, or a list of these"
        ),
        "redis": _or_empty(simple["redis"]),
        "plugins": _or_empty(simple["plugins"]),
        "allow_commands": simple["allow_commands"],
        "sources": _described(_named(_source()), fields["sources"]),
        "schemas": _or_empty(_described({"type": "array", "items": _model(SchemaConfig)}, fields["schemas"])),
        "lookups": _or_empty(_described(_lookups(plugins), fields["lookups"])),
        "defaults": _or_empty(_defaults(kinds, host)),
        "sinks": _described(_named(_sink(kinds)), fields["sinks"]),
        "routes": _described({"type": "array", "minItems": 1, "items": _route(plugins)}, fields["routes"]),
        "unmatched": _described(
            {"anyOf": [_choice("drop", "dead-letter"), {**_TEXTS, "minItems": 1}]}, fields["unmatched"]
        ),
        "deliver": _described({"anyOf": [_choice("send", "print"), _model(DeliverOnly)]}, fields["deliver"]),
        "timezone": simple["timezone"],
        "dead_letters": _or_empty(simple["dead_letters"]),
        "admin": _described({"anyOf": [_choice(OFF), simple["admin"], {"type": "null"}]}, fields["admin"]),
        "shutdown": _or_empty(simple["shutdown"]),
        "tests": _or_empty(_described({"type": "array", "items": _case()}, fields["tests"])),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "event-router configuration",
        "type": "object",
        "properties": properties,
        "required": ["version"],
        "anyOf": [{"required": ["include"]}, {"required": ["sources", "sinks", "routes"]}],
        "additionalProperties": False,
        "definitions": _definitions(),
    }


_SIMPLE = ("version", "redis", "plugins", "allow_commands", "timezone", "dead_letters", "admin", "shutdown")


def _expanded(model: type[BaseModel]) -> Json:
    """Return the schema of a model, with references inlined and `${…}` allowed."""
    schema = model.model_json_schema(by_alias=True)
    expanded = _inlined(schema, schema.get("$defs", {}), ())
    assert isinstance(expanded, dict)
    return expanded


def _inlined(schema: Any, definitions: Json, open_: tuple[str, ...]) -> Any:
    """Return a schema without `$ref` and with `${…}` allowed. Draft-07 ignores keywords beside a `$ref`."""
    if isinstance(schema, list):
        return [_inlined(item, definitions, open_) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        if name in open_:  # a model that contains itself
            return {}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**_inlined(definitions[name], definitions, (*open_, name)), **_cleaned(beside, definitions, open_)}
    return _loosened(_cleaned(schema, definitions, open_))


def _cleaned(schema: Json, definitions: Json, open_: tuple[str, ...]) -> Json:
    found: Json = {}
    for key, value in schema.items():
        if key == "$defs" or (key in _NOISE and not isinstance(value, dict)):
            continue
        if key in {"properties", "patternProperties"}:
            found[key] = {name: _inlined(inner, definitions, open_) for name, inner in value.items()}
        elif key == "prefixItems":  # draft-07 calls `prefixItems` `items`
            found["items"] = [_inlined(item, definitions, open_) for item in value]
        elif key in {"default", "examples", "enum", "const"}:
            found[key] = value
        else:
            found[key] = _inlined(value, definitions, open_)
    return found


def _loosened(schema: Json) -> Json:
    """Allow a string with `${…}` instead of a scalar of another type, and instead of a string with a pattern."""
    kind = schema.get("type")
    is_scalar = kind in _SCALARS or "enum" in schema or "const" in schema
    is_formed = kind == "string" and set(schema) - _PLAIN_TEXT
    if not is_scalar and not is_formed:
        return schema
    inner = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    around = {key: value for key, value in schema.items() if key in _ANNOTATIONS}
    return {**around, "anyOf": [inner, _EXPRESSION]}


def _properties(model: type[BaseModel]) -> Json:
    properties: Json = _expanded(model).get("properties", {})
    return properties


def _model(model: type[BaseModel]) -> Json:
    """Return the schema of a mapping that a model checks."""
    schema = _expanded(model)
    found: Json = {"type": "object", "properties": schema.get("properties", {}), "additionalProperties": False}
    return {**found, "required": schema["required"]} if schema.get("required") else found


def _described(schema: Json, description: str) -> Json:
    return {"description": description, **schema} if description else schema


def _or_empty(schema: Json) -> Json:
    """Return a schema that also allows null. A section is null if all its lines are commented out."""
    return {**schema, "type": [schema["type"], "null"]}


def _choice(*words: str) -> Json:
    return {"anyOf": [{"enum": list(words)}, _EXPRESSION]}


def _named(schema: Json) -> Json:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": schema,
    }


def _kind(kind: SinkType, host: Json) -> Json:
    """Return the keys of one type of sink."""
    options = {
        key: schema if schema.get("description") else _described(schema, f"an option of the {kind.name} sink")
        for key, schema in _properties(kind.options).items()
    }
    return {**options, **host}


def _sink(kinds: Json) -> Json:
    """Return the schema of a sink.

    Its keys depend on its type. Only `type` is required, because `defaults` may set all other keys.
    """
    cases: Json = {name: {"properties": keys, "additionalProperties": False} for name, keys in kinds.items()}
    return _by_type(cases, "write the type of the sink, such as email or webhook")


def _source() -> Json:
    """Return the schema of a source. Its keys depend on its type."""
    return _by_type({name: _model(model) for name, model in SOURCES.items()}, "write pubsub, stream or list")


def _lookups(plugins: Plugins) -> Json:
    """Return the schema of `lookups`, a mapping by name. The allowed keys of a lookup depend on its type."""
    cases: Json = {name: _model(model) for name, model in LOOKUPS.items()}
    for name, kind in sorted(plugins.lookups.items()):
        host, own = _model(PluginLookupConfig), _model(kind.options)
        required = [*host.get("required", []), *own.get("required", [])]
        cases[name] = {**host, "properties": {**own["properties"], **host["properties"]}, "required": required}
    return {
        **_named(_by_type(cases, "write redis-hash, file, http, or the type that a plugin registers")),
        "propertyNames": {"pattern": f"^{LOOKUP_NAME}$"},
    }


def _by_type(cases: Json, description: str) -> Json:
    """Return the schema of a mapping in which the key `type` selects one of the schemas `cases`."""
    which = _described(_choice(*cases), description)
    schema: Json = {"type": "object", "properties": {"type": which}, "required": ["type"]}
    chosen = [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": case}
        for name, case in cases.items()
    ]
    return {**schema, "allOf": chosen} if chosen else schema


def _defaults(kinds: Json, host: Json) -> Json:
    def keys(properties: Json, description: str) -> Json:
        without = {key: value for key, value in properties.items() if key != "type"}
        return {"description": description, "type": "object", "properties": without, "additionalProperties": False}

    properties = {name: keys(found, f"defaults of every {name} sink") for name, found in kinds.items()}
    properties[ALL] = keys(host, "defaults of every sink")
    return {
        "description": "default keys of sinks, by type of sink or for `all`; a sink's own keys override them",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _route(plugins: Plugins) -> Json:
    """Return the schema of a route.

    Its `sinks` may override `only_if` and any option with templates, of any type of sink.
    """
    overrides: Json = {"sink": {"type": "string", "description": "write the name of a sink"}}
    for kind in plugins.sinks.values():
        schemas = _properties(kind.options)
        for key, field in shapes.fields(kind.options).items():
            if shapes.anywhere(shapes.of_field(field), shapes.is_template):
                overrides[key] = _either(overrides.get(key), schemas[key])
    overrides["only_if"] = _properties(HostKeys)["only_if"]
    entry = {"type": "object", "properties": overrides, "required": ["sink"], "additionalProperties": False}
    route = _model(RouteConfig)
    sinks = {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, entry]}}
    description = route["properties"]["sinks"].get("description", "")
    described = {
        "sinks": _described(sinks, description),
        "match": {
            "allOf": [{"$ref": "#/definitions/match"}],
            "description": route["properties"]["match"]["description"],
        },
        "when": {"type": "string", "minLength": 1, "description": route["properties"]["when"]["description"]},
    }
    return {**route, "properties": {**route["properties"], **described}}


def _case() -> Json:
    """Return the schema of a test: either `event` and `expect`, or `steps`. An event has either a payload or a file."""
    case = _model(CaseConfig)
    alternatives = [{"required": ["event", "expect"]}, {"required": ["steps"]}]
    return {**case, "oneOf": alternatives}


def _definitions() -> Json:
    """Return the schemas that refer to themselves: the schema of `match`, and the schema of one condition in `match`."""
    scalar: Json = {"type": ["string", "number", "boolean", "null"]}
    scalars: Json = {"type": "array", "minItems": 1, "items": scalar}
    number: Json = {"anyOf": [{"type": "number"}, _EXPRESSION]}
    text: Json = {"anyOf": [_FULL_TEXT, {"type": "array", "minItems": 1, "items": _FULL_TEXT}]}
    operators: dict[str, tuple[Json, str]] = {
        "eq": (scalar, "equals this value; a missing field does not"),
        "ne": (scalar, "exists and has a different value"),
        "in": (scalars, "is one of these values"),
        "gt": (number, "is a number above this number"),
        "gte": (number, "is a number that is equal to or above this number"),
        "lt": (number, "is a number below this number"),
        "lte": (number, "is a number that is equal to or below this number"),
        "prefix": (text, "is a string that begins with this text, or with one of these texts"),
        "suffix": (text, "is a string that ends with this text, or with one of these texts"),
        "contains": (
            {"anyOf": [scalar, scalars]},
            "is a string that contains this text, or a list that has this element; if you write a list here, one of its values is enough",
        ),
        "regex": (text, "is a string in which this regular expression is found"),
        "exists": (
            {"anyOf": [{"type": "boolean"}, _EXPRESSION]},
            "true if the field must exist (its value may be null), false if it must not exist",
        ),
        "not": (
            {"$ref": "#/definitions/condition"},
            "does not meet this condition; also holds for a missing field, except with a condition such as `exists: false`",
        ),
    }
    properties = {
        name: {"allOf": [schema], "description": described} for name, (schema, described) in operators.items()
    }
    condition = {"type": "object", "minProperties": 1, "properties": properties, "additionalProperties": False}
    alternatives = {
        "description": "alternatives, of which at least one must hold",
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/definitions/match"},
    }
    return {
        "condition": {"anyOf": [scalar, scalars, condition]},
        "match": {
            "type": "object",
            "minProperties": 1,
            "properties": {ANY: alternatives},
            "additionalProperties": {"$ref": "#/definitions/condition"},
        },
    }


def _either(first: Json | None, second: Json) -> Json:
    described = _described(second, "overrides the option of the sink") if "description" not in second else second
    if first is None or first == described:
        return described
    return {"description": first.get("description", ""), "anyOf": [first, described]}
