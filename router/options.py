"""The field types of a sink's options; floor 1. Plugin authors import them from `router.api`.

The router renders fields of type `Template`, `Text`, `Html`, `Url`, `Key`, `Json` and `Addresses` for each delivery; the
plugin gets plain values. A `Condition` is compiled, and the plugin evaluates it. A `Secret` is never shown. The types may be
used inside lists, mappings, nested models, `Annotated[…]` and unions: `text: Text | None = None`, `headers: dict[str,
Template] = {}`, `body: Annotated[str, Text(escape="mrkdwn")] = ""`, `to: Annotated[list[str], Addresses(kind="mail")] = []`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

from router.events import Event

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
"""The key, in the same context, under which the sink's host key `allow_private` is found.

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
        raise ValueError("write the text itself, or {file: NAME} without other keys")
    read = (info.context or {}).get(TEMPLATE_FILES)
    if read is None:
        raise ValueError("a template file can't be used here")
    return read(name)


def is_template(text: str) -> bool:
    """Return whether a string of the configuration contains template syntax."""
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
    """A message for people. If the text can't be rendered and every address is literal, the JSON line is sent instead."""

    __slots__ = ()


class Html(Text):
    """A `Text` whose values are HTML-escaped."""

    __slots__ = ()

    autoescape: ClassVar[bool] = True


class Url(Template):
    """A URL whose values are percent-encoded, so that `/`, `?` and `#` in a value do not delimit parts of the URL.

    The plugin must check scheme and host (`url_fault`).
    """

    __slots__ = ()


class Key(Template):
    """A template for a key that names what a message is about, such as an order. Spaces around it are removed.

    The router keeps the order of deliveries with equal keys within one router, as `order_by` does. `order_by` in the
    sink's configuration replaces that order. A key that renders to an empty string is no key. A key uses no lookups, because
    the order is decided before lookups are fetched. If several options are keys, the first one that is not empty decides.
    """

    __slots__ = ()


def _listed(value: Any) -> Any:
    """Return addresses as a list. A single address becomes a list of one, and a number, such as a chat's id, a string."""
    items = value if isinstance(value, list | tuple) else [value]
    return [str(item) if type(item) is int else item for item in items]


class Addresses(list[str]):
    """The addresses of the recipients: a template or a list of templates. Renders to a list; commas separate addresses.

    `to: Addresses` accepts addresses of any kind. They are stripped; empty ones and duplicates are removed, and control
    characters are refused. `Annotated[list[str], Addresses(kind="mail")]` requires the syntax of a mailbox
    (`jane@example.org`, `"Doe, Jane" <jane@example.org>`). A field whose addresses are not recipients, such as Reply-To,
    sets `recipients=False`. Such addresses are not recipients of the delivery, and are never split.

    With `Annotated[list[Any], Addresses(known_by="endpoint")]` each recipient is a mapping, such as the push
    subscription of a browser, and the text under this key is its address. The template renders to a mapping, its JSON
    text, or a list of these; the plugin gets a list of mappings.

    With `Annotated[list[str], Addresses(known_by=function)]` each recipient is a URL that holds a credential. The
    address that is shown and stored is the text that the function returns for the URL, or it raises `ValueError`. URLs
    are separated by white space, or by a comma. Those in the configuration are hidden like a `Secret`.
    """

    def __init__(
        self,
        values: Sequence[str] = (),
        *,
        kind: Literal["any", "mail"] = "any",
        recipients: bool = True,
        known_by: str | Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(values)
        self.kind = kind
        self.recipients = recipients
        self.known_by = known_by

    def __eq__(self, other: object) -> bool:
        """Compare the attributes too, for the reason given in `Template`."""
        if isinstance(other, Addresses) and other._attributes != self._attributes:
            return False
        return list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]  # `Annotated[…] | None` hashes its markers
        return hash(self._attributes)

    @property
    def _attributes(self) -> tuple[str, bool, str | Callable[[str], str] | None]:
        return self.kind, self.recipients, self.known_by

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a list of strict strings; a single string or number becomes a list of one."""
        strings = core_schema.list_schema(core_schema.str_schema(strict=True), strict=True)
        return core_schema.no_info_before_validator_function(_listed, strings)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = [{"type": "string"}, {"type": "integer"}]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


class Json(dict[str, Any]):
    """A JSON object whose texts are templates: `{user: "{{ payload.user_id }}", text: "Hello {{ payload.name }}"}`.

    A string that consists of a single `{{ … }}` becomes the value of its expression, such as null, a number or a list.
    Any other string renders to a string. Numbers, booleans and null stay. Keys are not templates. A template that can't
    be rendered makes the delivery a dead letter, reason `template`. The plugin gets a plain dict, which is encoded as
    JSON without loss.
    """

    def __eq__(self, other: object) -> bool:
        """Compare as a dict, because all markers are equal."""
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]  # `Annotated[…] | None` hashes its markers
        return hash(Json)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a mapping of strings to JSON values."""
        anything = core_schema.no_info_plain_validator_function(_json_value)
        return core_schema.dict_schema(core_schema.str_schema(strict=True), anything, strict=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "object"}


