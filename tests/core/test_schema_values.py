"""Whether a payload that fits a schema can have what a clause asks for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.conditions import compile_match
from router.core.conditions.clauses import Clause
from router.core.conditions.match import Match
from router.core.validation import SchemaProblem, compile_schema
from router.core.wiring.schema_fields import absent
from router.core.wiring.schema_values import refusals


def refused(document, match):
    """What the schema refuses of the clauses of a `match`."""
    return [each for clause in compile_match(match).clauses for each in refusals(document, clause)]


TYPED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "t": {"type": ["string", "null"]},
        "e": {"enum": ["low", "high", 3]},
        "c": {"const": "always"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "object": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
    "$defs": {"item": {"type": "object", "properties": {"sku": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("match", "what", "fact", "cure"),
    [
        ({"n": "5"}, 'meet `payload.n == "5"`', "says `type: integer`", "; write 5 without quotes"),
        ({"n": "five"}, 'meet `payload.n == "five"`', "says `type: integer`", ""),
        ({"n": 5.5}, "meet `payload.n == 5.5`", "says `type: integer`", ""),
        ({"n": True}, "meet `payload.n == true`", "says `type: integer`", ""),
        ({"x": {"in": [None, 1.5]}}, "meet `payload.x == null`", "says `type: number`", ""),
        ({"x": {"regex": "5"}}, 'meet `payload.x matches the regex "5"`', "says `type: number`", ""),
        ({"t": 5}, "meet `payload.t == 5`", "says `type: [string, null]`", '; write "5" in quotes'),
        ({"t": {"gt": 5}}, "meet `payload.t > 5`", "says `type: [string, null]`", ""),
        ({"t": {"contains": 5}}, "meet `payload.t contains 5`", "says `type: [string, null]`", ""),
        ({"e": "hgih"}, 'meet `payload.e == "hgih"`', 'allows "low", "high", 3', ' (did you mean "high"?)'),
        ({"e": {"gt": 3}}, "meet `payload.e > 3`", 'allows "low", "high", 3', ""),
        ({"e": {"not": {"eq": "Low"}}}, None, None, None),
        ({"c": {"suffix": ["s", "z"]}}, 'meet `payload.c ends with "z"`', 'allows "always"', ""),
        ({"list": "a"}, 'meet `payload.list == "a"`', "says `type: array`", '; write `{contains: "a"}`'),
        ({"list.*.sku": 5}, "meet `payload.list.*.sku == 5`", "says `type: string`", '; write "5" in quotes'),
        ({"list": {"contains": "a"}}, 'meet `payload.list contains "a"`', "says `type: object` as its elements", ""),
        (
            {"list.sku": "a"},
            "have payload.list.sku",
            "says `type: array` of payload.list",
            "; write `list.*.sku` to check whether any element matches",
        ),
        (
            {"object.7": "a"},
            "have payload.object.7",
            "says `type: object` of payload.object",
            '; if this is a key, write it in double quotes: `object."7"`',
        ),
        ({"object.*": "a"}, "have payload.object.*", "says `type: object` of payload.object", ""),
        ({"object.a": 1}, "meet `payload.object.a == 1`", "says `type: boolean`", ""),
        ({"t.a": 1}, "have payload.t.a", "says `type: [string, null]` of payload.t", ""),
        (
            {"0": 1},
            "have payload.0",
            "says `type: object` of payload",
            '; if this is a key, write it in double quotes: `"0"`',
        ),
    ],
)
def test_what_a_schema_rules_out(match, what, fact, cure):
    found = refused(TYPED, match) if what else []
    assert [each[2:] for each in found] == ([(what, fact, cure)] if what else [])


@pytest.mark.parametrize(
    ("document", "match"),
    [
        (True, {"a": "5"}),
        ({}, {"a": "5"}),
        (TYPED, {"n": {"in": [5, 5.0], "gt": 0}, "x": {"lte": 5}, "t": [None, "a"], "e": [3, "low"]}),
        (TYPED, {"list.0.sku": {"contains": "a"}, "list.*": {"exists": True}, "object.a": False, "other": 5}),
        ({"$ref": "other.json"}, {"a": "5"}),
        ({"$dynamicRef": "#x", "properties": {"a": {"type": "integer"}}}, {"a": "5"}),
        ({"properties": {"a": {"type": "integer"}}, "patternProperties": {"a": {"type": "string"}}}, {"a": "5"}),
        ({"properties": {"a": {"anyOf": [{"type": "integer"}]}}}, {"a": "5"}),
        ({"properties": {"a": {"type": "array", "prefixItems": [{"type": "integer"}]}}}, {"a.0": "5"}),
        ({"properties": {"a": {"type": "array", "items": [{"type": "integer"}]}}}, {"a.0": "5"}),
        (
            {
                "properties": {"a": {"$id": "schema://x/other", "$ref": "#/$defs/b", "$defs": {"b": True}}},
                "$defs": {"b": {"type": "integer"}},
            },
            {"a": "5"},
        ),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"const": 1}}}, {"a": 2}),
    ],
)
def test_what_is_not_understood_may_allow_everything(document, match):
    assert refused(document, match) == []


def test_a_part_with_an_id_is_a_document_of_its_own():
    """`#/…` in it leads to another place than it does in the whole document."""
    inner = {
        "$id": "schema://x/other",
        "properties": {"b": {"$ref": "#/$defs/c"}},
        "$defs": {"c": {"properties": {"d": {}}}},
    }
    closed = {"properties": {"e": {}}, "additionalProperties": False}
    document = {"properties": {"a": inner}, "$defs": {"c": closed}}
    assert compile_schema(document, uri="schema://x/y", retrieve=lambda uri: None).is_valid({"a": {"b": {"d": 1}}})
    assert absent(document, ["a", "b", "d"]) is None
    document["properties"]["f"] = {"$ref": "#/properties/a/properties/b"}
    assert absent(document, ["f", "d"]) is None
    del inner["$id"]
    assert absent(document, ["f", "d"]).closed
    assert absent(document, ["a", "b", "d"]).closed
    named = {
        "properties": {"a": {"examples": [{"$id": "x"}]}, "$id": {"type": "string"}},
        "additionalProperties": False,
    }
    assert absent(named, ["b"]).closed


NAMES = ["a", "b", "c"]
SCALARS = [None, True, False, 0, 1, 5, 5.0, 5.5, "", "5", "a", "ab", "true"]
TYPES = ["string", "integer", "number", "boolean", "null", "array", "object"]
DRAFTS = ["http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"]


def objects(inner):
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
            "patternProperties": st.dictionaries(st.sampled_from(["a", "."]), inner, max_size=1),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3),
            "const": st.sampled_from(SCALARS),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "$ref": st.sampled_from(["#", "#/$defs/d", "#/properties/a"]),
        },
    )


SCHEMAS = st.recursive(st.booleans() | objects(st.booleans()), objects, max_leaves=6)
DOCUMENTS = st.builds(
    lambda whole, part, draft: {**whole, "$defs": {"d": part}, **({"$schema": draft} if draft else {})},
    objects(SCHEMAS),
    SCHEMAS,
    st.none() | st.sampled_from(DRAFTS),
)
PAYLOADS = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
)
TESTS = st.one_of(
    st.sampled_from(SCALARS).map(lambda each: {"eq": each}),
    st.sampled_from(SCALARS).map(lambda each: {"ne": each}),
    st.sampled_from(SCALARS).map(lambda each: {"in": [each]}),
    st.sampled_from(SCALARS).map(lambda each: {"contains": each}),
    st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([0, 4.5])).map(lambda pair: dict([pair])),
    st.tuples(st.sampled_from(["prefix", "suffix", "regex"]), st.sampled_from(["a", "5"])).map(
        lambda pair: dict([pair])
    ),
    st.just({"exists": True}),
)


def ways(payload, before=()):
    """Every path to a value of a payload, by keys and by indices or `*`."""
    if before:
        yield before
    for key, value in (
        payload.items() if isinstance(payload, dict) else enumerate(payload) if isinstance(payload, list) else ()
    ):
        yield from ways(value, (*before, key))
        if isinstance(payload, list):
            yield from ways(value, (*before, "*"))


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, PAYLOADS, TESTS)
def test_nothing_is_refused_that_a_payload_which_fits_has(document, payload, test):
    try:
        schema = compile_schema(document, uri="schema://x/y", retrieve=lambda uri: None)
    except SchemaProblem:
        return
    if not schema.is_valid(payload):
        return
    for way in ways(payload):
        (clause,) = compile_match({".".join(map(str, way)): test}).clauses
        assert isinstance(clause, Clause)
        if "ne" not in test and Match((clause,)).holds(payload):
            assert refusals(document, clause) == [], way
        if [each for each in refusals(document, clause) if each.test is None]:
            raise AssertionError(f"there is a value at {way}")
        found = absent(document, [0 if each == "*" else each for each in way])
        assert found is None or not found.closed, way
