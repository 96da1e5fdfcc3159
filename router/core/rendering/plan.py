"""The compilation of a sink's options to a plan, and the rendering of the plan for one delivery; floor 2.

For each delivery, one function is called for each template and for each container around a template. Nothing is
validated again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from pydantic import BaseModel

from router.core.rendering.addresses import by_address, literal_recipients
from router.core.rendering.environment import TemplateEnvironment, literal
from router.core.rendering.faults import BrokenExpressionError, BrokenTemplateError
from router.core.rendering.fields import AddressField, Delivery, KeyField, TextField, ValueField, where
from router.core.rendering.sandbox.bounds import Run, current
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.core.rendering.walk import Marker, Part, Path, walk
from router.errors import AddressError, Reason, RouterError
from router.events import Event
from router.options import Addresses, Condition, Escape, Html, Json, Key, SinkOptions, Template, Text, Url, is_template

if TYPE_CHECKING:
    from router.core.rendering.templates import Compiled, CompiledAddresses


_C = TypeVar("_C", bound="Compiled")


class TemplateFault(msgspec.Struct, frozen=True):
    """A fault in the templates of a sink's options.

    `path` leads from the options to the string (`("headers", "X-A")`). `line` counts from 1 within that string. `line`
    is None if no line is known, or if the message itself contains the place (`mail/order.html:3: …`).
    """

    path: Path
    message: str
    line: int | None


class TemplateFaults(RouterError):  # noqa: N818  # a list of faults
    """The faults of the templates and literal addresses in a sink's options, in the order of the fields."""

    def __init__(self, faults: Sequence[TemplateFault]) -> None:
        super().__init__("\n".join(f"{where(fault.path)}: {fault.message}" for fault in faults))
        self.faults = list(faults)


class Rendered(msgspec.Struct, frozen=True):
    """The options of one delivery.

    `options` contains plain values. `addresses` are all recipients, each once. `suppressed` is the reason not to
    deliver; then the options are not rendered. `degraded` names the texts that could not be rendered, with the cause.
    In place of such a text, the options have the event's JSON line. `text` is the message to people, for display; empty
    if the options have no message. `keys` has the non-empty keys of the message, by the names of their options.
    """

    options: SinkOptions
    addresses: tuple[str, ...] = ()
    suppressed: Reason | None = None
    degraded: str | None = None
    text: str = ""
    keys: Mapping[str, str] = {}


class Fields(msgspec.Struct, frozen=True):
    """The names of the non-empty fields with recipients (`addresses`) and of the non-empty fields with a message
    (`texts`).
    """

    addresses: tuple[str, ...]
    texts: tuple[str, ...]


