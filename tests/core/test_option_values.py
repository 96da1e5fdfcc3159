"""Options that are more than text: JSON with templates at its leaves, conditions that a plugin asks, URLs, previews."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import Field, ValidationError

from router.core.delivery.preparation import shown
from router.core.rendering import OptionsTemplate, TemplateEnvironment, TemplateFaults, compile_options
from router.core.rendering.expressions import NamedExpression
from router.core.rendering.walk import follow
from router.errors import PermanentError, TemplateError
from router.options import Addresses, Condition, Json, SinkOptions, Template, Text, Url
from tests.support.sinks import make_event

NOW = 1_763_935_200.0


class Options(SinkOptions):
    json_: Json | None = Field(default=None, alias="json")
    ok: Annotated[Condition, Condition(names=("status", "answer"))] | None = None
    url: Url = Url("")
    from_: Template = Field(default=Template(""), alias="from")
    to_: Addresses = Field(default=Addresses(), alias="to")
    text: Text | None = None

    def preview(self, event: Any) -> str:
        return f"{event.id}: {self.json_['a']}"


def compiled(**values: Any) -> OptionsTemplate:
    return compile_options(Options.model_validate(values), TemplateEnvironment())


def leaf(template: str, payload: Any) -> Any:
    options: Any = compiled(json={"a": template}).render(make_event(payload), NOW).options
    return options.json_["a"]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ payload }}", {"x": None, "n": 10**40, "l": [1, {"y": 1.5}]}),
        ("{{ payload.x }}", None),
        ("{{ payload.n }}", 10**40),
        ("{{ payload.l }}", [1, {"y": 1.5}]),
        ("{{ payload.l[1] }}", {"y": 1.5}),
        ("{{ payload.n > 1 }}", True),
        ("{{- payload.n -}}", 10**40),
        (" {{ payload.x }}", " "),
        ("{{ payload.x }}{{ payload.x }}", ""),
        ("{% if payload.n %}{{ payload.n }}{% endif %}", str(10**40)),
        ("{{ payload.gone | default(none) }}", None),
        ("{{ payload.l | map('string') }}", ["1", '{"y":1.5}']),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ {1: [payload.x, 'a' | markup]} }}", {"1": [None, "a"]}),
        ("{{ event.received_at }}", "2026-05-04T03:02:01.123456Z"),
        ("{{ (event).source }}", "web-app"),
        ("plain", "plain"),
    ],
)
def test_a_leaf_alone_is_the_value_itself(template: str, value: Any) -> None:
    found = leaf(template, {"x": None, "n": 10**40, "l": [1, {"y": 1.5}]})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ payload.gone }}", "json.a: payload.gone is missing"),
        ("{{ [payload.gone] }}", "json.a: payload.gone is missing"),
        ("{{ 1e308 * 10 }}", "json.a: the number is infinite or NaN"),
        ("{{ payload.l * 5000000 }}", "json.a: a text has more than"),
    ],
)
def test_a_leaf_that_fails_names_its_place(template: str, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        leaf(template, {"l": [1]})
    assert str(caught.value).startswith(says)


def test_a_list_that_holds_itself_many_times_over_is_not_written_out() -> None:
    value = "payload.l"
    for _ in range(8):
        value = f"[{value}, {value}, {value}]"
    with pytest.raises(TemplateError, match="a text has more than"):
        leaf(f"{{{{ {value} }}}}", {"l": ["x"] * 1000})


def test_what_has_no_template_is_one_object_for_all() -> None:
    template = compiled(json={"a": 1, "file": "x"}, ok="status == 1")
    first, second = (template.render(make_event({}), NOW).options for _ in range(2))
    assert first is second is template.static


@pytest.mark.parametrize(
    ("value", "place"), [([], "json"), ("x", "json"), ({"a": {"b": [float("inf")]}}, "json.a"), ({1: "x"}, "json")]
)
def test_what_is_no_json_object_is_refused(value: Any, place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"json": value})
    assert ".".join(map(str, caught.value.errors()[0]["loc"])).startswith(place)


def test_an_editor_takes_any_object() -> None:
    schema = Options.model_json_schema()
    assert set(schema["properties"]) == {"json", "ok", "url", "from", "to", "text"}
    jsonschema.validate({"json": {"a": [None, {"b": 1}]}, "ok": "status == 1"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"json": []}, schema)


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_place_is_named_as_the_configuration_names_it() -> None:
    with pytest.raises(TemplateFaults) as caught:
        compiled(json={"a": ["{{ x }}"]}, **{"from": "{{ y }}", "to": ["{{ z }}"]})
    assert [fault.path for fault in caught.value.faults] == [("json", "a", 0), ("from",), ("to", 0)]


def test_recipients_are_found_behind_another_name() -> None:
    template = compiled(to=["{{ payload.to }}"], json={"a": "{{ payload.to }}"})
    rendered = template.render(make_event({"to": "jane"}), NOW)
    assert rendered.addresses == template.recipients(rendered.options) == ("jane",)
    assert follow(rendered.options, ("json", "a")) == "jane"
    assert template.fields.addresses == ("to",)


# --- conditions -------------------------------------------------------------------------------------------------------


def holds(expression: str, **values: Any) -> bool:
    options: Any = compiled(ok=expression).static
    return options.ok.holds({"status": 200, "answer": {}, **values}, now=NOW)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("status == 200", True),
        ("answer.ok", False),
        ("answer.error.code == 7", False),
        ("not answer.ok and status in [200, 201]", True),
        ("on(answer.ok, true)", True),
        ("status > 'a'", False),
    ],
)
def test_a_condition_knows_the_names_that_the_plugin_gives(expression: str, expected: bool) -> None:
    assert holds(expression) is expected
    assert holds("answer == 'text'", answer="text")


def test_a_condition_that_fails_is_permanent() -> None:
    with pytest.raises(PermanentError, match=r"^ok: integer division or modulo by zero$"):
        holds("1 // (status - 200)")


@pytest.mark.parametrize("expression", ["payload.x", "sink == 'a'", "status ==", "{{ status }}", "nothing()"])
def test_a_condition_that_can_not_be_is_a_fault_of_the_options(expression: str) -> None:
    with pytest.raises(TemplateFaults) as caught:
        compiled(ok=expression)
    assert caught.value.faults[0].path == ("ok",)


def test_a_condition_that_is_not_compiled_says_so_and_travels_as_text() -> None:
    options = Options.model_validate({"ok": "status == 1"})
    assert options.ok is not None
    with pytest.raises(RuntimeError, match="not compiled"):
        options.ok.holds({}, now=NOW)
    dumped = compiled(ok="status == 1").static.model_dump(by_alias=True)  # type: ignore[union-attr]
    again = Options.model_validate(pickle.loads(pickle.dumps(dumped)))
    assert again.ok == "status == 1"
    assert type(dumped["ok"]) is str


def test_conditions_are_equal_by_text_and_names() -> None:
    ask = NamedExpression("a", ("a",), TemplateEnvironment(), "x").holds
    assert Condition("a", names=("a",)) == Condition("a", names=("a",), ask=ask) == "a"
    assert Condition("a", names=("a",)) != Condition("a", names=("b",))
    assert Condition("a") != "b"


# --- URLs and previews ------------------------------------------------------------------------------------------------


def test_the_values_of_a_url_are_encoded_once() -> None:
    url = "https://h/{{ payload.a }}?q={{ payload.a | url }}&r={{ payload.a | markup }}"
    options: Any = compiled(url=url).render(make_event({"a": "é/?"}), NOW).options
    assert options.url == "https://h/%C3%A9%2F%3F?q=%C3%A9%2F%3F&r=é/?"


def test_what_is_shown_is_the_message_or_else_the_preview() -> None:
    event = make_event({})
    assert shown(compiled(json={"a": 1}).render(event, NOW), event) == "e-1: 1"
    assert shown(compiled(json={"a": 1}, text="hi").render(event, NOW), event) == "hi"
    assert shown(compiled().render(event, NOW), event) == ""  # the preview raised a TypeError
