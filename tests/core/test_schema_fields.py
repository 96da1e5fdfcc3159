"""Whether a payload that fits a schema can have a field."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.validation import compile_schema
from router.core.wiring.schema_fields import absent

CLOSED = {"properties": {"user_id": {}, "order": {"$ref": "#/$defs/order"}}, "additionalProperties": False}
ORDER = {"order": {"properties": {"total": {}, "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}}}}
DOCUMENT = {
    **CLOSED,
    "$defs": {**ORDER, "line": {"properties": {"sku": {"type": "string"}}, "additionalProperties": False}},
}


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (["usr_id"], "user_id"),
        (["name"], None),
        (["order", "lines", 0, "skuu"], "sku"),
        (["order", "lines", 3, "x"], None),
    ],
)
def test_a_closed_object_has_no_other_field(path, near):
    found = absent(DOCUMENT, path)
    assert found.closed
    assert found.near == near


@pytest.mark.parametrize(
    "path",
    [
        ["user_id"],
        ["user_id", "anything"],
        ["order", "discount"],
        ["order", "lines", 0, "sku"],
        ["order", "lines", "first"],
    ],
)
def test_a_field_that_is_listed_or_allowed_may_be_there(path):
    assert absent(DOCUMENT, path) is None


def test_an_open_object_is_told_of_near_names_alone():
    found = absent({"properties": {"message": {}}, "required": ["user_id"]}, ["mesage"])
    assert (found.closed, found.near) == (False, "message")
    assert absent({"properties": {"message": {}}, "required": ["user_id"]}, ["user_id"]) is None
    assert absent({"properties": {"message": {}}}, ["title"]) is None


@pytest.mark.parametrize(
    "document",
    [
        True,
        {},
        {"$ref": "other.json"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$dynamicRef": "#x", "properties": {"message": {}}},
        {"properties": {"message": {}}, "patternProperties": {"^mes": {}}, "additionalProperties": False},
        {"properties": {"message": {}}, "allOf": [{"properties": {"mesage": {}}}]},
        {"properties": {"message": {}}, "anyOf": [{"$ref": "other.json"}]},
        {"properties": {"message": {}}, "if": {"required": ["mesage"]}, "then": {}},
        {"properties": {"message": {}}, "dependentRequired": {"mesage": ["message"]}},
        {"allOf": [{"properties": {"message": {}}, "dependencies": {"mesage": {"required": ["x"]}}}]},
        {"properties": {"message": {"type": "string"}}, "$ref": "#/$defs/a", "$defs": {"a": {}}},
        {"prefixItems": [{"properties": {"message": {}}}]},
    ],
)
def test_what_is_not_understood_may_allow_a_field(document):
    assert absent(document, ["mesage"]) is None


NAMES = st.sampled_from(["a", "ab", "abc", "b"])
LEAVES = st.sampled_from([True, {}, {"type": "string"}])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.sampled_from([False, True, {}]),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "if": inner,
            "then": inner,
            "items": inner,
        },
    ),
    max_leaves=8,
)
PAYLOADS = st.recursive(
    st.just("text"), lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=2), max_leaves=6
)


def paths(payload, before=()):
    """Every path of a payload."""
    items = payload.items() if isinstance(payload, dict) else enumerate(payload) if isinstance(payload, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from paths(value, (*before, key))


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, PAYLOADS)
def test_no_field_of_a_payload_that_fits_is_said_to_be_ruled_out(document, payload):
    schema = compile_schema(document, uri="schema://x/y", retrieve=lambda uri: None)
    if schema.is_valid(payload):
        for path in paths(payload):
            found = absent(document, path)
            assert found is None or not found.closed, path
