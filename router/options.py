"""The types of a sink's options; floor 1. Plugin authors import them from `router.api`.

A field's type says what the host does with it: `Template`, `Text`, `Html` and `Addresses` are rendered for each delivery
and reach the plugin as plain values, `Secret` never shows in any output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Escape = Callable[[str], str] | str
"""How a value is made harmless for a sink: a function of the text, or the name of a method of the options model."""

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)


class Template(str):
    """A template that must render: a delivery whose `Template` fails becomes a dead letter, reason `template`.

    As an annotation it makes the field a template (`subject: Template`). In `Annotated[str, Template(escape=…)]` it also
    says how the event's values are escaped; the template's own words never are.
    """

    __slots__ = ("escape",)

    escape: Escape | None
    autoescape: ClassVar[bool] = False

    def __new__(cls, value: str = "", *, escape: Escape | None = None) -> Self:
        """Make a marker; `escape` is a function of the value's text, or the name of a method of the options model."""
        self = super().__new__(cls, value)
        self.escape = escape
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A strict string; the class in the metadata is what `rendering` finds the field by."""
        return core_schema.str_schema(strict=True, metadata={"template": cls.__name__})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string"}


class Text(Template):
    """A message for people. Where it can't be rendered and every address is literal, the JSON line is sent instead."""

    __slots__ = ()


class Html(Text):
    """A `Text` whose values are HTML-escaped."""

    __slots__ = ()

    autoescape: ClassVar[bool] = True


class Addresses(list[str]):
    """Who gets it: a template, or a list of them. Renders to the list of addresses, a comma list taken apart."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        strings = core_schema.list_schema(core_schema.str_schema(strict=True), strict=True)
        return core_schema.no_info_before_validator_function(
            lambda value: [value] if isinstance(value, str) else value, strings
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class Secret(SecretStr):
    """A credential: shows as `***` everywhere; `get_secret_value()` gives the text where it is used."""

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


class SinkOptions(BaseModel):
    """The base of a sink's options: strict types, unknown keys refused, frozen."""

    model_config = STRICT
