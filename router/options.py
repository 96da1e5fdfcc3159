"""The types of a sink's options; floor 1. Plugin authors import them from `router.api`.

A field's type says what the host does with it: `Template`, `Text`, `Html` and `Addresses` are rendered for each delivery
and reach the plugin as plain values, `Secret` never shows in any output. They may stand inside lists, mappings, nested
models, `Annotated[…]` and unions: `text: Text | None = None`, `headers: dict[str, Template] = {}`,
`body: Annotated[str, Text(escape="mrkdwn")] = ""`, `to: Annotated[list[str], Addresses(kind="mail")] = []`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Escape = Callable[[str], str] | str
"""How a value is made harmless for a sink: a function of the text, or the name of a method of the options model."""

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)

TEMPLATE_FILES = "template_files"
"""The key of pydantic's validation context under which stands what reads `{file: mail/order.html}`.

Validate with `Model.model_validate(data, context={TEMPLATE_FILES: read})`, where `read(name)` takes the text after
`file:` and returns a `TemplateFile`, or raises `ValueError` with what is wrong (it is reported at that place). Without
it a `{file: …}` is refused.
"""

ALLOW_PRIVATE = "allow_private"
"""The key of the same context under which stands the sink's host key of that name.

The key is absent where the sink is not known: in `defaults`, and in the process of a sink that runs in one.
"""


class TemplateFile(str):
    """The text of a template that stands in a file, and how the files it includes are read.

    `name` is the file's name as messages show it and as `read` knows it. `read(name)` returns the text of a file that
    the template includes, extends or imports (by the name written there), or raises `ValueError` or `OSError`; it is
    called while the configuration is loaded and never later. It has to keep to the folder of the template.
    """

    __slots__ = ("name", "read")

    name: str
    read: Callable[[str], str]

    def __new__(cls, text: str, *, name: str, read: Callable[[str], str]) -> Self:
        """Take the file's `text`, its `name` and the reader of what it includes."""
        self = super().__new__(cls, text)
        self.name = name
        self.read = read
        return self


def _template(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Accept a string, or `{file: name}` where the context says how files are read."""
    if isinstance(value, TemplateFile):
        return value
    if not isinstance(value, dict):
        return handler(value)
    name = value.get("file")
    if set(value) != {"file"} or not isinstance(name, str):
        raise ValueError("write the text itself, or {file: NAME} and nothing else")
    read = (info.context or {}).get(TEMPLATE_FILES)
    if read is None:
        raise ValueError("no file can be read here")
    return read(name)


def is_template(text: str) -> bool:
    """Return whether a text of the configuration has anything to render."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


class Template(str):
    """A template that must render: a delivery whose `Template` fails becomes a dead letter, reason `template`.

    As an annotation it makes the field a template (`subject: Template`). In `Annotated[str, Template(escape=…)]` it also
    says how the event's values are escaped; the template's own words never are. In the configuration it is a string or
    `{file: NAME}`; the plugin gets a plain string.
    """

    __slots__ = ("escape",)

    escape: Escape | None
    autoescape: ClassVar[bool] = False

    def __new__(cls, value: str = "", *, escape: Escape | None = None) -> Self:
        """Make a marker; `escape` is a function of the value's text, or the name of a method of the options model."""
        self = super().__new__(cls, value)
        self.escape = escape
        return self

    def __eq__(self, other: object) -> bool:
        """Markers differ by class and `escape` too: `Annotated` caches by equality and would take one for the other."""
        if isinstance(other, Template):
            return type(other) is type(self) and other.escape == self.escape and str.__eq__(self, other)
        return self.escape is None and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A strict string or a file; the class in the metadata is what `rendering` finds the field by."""
        return core_schema.with_info_wrap_validator_function(
            _template, core_schema.str_schema(strict=True), metadata={"template": cls.__name__}
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        file = {
            "type": "object",
            "properties": {"file": {"type": "string", "description": "a template file, relative to this file"}},
            "required": ["file"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "string"}, file]}


class Text(Template):
    """A message for people. Where it can't be rendered and every address is literal, the JSON line is sent instead."""

    __slots__ = ()


class Html(Text):
    """A `Text` whose values are HTML-escaped."""

    __slots__ = ()

    autoescape: ClassVar[bool] = True


def _listed(value: Any) -> Any:
    """Return addresses as a list: a single address is a list of one, a number (a chat's id) its digits."""
    items = value if isinstance(value, list | tuple) else [value]
    return [str(item) if type(item) is int else item for item in items]


class Addresses(list[str]):
    """The addresses of the recipients: a template, or a list of them. Renders to the list, a comma list taken apart.

    `to: Addresses` makes the field addresses of any kind: stripped, without empties and duplicates, never with a
    control character. `Annotated[list[str], Addresses(kind="mail")]` holds each to the syntax of a mailbox
    (`jane@example.org`, `"Doe, Jane" <jane@example.org>`). A field that names nobody who is to be reached, such as
    Reply-To, says `recipients=False`: it never counts as an address that a delivery has, nor is it split.
    """

    def __init__(
        self, values: Sequence[str] = (), *, kind: Literal["any", "mail"] = "any", recipients: bool = True
    ) -> None:
        super().__init__(values)
        self.kind = kind
        self.recipients = recipients

    def __eq__(self, other: object) -> bool:
        """Markers differ by `kind` and `recipients` too, as `Template`'s do."""
        if isinstance(other, Addresses) and (other.kind, other.recipients) != (self.kind, self.recipients):
            return False
        return list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]  # a marker stands in `Annotated[…] | None`, which hashes
        return hash((self.kind, self.recipients))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A list of strict strings; one string or number alone is a list of one."""
        strings = core_schema.list_schema(core_schema.str_schema(strict=True), strict=True)
        return core_schema.no_info_before_validator_function(_listed, strings)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = [{"type": "string"}, {"type": "integer"}]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


class Secret(SecretStr):
    """A credential: shows as `***` everywhere; `get_secret_value()` gives the text where it is used."""

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


class SinkOptions(BaseModel):
    """The base of a sink's options: strict types, unknown keys refused, frozen."""

    model_config = STRICT
