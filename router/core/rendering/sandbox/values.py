"""The conversion of values to text and JSON, and the error for a missing value; floor 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import GeneratorType
from typing import Any

import msgspec
from jinja2 import StrictUndefined, UndefinedError
from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import missing as no_object
from markupsafe import Markup

from router.core.rendering.faults import dotted
from router.core.rendering.sandbox.bounds import bounded, check_size
from router.events import Event, timestamp

EVENT_FIELDS = frozenset(name for name in Event.__struct_fields__ if not name.startswith("_")) | {"key", "payload"}
"""The fields of an event that a template may use."""

_PLAIN_FIELDS = tuple(EVENT_FIELDS - {"raw", "headers", "key", "payload"})


class MissingError(UndefinedError):
    """The error for using a missing value.

    `obj` has no item `names[0]`, which is missing. The further names are the path that the template wanted below this
    item.
    """

    def __init__(self, obj: Any, names: tuple[Any, ...]) -> None:
        super().__init__(f"{dotted(names)} is missing")
        self.obj = obj
        self.names = names


class Missing(StrictUndefined):
    """A missing value. `default` and `is defined` accept a missing value; every other use raises `MissingError`.

    Its attributes and items are missing values too, so `payload.order.total | default(0)` is 0 if there is no order.
    """

    __slots__ = ("names",)

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = no_object,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
        names: tuple[Any, ...] | None = None,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        self.names = names or (name,)
        if exc is UndefinedError:
            self._undefined_exception = self._missing  # type: ignore[assignment]  # a function works too

    def _missing(self, _message: str) -> MissingError:
        return MissingError(self._undefined_obj, self.names)

    def child(self, name: Any) -> Missing:
        """Return the missing value for an attribute or item of this missing value."""
        return Missing(obj=self._undefined_obj, name=self._undefined_name, names=(*self.names, name))


class Blank(Missing):
    """The value of a field that a record lacks, if this is not an error.

    It acts as an empty string, as an empty list and as false. The filter `default` replaces it.
    """

    __slots__ = ()

    def __str__(self) -> str:  # type: ignore[override]  # its base raises
        return ""

    def __bool__(self) -> bool:  # type: ignore[override]  # its base raises
        return False

    def __len__(self) -> int:  # type: ignore[override]  # as above
        return 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as above
        return iter(())

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return isinstance(other, Blank)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # because the class defines `__eq__`

    def child(self, name: Any) -> Missing:
        """Return the attribute or item of a missing field, which is missing too."""
        return Blank(obj=self._undefined_obj, name=self._undefined_name, names=(*self.names, name))


def text(value: Any) -> str:
    """Return a value as text.

    The text of null is an empty string. A list becomes its items separated by commas, a mapping becomes JSON, and a
    time becomes RFC 3339. Text is returned unchanged; if it is marked as safe, it stays marked. Raises `MissingError`
    for a missing value and `TypeError` for a function or macro.
    """
    convert = _TEXTS.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return json(value)
    if isinstance(value, list | tuple):
        return _joined(value)
    if isinstance(value, Missing):
        return str(value)  # raises
    raise TypeError(f"a value of type {type(value).__name__} can't be written as text")


class EventFields(dict[str, Any]):
    """The fields of an event by name. `payload` and `raw` are costly, so they are computed on first use."""

    def __init__(self, event: Event) -> None:
        super().__init__((name, getattr(event, name)) for name in _PLAIN_FIELDS)
        self["headers"] = event.headers or {}
        self["key"] = event.key
        self._event = event

    def __missing__(self, name: str) -> Any:
        if name == "payload":
            return self._event.payload
        if name == "raw":
            return self._event.raw.decode("utf-8", "backslashreplace")
        raise KeyError(name)

    def shown(self) -> dict[str, Any]:
        """Return all fields as values for JSON."""
        return {**self, "received_at": timestamp(self["received_at"]), "payload": self["payload"]}


def json(value: Any) -> str:
    """Return a value as compact JSON. Raises the errors of `text`."""
    if isinstance(value, EventFields):
        value = value.shown()
    check_size(value)
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def plain(value: Any) -> Any:
    """Return a copy of a value with the types of JSON: null, a boolean, a number, a string, a list or a mapping.

    A time becomes its text. Raises the errors of `text`. Raises `OverflowError` if the value is larger than a template
    may render, and `ValueError` for a number that JSON can't represent.
    """
    if isinstance(value, EventFields):
        value = value.shown()
    check_size(value)
    return _made_plain(value)


def _made_plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("the number is infinite or NaN, and JSON has no such number")
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {text(key): _made_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range | GeneratorType):
        return [_made_plain(each) for each in value]
    return text(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Markup):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, GeneratorType):
        return list(value)
    return text(value)


def _joined(values: Iterable[Any]) -> str:
    return join(values, ", ")


def join(values: Iterable[Any], separator: str) -> str:
    """Return the texts of values with a separator between them. Raises `OverflowError` if the result is too long."""
    texts: list[str] = []
    size = 0
    for value in values:
        piece = text(value)
        size += len(piece) + len(separator)
        bounded(size)
        texts.append(piece)
    return str.join(separator, texts)


def _time(value: datetime) -> str:
    return timestamp(value) if value.tzinfo is UTC else value.isoformat(sep=" ", timespec="seconds")


_TEXTS: dict[type[Any], Callable[[Any], str]] = {
    str: str,
    int: str,
    float: repr,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _value: "",
    list: _joined,
    tuple: _joined,
    range: _joined,
    GeneratorType: _joined,
    dict: json,
    datetime: _time,
}
