"""The field types of a sink's options; floor 1. Plugin authors import them from `router.api`.

The router renders fields of type `Template`, `Text`, `Html`, `Url`, `Key`, `Json` and `Addresses` for each delivery; the
plugin gets plain values. The router compiles a `Condition`, and the plugin evaluates it. A `Secret` is never shown. The types
may be used inside lists, mappings, nested models, `Annotated[…]` and unions: `text: Text | None = None`, `headers: dict[str,
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
"""The function that escapes the text of a value for a sink, or the name of a method of the options model that does so."""

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)
"""The pydantic configuration of options: types are strict, objects are frozen, and unknown keys are refused."""

TEMPLATE_FILES = "template_files"
"""The key in pydantic's validation context for the function that reads a template file, such as `{file: mail/order.html}`.

Validate with `Model.model_validate(data, context={TEMPLATE_FILES: read})`. `read(name)` takes the text after `file:`
and returns a `TemplateFile`, or raises `ValueError`, which is reported for this option. Without the function, `{file: …}` is
refused.
"""

ALLOW_PRIVATE = "allow_private"
"""The key in pydantic's validation context for the value of the sink's option `allow_private`.

The context has no such key if the sink is not known: in the section `defaults`, and in the process of a sink with
`execution="process"`.
"""


class TemplateFile(str):
    """The text of a template file, with the function that reads the files that the template includes.

    `name` is the file's name in messages and for `read`. `read(name)` returns the text of a file that the template
    includes, extends or imports by this name, or raises `ValueError` or `OSError`. The function is called only while the
    configuration is loaded, and must not read files outside the folder of the template.
    """

    __slots__ = ("name", "read")

    name: str
    read: Callable[[str], str]

    def __new__(cls, text: str, *, name: str, read: Callable[[str], str]) -> Self:
        """Return a template with the text and the name of a file. `read` reads the files that it includes."""
        self = super().__new__(cls, text)
        self.name = name
        self.read = read
        return self


def _template(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Return a valid template: a string, or the file in `{file: name}` if the context has a function that reads files."""
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
    """A template. If it can't be rendered, the delivery becomes a dead letter with the reason `template`.

    The annotation `subject: Template` makes the field a template. `Annotated[str, Template(escape=…)]` also sets the
    escaping of the event's values; the template's own text is never escaped. The value in the configuration is a string or
    `{file: NAME}`; the plugin gets a plain string.
    """

    __slots__ = ("escape",)

    escape: Escape | None
    autoescape: ClassVar[bool] = False

    def __new__(cls, value: str = "", *, escape: Escape | None = None) -> Self:
        """Return a template or, for `Annotated`, a marker. `escape` sets the escaping of values."""
        self = super().__new__(cls, value)
        self.escape = escape
        return self

    def __eq__(self, other: object) -> bool:
        """Also compare the class and `escape`: `Annotated` caches equal markers, and would confuse different ones."""
        if isinstance(other, Template):
            return type(other) is type(self) and other.escape == self.escape and str.__eq__(self, other)
        return self.escape is None and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a strict string or a file. `core.rendering` finds the field by the class name in the metadata."""
        return core_schema.with_info_wrap_validator_function(
            _template, core_schema.str_schema(strict=True), metadata={"template": cls.__name__}
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        file = {
            "type": "object",
            "properties": {"file": {"type": "string", "description": "a template, relative to the file with this key"}},
            "required": ["file"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "string"}, file]}


class Text(Template):
    """A text for people. If it can't be rendered and all addresses are literal, the event's JSON line is sent instead."""

    __slots__ = ()


class Html(Text):
    """A `Text` whose values are HTML-escaped."""

    __slots__ = ()

    autoescape: ClassVar[bool] = True


class Url(Template):
    """A template of a URL. Values are percent-encoded, so that `/`, `?` and `#` in a value do not delimit parts of the URL.

    The plugin must check the scheme and the host (`url_fault`).
    """

    __slots__ = ()


class Key(Template):
    """A template of a key, which names the subject of a message, such as an order number. Spaces around it are removed.

    A router makes deliveries with equal keys one after another, as with `order_by`. If the sink's configuration has `order_by`,
    the key does not affect the order. A key that renders to an empty string is ignored. A key must not use lookups, because the
    order is decided before lookups are fetched. If several options are keys, the first one that is not empty decides.
    """

    __slots__ = ()


def _listed(value: Any) -> Any:
    """Return addresses as a list. A single address becomes a list of one. A number, such as the id of a chat, becomes a string."""
    items = value if isinstance(value, list | tuple) else [value]
    return [str(item) if type(item) is int else item for item in items]


class Addresses(list[str]):
    """The addresses of the recipients: a template or a list of templates. Commas separate the addresses in a rendered text.

    `to: Addresses` accepts addresses of any kind. The plugin gets a list of addresses. Spaces around an address, empty
    addresses and duplicates are removed. Control characters are refused. `Annotated[list[str], Addresses(kind="mail")]`
    requires the syntax of a mailbox (`jane@example.org`, `"Doe, Jane" <jane@example.org>`). If the addresses are
    not recipients, such as those of Reply-To, set `recipients=False`: then the delivery is not split by these addresses.

    With `Annotated[list[Any], Addresses(known_by="endpoint")]` each recipient is a mapping, such as the push
    subscription of a browser. The text under the key `endpoint` is its address. The template renders to a mapping, the JSON
    text of a mapping, or a list of these. The plugin gets a list of mappings.

    With `Annotated[list[str], Addresses(known_by=function)]` each recipient is a URL that holds a credential. For each URL the
    function returns the address that is shown and stored, or raises `ValueError`. URLs are separated by white space or
    commas. URLs in the configuration are hidden like a `Secret`.
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
        """Also compare the attributes, for the reason given in `Template`."""
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
        """Return the schema: a list of strict strings. A single string or number becomes a list of one."""
        strings = core_schema.list_schema(core_schema.str_schema(strict=True), strict=True)
        return core_schema.no_info_before_validator_function(_listed, strings)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = [{"type": "string"}, {"type": "integer"}]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