class OptionsTemplate:
    """The compiled options of one sink (and route).

    If the options have no template, all deliveries share the options `static`, with normalised addresses; else `static`
    is None. `templated_address` is true if a recipient comes from a template. `mail` is true if recipients have mail
    addresses. `fields` are the names of the fields to show.
    """

    static: SinkOptions | None
    templated_address: bool
    mail: bool
    fields: Fields

    def __init__(self, compiler: _Compiler, whole: Part) -> None:
        self._options: SinkOptions = whole.value
        self._make = whole.make
        self._addresses = compiler.addresses
        self._address_templates = any(each.templates for each in compiler.addresses)
        self._recipients = [each for each in compiler.addresses if each.marker.recipients]
        self.mail = any(each.marker.kind == "mail" for each in compiler.addresses if each.marker.recipients)
        self.names = frozenset[str]().union(*(template.names for template in compiler.templates))
        """The names that the templates use: `payload`, `event`, lookups."""
        self.address_names = frozenset[str]().union(*(t.names for each in self._addresses for t in each.templates))
        """The names that the templates of addresses use."""
        self._text = compiler.shown
        self._keys = compiler.keys
        self._key_names = frozenset[str]().union(*(each.names for each in compiler.keys))
        self.static = None if compiler.templates else whole.value
        self.templated_address = compiler.templated_address
        self.fields = compiler.fields
        self._literal = {each.path: each.literal for each in self._addresses}
        self.literal_recipients = self._all(self._literal)
        """The recipients that the options name without a template, each once."""
        self._scope = _scope_of_templates() if compiler.templates else _no_scope
        self._shared = self._literally()

    def recipients(self, options: Any) -> tuple[str, ...]:
        """Return the recipients in rendered options, each once."""
        return tuple(dict.fromkeys(address for each in self._recipients for address in each.addresses_in(options)))

    def _literally(self) -> Rendered | None:
        if self.static is None:
            return None
        keys = {each.name: text for each in self._keys if (text := each.text({}))}
        return Rendered(self.static, self.literal_recipients, text=self._text, keys=keys)

    @property
    def has_keys(self) -> bool:
        """True if an option is a key. Deliveries are ordered by their key."""
        return bool(self._keys)

    def order_key(self, event: Event, now: float) -> str | None:
        """Return the first non-empty key of a delivery, or None. Raises `TemplateError`."""
        token = current.set(Run(now))
        try:
            names = self._scope(event, self._key_names, NO_RECORDS)
            return next((key for each in self._keys if (key := each.text(names))), None)
        finally:
            current.reset(token)

    def _all(self, found: dict[Path, dict[str, Any]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(address for each in self._recipients for address in found[each.path]))

    def render(self, event: Event, now: float, records: Records = NO_RECORDS) -> Rendered:
        """Return the options for one delivery.

        `now` is seconds since the epoch. `records` are the records of the delivery's lookups. Raises `TemplateError` if
        a template fails for this event, and `AddressError` for an invalid address.
        """
        if self._shared is not None and event.address is None:
            return self._shared
        delivery = Delivery(event, self._scope(event, self.names, records))
        token = current.set(Run(now))
        try:
            return self._render(delivery)
        finally:
            current.reset(token)

    def _find(self, delivery: Delivery, only: str | None) -> tuple[str, ...]:
        """Find the addresses of a delivery and return the recipients, each once.

        If `only` is an address, the recipients with other addresses are left out.
        """
        found = delivery.addresses
        for each in self._addresses:
            found[each.path] = each.find(delivery)
        if only is not None:
            for each in self._recipients:
                own = found[each.path]
                found[each.path] = {only: own[only]} if only in own else {}
        return self._all(found)

    def _render(self, delivery: Delivery) -> Rendered:
        only = delivery.event.address
        if only is None and not self._address_templates:
            delivery.addresses = self._literal
            addresses = self.literal_recipients
        else:
            addresses = self._find(delivery, only)
        if not addresses and (self.templated_address or (only is not None and self.fields.addresses)):
            return Rendered(self._options, suppressed=Reason.NO_ADDRESS)
        delivery.text = self._text
        options = self._make(delivery) if self._make is not None else self._options
        degraded = "; ".join(delivery.degraded) or None
        return Rendered(options, addresses, None, degraded, delivery.text, delivery.keys)


class _Compiler:
    """The state of one call of `compile_options`."""

    def __init__(self, options: SinkOptions, environment: TemplateEnvironment) -> None:
        self.options = options
        self.environment = environment
        self.faults: list[TemplateFault] = []
        self.templates: list[Compiled] = []
        self.addresses: list[AddressField] = []
        self.texts: list[tuple[Path, Template, TextField | str]] = []
        self.keys: list[KeyField] = []

    @property
    def templated_address(self) -> bool:
        return any(each.templates for each in self.addresses if each.marker.recipients)

    @property
    def fields(self) -> Fields:
        addresses = dict.fromkeys(str(each.path[0]) for each in self.addresses if each.marker.recipients and each.items)
        texts = dict.fromkeys(str(path[0]) for path, _, text in self.texts if text)
        return Fields(tuple(addresses), tuple(texts))

    @property
    def shown(self) -> str:
        """The literal text of the message.

        If the message is a template, its field is marked as `shown`, and the result is empty.
        """
        order = sorted(self.texts, key=lambda each: isinstance(each[1], Html))
        chosen = next((text for _, _, text in order if text), "")
        if isinstance(chosen, str):
            return chosen
        chosen.shown = True
        return ""

    def compile(self) -> OptionsTemplate:
        whole = walk(self.options, self.leaf)
        if self.faults:
            raise TemplateFaults(self.faults)
        for _, marker, text in self.texts:
            if isinstance(text, TextField) and not self.templated_address:
                text.replaceable = isinstance(marker, Text)
        return OptionsTemplate(self, whole)

    def leaf(self, marker: Marker, value: Any, path: Path, model: BaseModel) -> Part:
        if isinstance(marker, Addresses):
            return self._address(marker, value, path)
        if isinstance(marker, Condition):
            return self._condition(marker, value, path)
        if isinstance(marker, Json):
            return self._json(value, path)
        if isinstance(marker, Key):
            return self._key(value, path)
        return self._text(marker, value, path, model)

    def _condition(self, marker: Condition, value: str, path: Path) -> Part:
        from router.core.rendering.expressions import NamedExpression

        try:
            compiled = NamedExpression(value, marker.names, self.environment, where(path))
        except BrokenExpressionError as error:
            self._broken(path, error)
            return Part(value, None)
        return Part(Condition(value, names=marker.names, ask=compiled.holds), None)

    def _json(self, value: str, path: Path) -> Part:
        if not is_template(value):
            return Part(value, None)
        from router.core.rendering.templates import CompiledValue

        try:
            return Part(value, ValueField(path, self._add(CompiledValue.shared(value, self.environment.plain))))
        except BrokenTemplateError as error:
            self._broken(path, error)
            return Part(value, None)

    def _key(self, value: str, path: Path) -> Part:
        if not is_template(value):
            self.keys.append(KeyField(path, literal(value).strip()))
            return Part(value.strip(), self.keys[-1])
        from router.core.rendering.templates import Compiled

        try:
            template = self._add(Compiled.shared(value, self.environment.plain))
        except BrokenTemplateError as error:
            self._broken(path, error)
            return Part(value, None)
        for name in sorted(template.names & self.environment.lookups):
            why = f"this key can't use the lookup `{name}`, because the router needs the key before it fetches records"
            self.faults.append(TemplateFault(path, f"{why}; use a field of the payload", None))
        self.keys.append(KeyField(path, template))
        return Part(value, self.keys[-1])

    def _address(self, marker: Addresses, values: list[str], path: Path) -> Part:
        items: list[list[Any] | CompiledAddresses] = []
        for place, value in enumerate(values):
            try:
                if is_template(value):
                    items.append(self._addresses(value))
                else:
                    items.append(list(by_address(literal_recipients(value, marker), marker).values()))
            except BrokenTemplateError as error:
                self._broken((*path, place), error)
            except AddressError as error:
                self.faults.append(TemplateFault((*path, place), str(error), None))
        found = AddressField(path, marker, items)
        self.addresses.append(found)
        return Part(list(found.literal.values()), found)

    def _addresses(self, value: str) -> CompiledAddresses:
        from router.core.rendering.templates import CompiledAddresses

        return self._add(CompiledAddresses.shared(value, self.environment.addresses))

    def _text(self, marker: Template, value: str, path: Path, model: BaseModel) -> Part:
        try:
            escape = None if marker.escape is None else escape_of(marker.escape, model, self.options)
            field = self._field(marker, value, path, escape) if is_template(value) else literal(value)
        except BrokenTemplateError as error:
            self._broken(path, error)
            return Part(value, None)
        except (AttributeError, TypeError) as error:
            self.faults.append(
                TemplateFault(path, f"the type of this option has an escape function that can't be used: {error}", None)
            )
            return Part(value, None)
        if isinstance(marker, Text):
            self.texts.append((path, marker, field))
        if isinstance(field, str):
            return Part(value if type(value) is str else field, None)
        return Part(value, field)

    def _field(self, marker: Template, value: str, path: Path, escape: Callable[[str], str] | None) -> TextField:
        from router.core.rendering.templates import Compiled

        if escape is not None:
            sandbox = self.environment.escaping(escape)
        elif isinstance(marker, Url):
            sandbox = self.environment.urls
        else:
            sandbox = self.environment.html if marker.autoescape else self.environment.plain
        return TextField(path, self._add(Compiled.shared(value, sandbox)), sandbox.escaped)

    def _add(self, template: _C) -> _C:
        self.templates.append(template)
        return template

    def _broken(self, path: Path, error: BrokenTemplateError | BrokenExpressionError) -> None:
        self.faults += [TemplateFault(path, fault.message, fault.line) for fault in error.faults]


Scope = Callable[[Event, Collection[str], Records], dict[str, Any]]


def _scope_of_templates() -> Scope:
    from router.core.rendering.templates import scope

    return scope


def _no_scope(_event: Event, _used: Collection[str], _records: Records) -> dict[str, Any]:
    """Return no names, because options without templates use none."""
    return {}


def escape_of(escape: Escape, model: BaseModel, options: SinkOptions) -> Callable[[str], str]:
    """Return the function for a marker's `escape`.

    `escape` is a function or the name of a method. The method is looked up in the field's model, or else in the
    options.
    """
    if not isinstance(escape, str):
        return escape
    method = getattr(model if hasattr(model, escape) else options, escape)
    if not callable(method):
        raise TypeError(f"`{escape}` is not a method")
    return cast("Callable[[str], str]", method)


def compile_options(options: SinkOptions, environment: TemplateEnvironment) -> OptionsTemplate:
    """Compile every template of a sink's options and normalise its literal addresses.

    Raises `TemplateFaults` with all faults.
    """
    return _Compiler(options, environment).compile()
