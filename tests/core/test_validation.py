"""Schemas: what they accept, how they say no, what they may refer to."""

import time

import pytest

from router.core.validation import MESSAGE_BYTES, MOST, POINTER_BYTES, SchemaProblem, compile_schema, pointer

NOTIFICATION = {
    "type": "object",
    "required": ["user_id", "message"],
    "properties": {"user_id": {"type": "integer", "minimum": 1}, "message": {"type": "string"}},
}


def refuse(uri):
    raise ValueError(f"{uri} is outside of the schema folder")


def compiled(document, retrieve=refuse):
    return compile_schema(document, uri="schema:///a.json", retrieve=retrieve)


def test_each_violation_has_pointer_keyword_and_message():
    found = compiled(NOTIFICATION).errors({"user_id": "42"})
    assert {(violation.pointer, violation.keyword) for violation in found} == {
        ("/user_id", "type"),
        ("/message", "required"),
    }
    assert all(violation.message for violation in found)


def test_required_inside_an_object_points_at_the_missing_field():
    schema = compiled({"properties": {"order": {"required": ["a/b"]}}})
    assert [violation.pointer for violation in schema.errors({"order": {}})] == ["/order/a~1b"]


def test_at_most_so_many_violations_are_listed():
    schema = compiled({"items": {"type": "integer"}})
    assert len(schema.errors(["x"] * 1000)) == MOST


@pytest.mark.parametrize(
    ("payload", "valid"), [({"user_id": 1, "message": ""}, True), ({"user_id": 1.0, "message": ""}, True), ([], False)]
)
def test_verdict(payload, valid):
    schema = compiled(NOTIFICATION)
    assert schema.is_valid(payload) is valid
    assert bool(schema.errors(payload)) is not valid


@pytest.mark.parametrize(
    ("draft", "document", "payload"),
    [
        ("http://json-schema.org/draft-04/schema#", {"minimum": 3, "exclusiveMinimum": True}, 3),
        ("http://json-schema.org/draft-06/schema#", {"exclusiveMinimum": 3}, 3),
        ("http://json-schema.org/draft-07/schema#", {"if": True, "then": False}, 3),
        ("https://json-schema.org/draft/2019-09/schema", {"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ("https://json-schema.org/draft/2020-12/schema", {"prefixItems": [{"type": "string"}]}, [1]),
        (None, {"prefixItems": [{"type": "string"}]}, [1]),
    ],
)
def test_drafts(draft, document, payload):
    schema = compiled({"$schema": draft, **document} if draft else document)
    assert not schema.is_valid(payload)


@pytest.mark.parametrize(
    ("format", "bad"), [("email", "nobody"), ("date-time", "yesterday"), ("ipv4", "300.1.1.1"), ("uuid", "x")]
)
def test_format_is_asserted(format, bad):  # noqa: A002
    assert not compiled({"format": format}).is_valid(bad)


@pytest.mark.parametrize(
    ("document", "where", "part"),
    [
        ([], "", "list"),
        ({"type": "strin"}, "/type", "strin"),
        ({"properties": {"a": {"minLength": "x"}}}, "/properties/a/minLength", "integer"),
        ({"$schema": "http://json-schema.org/draft-99/schema"}, "/$schema", "draft-07/schema#"),
        ({"$ref": "#/definitions/nowhere"}, "", "nowhere"),
        ({"$ref": "http://127.0.0.1:1/x.json"}, "", "outside"),
        ({"$ref": "file:///etc/passwd"}, "", "outside"),
        ({"pattern": "(?=a)b"}, "/pattern", "linear-time"),
        ({"pattern": "("}, "/pattern", "unterminated"),
        ({"pattern": "^(a{1000}){1000}$"}, "/pattern", "too large"),
        ({"pattern": "a{2,1}"}, "/pattern", "the minimum 2 is larger than the maximum 1"),
        ({"pattern": r"(a)\1"}, "/pattern", "back-references"),
    ],
)
def test_what_is_no_schema(document, where, part):
    with pytest.raises(SchemaProblem) as caught:
        compiled(document)
    assert caught.value.pointer == where
    assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_references_to_other_documents_are_retrieved():
    asked = []

    def retrieve(uri):
        asked.append(uri)
        return {"type": "integer"}

    schema = compiled({"properties": {"a": {"$ref": "common.json"}}}, retrieve)
    assert not schema.is_valid({"a": "x"})
    assert asked == ["schema:///common.json"]


def test_a_reference_to_itself_ends():
    assert compiled({"$ref": "#"}).is_valid(1)


def test_patterns_are_linear():
    schema = compiled({"pattern": "^(a+)+$"})
    began = time.process_time()
    assert not schema.is_valid("a" * 5000 + "!")
    assert time.process_time() - began < 2  # a backtracking engine would never end


@pytest.mark.parametrize("payload", [19.99, 2**70, 0.07])
def test_numbers(payload):
    assert compiled({"type": "number", "multipleOf": 0.01}).is_valid(payload)


def test_pointer():
    assert pointer(["a/b", 0, "~"]) == "/a~1b/0/~0"
    assert pointer([]) == ""


@pytest.mark.parametrize(
    ("document", "payload", "places"),
    [
        (NOTIFICATION, {"user_id": "SECRET", "message": 1}, {"/user_id", "/message"}),
        ({"additionalProperties": {"type": "string"}}, {"SECRET": 1}, {"/*"}),
        ({"patternProperties": {"^S": {"items": {"type": "string"}}}}, {"SECRET": ["", 2]}, {"/*/1"}),
        ({"propertyNames": {"maxLength": 1}}, {"SECRET": 1}, {"/"}),
        ({"properties": {"a": {"required": ["b"]}}}, {"a": {"SECRET": 1}}, {"/a/b"}),
    ],
)
def test_the_place_for_the_log_has_no_name_that_the_payload_chose(document, payload, places):
    found = compiled(document).errors(payload)
    assert {violation.place for violation in found} == places


@pytest.mark.parametrize("name", ["k" * 900_000, "ü" * 500_000, "😀~/" * 100_000])
def test_a_violation_is_small_however_long_the_names_and_values_are(name):
    (one,) = compiled({"additionalProperties": {"type": "integer"}}).errors({name: name})
    assert len(one.pointer.encode()) <= POINTER_BYTES
    assert len(one.message.encode()) <= MESSAGE_BYTES
    assert one.pointer.startswith("/" + name[0])
