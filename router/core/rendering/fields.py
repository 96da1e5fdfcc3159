"""The fields of a sink's options that are rendered for each delivery: addresses, texts, keys and values; floor 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from router.core.rendering.addresses import address_of, by_address
from router.core.rendering.walk import Path, follow
from router.errors import AddressError
from router.events import Event, json_line
from router.options import Addresses

if TYPE_CHECKING:
    from router.core.rendering.templates import Compiled, CompiledAddresses, CompiledValue


def where(path: Path) -> str:
    """Return the name of a place in the options for messages: `headers.X-A`, `to.0`."""
    return ".".join(map(str, path))


class Delivery:
    """The state of the rendering of one delivery."""

    __slots__ = ("addresses", "degraded", "event", "keys", "names", "text")

    def __init__(self, event: Event, names: dict[str, Any]) -> None:
        self.event = event
        self.names = names
        self.addresses: dict[Path, dict[str, Any]] = {}
        self.degraded: list[str] = []
        self.text = ""
        self.keys: dict[str, str] = {}


class AddressField:
    """A field of addresses.

    Each of its items is a list of literal addresses, or a template. The addresses of a delivery are a mapping: the key
    is the address, and the value is what the plugin gets for the address.
    """

    def __init__(self, path: Path, marker: Addresses, items: list[list[Any] | CompiledAddresses]) -> None:
        self.path = path
        self.marker = marker
        self.items = items
        self.templates = [item for item in items if not isinstance(item, list)]
        literal = (one for item in items if isinstance(item, list) for one in item)
        self.literal = {} if self.templates else by_address(literal, marker)

    def find(self, delivery: Delivery) -> dict[str, Any]:
        """Return the addresses for this delivery. Raises `TemplateError` or `AddressError`."""
        if not self.templates:
            return self.literal
        try:
            return by_address((one for item in self.items for one in self._of(item, delivery)), self.marker)
        except AddressError as error:
            raise AddressError(f"{where(self.path)}: {error}", f"{where(self.path)}: {error.told}") from None

    def _of(self, item: list[Any] | CompiledAddresses, delivery: Delivery) -> Sequence[Any]:
        if isinstance(item, list):
            return item
        try:
            return item.recipients(delivery.names, self.marker)
        except AddressError:
            raise
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            raise item.explain(where(self.path), error, delivery.names) from None

    def addresses_in(self, options: Any) -> list[str]:
        """Return the addresses in rendered options."""
        values = follow(options, self.path)
        return list(values) if self.marker.known_by is None else [address_of(value, self.marker) for value in values]

    def __call__(self, delivery: Delivery) -> list[Any]:
        """Return the values that the plugin gets for the addresses of this delivery.

        Before this call, the addresses must be in `delivery.addresses`.
        """
        return list(delivery.addresses[self.path].values())


class TextField:
    """A field with a template for text.

    `replaceable` is true if the event's JSON line may replace a text that can't be rendered. `shown` is true if the
    field is the message to show.
    """

    def __init__(self, path: Path, template: Compiled, escape: Callable[[str], str]) -> None:
        self.path = path
        self.template = template
        self.escape = escape
        self.replaceable = False
        self.shown = False

    def __call__(self, delivery: Delivery) -> str:
        """Return the text. Raises `TemplateError` if the template fails and the field is not `replaceable`."""
        try:
            text = self.template.render(delivery.names)
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            text = self._replaced(error, delivery)
        if self.shown:
            delivery.text = text
        return text

    def _replaced(self, error: Exception, delivery: Delivery) -> str:
        why = self.template.explain(where(self.path), error, delivery.names)
        if not self.replaceable:
            raise why from None
        try:
            line = self.escape(json_line(delivery.event).decode())
        except Exception:  # noqa: BLE001  # the sink's escaping is code of a plugin
            raise why from None
        delivery.degraded.append(why.told)
        return line


class KeyField:
    """A field with the key that identifies the subject of a message: a template or a literal text."""

    def __init__(self, path: Path, field: Compiled | str) -> None:
        self.name = where(path)
        self.names = frozenset[str]() if isinstance(field, str) else field.names
        self._field = field

    def __call__(self, delivery: Delivery) -> str:
        """Return the key, which may be empty. Raises `TemplateError`."""
        key = self.text(delivery.names)
        if key:
            delivery.keys[self.name] = key
        return key

    def text(self, names: dict[str, Any]) -> str:
        """Return the key, rendered with these names. Raises `TemplateError`."""
        if isinstance(self._field, str):
            return self._field
        try:
            return self._field.render(names).strip()
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            raise self._field.explain(self.name, error, names) from None


class ValueField:
    """A field with a template for a JSON value."""

    def __init__(self, path: Path, template: CompiledValue) -> None:
        self.path = path
        self.template = template

    def __call__(self, delivery: Delivery) -> Any:
        """Return the value. Raises `TemplateError`."""
        try:
            return self.template.plain(delivery.names)
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            raise self.template.explain(where(self.path), error, delivery.names) from None