def _json_value(value: Any) -> Any:
    """Return a value of the configuration if JSON can hold it. Raises `ValueError` otherwise."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON can't represent this number")
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    return str(value) if isinstance(value, str) else value  # a key `file` makes the loader mark its text


class Condition(str):
    """An expression over names of the plugin, compiled by the router: `status == 200 and answer.ok`.

    `success: Annotated[Condition, Condition(names=("status", "answer"))] | None = None` may use these names, but no
    fields of the event. Syntax and comparisons are those of `only_if`: a missing value is false. For a delivery, the
    plugin calls `options.success.holds({"status": 200, "answer": {…}}, now=context.clock.now())`. The condition is not
    compiled in the options that `__init__` of a class gets, and never for a sink with `execution="process"`.
    """

    __slots__ = ("_ask", "names")

    names: tuple[str, ...]
    _ask: Callable[[Mapping[str, Any], float], bool] | None

    def __new__(
        cls,
        value: str = "",
        *,
        names: Sequence[str] = (),
        ask: Callable[[Mapping[str, Any], float], bool] | None = None,
    ) -> Self:
        """Return a marker with these `names`, or a compiled expression that `ask` evaluates."""
        self = super().__new__(cls, value)
        self.names = tuple(names)
        self._ask = ask
        return self

    def __eq__(self, other: object) -> bool:
        """Compare `names` too, for the reason given in `Template`."""
        return str.__eq__(self, other) and (not isinstance(other, Condition) or other.names == self.names)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def holds(self, values: Mapping[str, Any], *, now: float) -> bool:
        """Return whether the expression is true for these values of its names; `now` is seconds since the epoch.

        Raises `PermanentError` if it can't be evaluated: a division by zero, a filter that fails.
        """
        if self._ask is None:
            raise RuntimeError("this condition is not compiled: use the condition in the options that a delivery gets")
        return self._ask(values, now)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a strict string that is not empty; dumped as a plain one, for another process."""
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(strict=True, min_length=1),
            serialization=core_schema.plain_serializer_function_ser_schema(str.__str__),
        )


PLACEHOLDER = "placeholder"
"""The text in place of a secret that is missing, for commands that need no secrets, such as `check`."""


def is_placeholder(text: str) -> bool:
    """Return whether a string of the configuration stands for a secret or a URL that a command such as `check` does not need."""
    return text == PLACEHOLDER or f"://{PLACEHOLDER}.invalid" in text


class Secret(SecretStr):
    """A credential, shown as `***` everywhere. `get_secret_value()` returns its text."""

    @property
    def is_placeholder(self) -> bool:
        """True if the secret is unknown, because a command such as `check` needs none. Its form can't be checked."""
        return self.get_secret_value() == PLACEHOLDER

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


class OptionWarning(NamedTuple):
    """A warning of `check` about an option whose value is valid but possibly does not work, such as a missing program."""

    option: str
    """The key of the option."""
    message: str
    """The fault and its cure, in a sentence without a capital and a full stop."""


class SinkOptions(BaseModel):
    """The base of a sink's options: strict types, unknown keys refused, frozen."""

    model_config = STRICT

    @property
    def redis_targets(self) -> Sequence[RedisTarget]:
        """The channels and keys of Redis that the sink writes to; `check` uses them to find loops. Empty by default."""
        return ()

    @property
    def check_warnings(self) -> Sequence[OptionWarning]:
        """The warnings about these options that `check`, the start and a reload print. Empty by default.

        Check only this machine, and only what is known at once: `check` sends nothing and takes less than a second.
        """
        return ()

    def preview(self, event: Event) -> str:  # noqa: ARG002  # for those that override it
        """Return the data that these rendered options would send, as text for display, if they have no `Text`.

        `explain`, `test` and `deliver: print` show this text. Override the method in a sink that sends data rather than
        messages. The method must have no other effect, and must not show a secret that is not in a `Secret`.
        """
        return ""
