"""The option types: what they take, what they refuse, and what an editor is told."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

import jsonschema
import pytest
from pydantic import Field, ValidationError

from router.options import TEMPLATE_FILES, Addresses, Html, Secret, SinkOptions, Template, TemplateFile, Text


class Options(SinkOptions):
    subject: Template = Template("none")
    text: Text | None = None
    html: Html | None = None
    marked: Annotated[str, Text(escape="mark")] = ""
    headers: dict[str, Template] = Field(default_factory=dict)
    to: Addresses = Addresses()
    cc: Annotated[list[str], Addresses(kind="mail")] | None = None
    password: Secret | None = None


def read(name: str) -> TemplateFile:
    if name != "mail/order.html":
        raise ValueError(f"{name}: there is no such file")
    return TemplateFile("<p>{{ payload.x }}</p>", name=name, read=lambda name: name)


def errors(data: dict[str, Any], **context: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(data, context=context)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_strings_are_taken_as_they_are() -> None:
    options = Options.model_validate({"subject": "s {{ route }}", "text": "t", "html": "h", "headers": {"X": "x"}})
    assert (options.subject, options.text, options.html, options.headers) == ("s {{ route }}", "t", "h", {"X": "x"})
    assert Options().subject == "none"


@pytest.mark.parametrize("field", ["text", "html", "marked", "subject"])
def test_a_template_may_stand_in_a_file(field: str) -> None:
    data = {field: {"file": "mail/order.html"}, "headers": {"X": {"file": "mail/order.html"}}}
    options = Options.model_validate(data, context={TEMPLATE_FILES: read})
    for value in (getattr(options, field), options.headers["X"]):
        assert isinstance(value, TemplateFile)
        assert value == "<p>{{ payload.x }}</p>"
        assert (value.name, value.read("other")) == ("mail/order.html", "other")
    again = Options.model_validate({field: getattr(options, field)})
    assert isinstance(getattr(again, field), TemplateFile)


def test_files_that_cannot_be() -> None:
    context = {TEMPLATE_FILES: read}
    assert errors({"subject": {"file": "nope"}}, **context) == {"subject": "Value error, nope: there is no such file"}
    assert "{file: NAME} without other keys" in errors({"subject": {"file": "a", "x": 1}}, **context)["subject"]
    assert "{file: NAME} without other keys" in errors({"subject": {"file": 1}}, **context)["subject"]
    assert errors({"subject": {"file": "mail/order.html"}}) == {
        "subject": "Value error, a template file can't be used here"
    }


def test_types_are_strict() -> None:
    found = errors({"subject": 1, "text": True, "headers": {"X": None}, "to": [True], "cc": {"a": 1}, "extra": 1})
    assert set(found) == {"subject", "text", "headers.X", "to.0", "cc.0", "extra"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a, b", ["a, b"]),
        (["a", "b"], ["a", "b"]),
        (-100123, ["-100123"]),
        ([1, "b"], ["1", "b"]),
        ("{{ payload.x }}", ["{{ payload.x }}"]),
        ([], []),
    ],
)
def test_addresses_are_a_list(value: Any, expected: list[str]) -> None:
    options = Options.model_validate({"to": value, "cc": value})
    assert options.to == options.cc == expected
    jsonschema.validate({"to": value, "cc": value}, Options.model_json_schema())


def test_the_schema_for_editors() -> None:
    schema = Options.model_json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate({"subject": "s", "text": {"file": "x"}, "headers": {"X": "x"}, "to": 1}, schema)
    for wrong in ({"subject": 1}, {"text": {"files": "x"}}, {"to": {"a": 1}}, {"headers": {"X": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_annotated_keeps_markers_apart_that_differ_in_what_they_say() -> None:
    class Many:
        a: Annotated[str, Text(escape="one")]
        b: Annotated[str, Text(escape="two")]
        c: Annotated[str, Html()]
        d: Annotated[str, Text()]
        e: Annotated[list[str], Addresses(kind="mail")] | None
        f: Annotated[list[str], Addresses(recipients=False)]

    hints = get_type_hints(Many, include_extras=True)
    assert [hints[name].__metadata__[0].escape for name in "abcd"] == ["one", "two", None, None]
    assert [type(hints[name].__metadata__[0]) for name in "cd"] == [Html, Text]
    assert hints["f"].__metadata__[0].recipients is False


def test_markers_are_equal_to_what_says_the_same() -> None:
    assert Template("a") == "a"
    assert "a" == Template("a")  # noqa: SIM300  # both ways
    assert Template("a") != "b"
    assert Text() != Html()
    assert Text(escape="a") == Text(escape="a")
    assert Text(escape="a") != Text(escape="b")
    assert Text(escape="a") != ""
    assert Addresses(["a"]) == ["a"]
    assert Addresses(kind="mail") != Addresses()
    assert Addresses(["a"]) != ["b"]
    assert len({Text(), Html(), Addresses(), Addresses(kind="mail")}) == 4


def test_a_secret_shows_nothing() -> None:
    options = Options(password=Secret("hunter2"))
    assert "hunter2" not in f"{options!r} {options} {options.password} {options.model_dump_json()}"
    assert str(options.password) == "***"
    assert options.password is not None
    assert options.password.get_secret_value() == "hunter2"
    assert str(Secret("")) == ""