class Json(dict[str, Any]):
    """A JSON object whose texts are templates: `{user: "{{ payload.user_id }}", text: "Hello {{ payload.name }}"}`.

    A string that consists of a single `{{ … }}` becomes the value of its expression, such as null, a number or a list.
    Any other string renders to a string. Numbers, booleans and null do not change. Keys are not templates. If a template can't
    be rendered, the delivery becomes a dead letter with the reason `template`. The plugin gets a plain dict, which can be
    encoded as JSON without loss.
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
    """Return a value of the configuration as a JSON value. Raises `ValueError` if JSON can't represent it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON can't represent this number")
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    return str(value) if isinstance(value, str) else value  # a plain str, because the loader may give a subclass of str


class Condition(str):
    """An expression with names that the plugin defines, compiled by the router, such as `status == 200 and answer.ok`.

    With `success: Annotated[Condition, Condition(names=("status", "answer"))] | None = None`, the expression may use these
    names, but no fields of the event. Its syntax is that of `only_if`: a missing value is false. For a delivery, the plugin
    calls `options.success.holds({"status": 200, "answer": {…}}, now=context.clock.now())`. The options that the `__init__` of a
    class gets have no compiled condition. Neither have the options of a sink with `execution="process"`.
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
        """Return a marker with these `names` for `Annotated`, or a compiled expression that `ask` evaluates."""
        self = super().__new__(cls, value)
        self.names = tuple(names)
        self._ask = ask
        return self

    def __eq__(self, other: object) -> bool:
        """Also compare `names`, for the reason given in `Template`."""
        return str.__eq__(self, other) and (not isinstance(other, Condition) or other.names == self.names)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def holds(self, values: Mapping[str, Any], *, now: float) -> bool:
        """Return whether the expression is true if its names have these values. `now` is in seconds since the epoch.

        Raises `PermanentError` if the expression can't be evaluated, for example because of a division by zero.
        """
        if self._ask is None:
            raise RuntimeError("this condition is not compiled: use the condition in the options that a delivery gets")
        return self._ask(values, now)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema: a strict string that is not empty. It is dumped as a plain string, for another process."""
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(strict=True, min_length=1),
            serialization=core_schema.plain_serializer_function_ser_schema(str.__str__),
        )


PLACEHOLDER = "placeholder"
"""The text that replaces a missing secret in commands that need no secrets, such as `check`."""


def is_placeholder(text: str) -> bool:
    """Return whether a string replaces a missing secret or URL, in a command such as `check` that does not need it."""
    return text == PLACEHOLDER or f"://{PLACEHOLDER}.invalid" in text


class Secret(SecretStr):
    """A credential, shown as `***` everywhere. `get_secret_value()` returns its text."""

    @property
    def is_placeholder(self) -> bool:
        """True if the secret is not known, because a command such as `check` needs no secrets. Then its form can't be checked."""
        return self.get_secret_value() == PLACEHOLDER

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


class RedisTarget(NamedTuple):
    """A channel or key of Redis to which a sink writes, according to its options."""

    kind: Literal["channel", "key"]
    name: str
    """The name, or its template."""
    option: str
    """The key of the option that contains the name, for messages."""
    url: str | None = None
    """The URL of the server; None for the router's own."""


class OptionWarning(NamedTuple):
    """A warning of `check` about a value that is valid but may not work, such as the name of a program that is missing."""

    option: str
    """The key of the option."""
    message: str
    """The fault and its cure, in a sentence that begins with a small letter and has no full stop."""


class SinkOptions(BaseModel):
    """The base class of a sink's options. Types are strict, unknown keys are refused, and objects are frozen."""

    model_config = STRICT

    @property
    def redis_targets(self) -> Sequence[RedisTarget]:
        """The channels and keys of Redis to which the sink writes, by which `check` finds loops. Empty by default."""
        return ()

    @property
    def check_warnings(self) -> Sequence[OptionWarning]:
        """The warnings about these options that `check`, the start and a reload print. Empty by default.

        Check only this machine, and only what is known at once: `check` sends nothing and takes less than a second.
        """
        return ()

    def preview(self, event: Event) -> str:  # noqa: ARG002  # for methods that override this one
        """Return the data that a delivery with these rendered options would send, as text for people. Empty by default.

        `explain`, `test` and `deliver: print` show this text if the options have no `Text`. Override the method in a sink that
        sends data and not messages. It must have no other effect, and must not return a secret that is not in a `Secret`.
        """
        return ""
