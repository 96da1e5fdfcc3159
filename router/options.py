"""The field types of a sink's options; floor 1. Plugin authors import them from `router.api`.

The router renders fields of type `Template`, `Text`, `Html` and `Addresses` for each delivery; the plugin gets plain
values. The router never shows a `Secret`. The types may be used inside lists, mappings, nested models, `Annotated[…]`
and unions: `text: Text | None = None`, `headers: dict[str, Template] = {}`, `body: Annotated[str,
Text(escape="mrkdwn")] = ""`, `to: Annotated[list[str], Addresses(kind="mail")] = []`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

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
"""The escaping of a value for a sink: a function of the text, or the name of a method of the options model."""

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)
"""The pydantic configuration of options: strict types, frozen, unknown keys refused."""

TEMPLATE_FILES = "template_files"
"""The key, in pydantic's validation context, of the function that reads `{file: mail/order.html}`.

Validate with `Model.model_validate(data, context={TEMPLATE_FILES: read})`. `read(name)` takes the text after `file:`
and returns a `TemplateFile`, or raises `ValueError`, which is reported at that place. Without the function a `{file:
…}` is refused.
"""

ALLOW_PRIVATE = "allow_private"
"""The key, in the same context, of the value of the sink's host key `allow_private`.

The context lacks the key if the sink is unknown: in `defaults`, and in the process of a sink with
`execution="process"`.
"""


class TemplateFile(str):
    """The text of a template file, with the function that reads the files it includes.

    `name` is the file's name in messages and for `read`. `read(name)` returns the text of a file that the template
    includes, extends or imports (by the name written there), or raises `ValueError` or `OSError`. It is called only
    while the configuration is loaded, and must not read outside the folder of the template.
    """

    __slots__ = ("name", "read")

    name: str
    read: Callable[[str], str]

    def __new__(cls, text: str, *, name: str, read: Callable[[str], str]) -> Self:
        """Return a template with the file's `text`, its `name` and the function that reads its includes."""
        self = super().__new__(cls, text)
        self.name = name
        self.read = read
        return self


def _template(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Accept a string, or `{file: name}` if the context has a function that reads files."""
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
    """Return whether a text of the configuration contains template syntax."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


class Template(str):
    """A template that must render: if it fails, the delivery becomes a dead letter, reason `template`.

    The annotation `subject: Template` makes the field a template. `Annotated[str, Template(escape=…)]` also sets the
    escaping of the event's values; the template's own text is never escaped. The configuration holds a string or
    `{file: NAME}`; the plugin gets a plain string.
    """

    __slots__ = ("escape",)

    escape: Escape | None
    autoescape: ClassVar[bool] = False

    def __new__(cls, value: str = "", *, escape: Escape | None = None) -> Self:
        """Return a marker. `escape` is a function of the value's text, or the name of a method of the options model."""
        self = super().__new__(cls, value)
        self.escape = escape
        return self

    def __eq__(self, other: object) -> bool:
        """Compare class and `escape` too, because `Annotated` caches by equality and would confuse other markers."""
        if isinstance(other, Template):
            return type(other) is type(self) and other.escape == self.escape and str.__eq__(self, other)
        return self.escape is None and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a strict string or a file. `rendering` finds the field by the class in the metadata."""
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
    """A message for people. If it can't be rendered and every address is literal, the JSON line is sent instead."""

    __slots__ = ()


class Html(Text):
    """A `Text` whose values are HTML-escaped."""

    __slots__ = ()

    autoescape: ClassVar[bool] = True


def _listed(value: Any) -> Any:
    """Return addresses as a list. A single address becomes a list of one, and a number, such as a chat's id, a text."""
    items = value if isinstance(value, list | tuple) else [value]
    return [str(item) if type(item) is int else item for item in items]


class Addresses(list[str]):
    """The addresses of the recipients: a template or a list of templates. Renders to a list; commas separate addresses.

    `to: Addresses` accepts addresses of any kind. They are stripped; empty ones and duplicates are removed, and control
    characters are refused. `Annotated[list[str], Addresses(kind="mail")]` requires the syntax of a mailbox
    (`jane@example.org`, `"Doe, Jane" <jane@example.org>`). A field whose addresses are no recipients, such as Reply-To,
    sets `recipients=False`. Such addresses are not among those of the delivery, and are never split.
    """

    def __init__(
        self, values: Sequence[str] = (), *, kind: Literal["any", "mail"] = "any", recipients: bool = True
    ) -> None:
        super().__init__(values)
        self.kind = kind
        self.recipients = recipients

    def __eq__(self, other: object) -> bool:
        """Compare `kind` and `recipients` too, for the reason given in `Template`."""
        if isinstance(other, Addresses) and (other.kind, other.recipients) != (self.kind, self.recipients):
            return False
        return list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]  # `Annotated[…] | None` hashes its markers
        return hash((self.kind, self.recipients))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a list of strict strings; a single string or number becomes a list of one."""
        strings = core_schema.list_schema(core_schema.str_schema(strict=True), strict=True)
        return core_schema.no_info_before_validator_function(_listed, strings)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = [{"type": "string"}, {"type": "integer"}]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


class Secret(SecretStr):
    """A credential, shown as `***` everywhere. `get_secret_value()` returns its text."""

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


class RedisTarget(NamedTuple):
    """A channel or key of Redis that a sink writes to, as its options name it."""

    kind: Literal["channel", "key"]
    name: str
    """The name, or its template."""
    option: str
    """The key of the option with the name, for messages."""
    url: str | None = None
    """The URL of the server; None for the router's own."""


class SinkOptions(BaseModel):
    """The base of a sink's options: strict types, unknown keys refused, frozen."""

    model_config = STRICT

    @property
    def redis_targets(self) -> Sequence[RedisTarget]:
        """The channels and keys of Redis that the sink writes to, by which `check` finds loops. Empty by default."""
        return ()
