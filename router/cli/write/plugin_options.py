"""The options of a type of sink or lookup, in words; floor 7."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from router.config.lookups import LOOKUPS, LookupKeys, PluginLookupConfig
from router.config.models import HostKeys
from router.config.scalars import duration_text, seconds_of
from router.core.rendering.walk import kind_of
from router.options import Addresses, Condition, Html, Json, Template, Text, Url

if TYPE_CHECKING:
    from router.plugin_loading.plugin_manager import Plugins

Document = dict[str, Any]

_WORDS: Mapping[Any, str] = {
    str: "string",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dict: "mapping",
    list: "list",
    Any: "any value",
}

_MARKERS: Mapping[type, str] = {
    Addresses: "addresses (templates)",
    Json: "JSON (templates)",
    Condition: "expression",
    Url: "URL (template)",
    Html: "HTML (template)",
    Text: "message (template)",
    Template: "template",
}
"""The classes of fields that the router renders, with their names for users. Each class comes before its base
classes."""


class TypeOptions(NamedTuple):
    """A type of sink or lookup, with the model of its options."""

    kind: Literal["sink", "lookup"]
    name: str
    origin: str
    model: type[BaseModel]

    @property
    def host_keys(self) -> list[str]:
        """The keys of the router itself that every sink has, or every lookup of this type."""
        if self.kind == "sink":
            return [name for name in HostKeys.model_fields if name != "type"]
        host = LookupKeys if self.name in LOOKUPS else PluginLookupConfig
        return [name for name in host.model_fields if name != "type"]

    def document(self) -> Document:
        """Return the type as data."""
        taken = set(LookupKeys.model_fields) if self.name in LOOKUPS and self.kind == "lookup" else set()
        options = [option for option in _options(self.model) if option["name"] not in taken]
        return {
            "kind": self.kind,
            "type": self.name,
            "origin": self.origin,
            "options": options,
            "host_keys": self.host_keys,
        }


def types_named(plugins: Plugins, name: str) -> list[TypeOptions]:
    """Return the types of this name, a sink before a lookup.

    If there are none, return the types that the plugin of this name registered.
    """
    found = list(_types(plugins, [name], [name]))
    if found:
        return found
    return [
        each
        for plugin in plugins.loaded
        if plugin.name == name and not plugin.error
        for each in _types(plugins, plugin.sinks, plugin.lookups)
    ]


def known(plugins: Plugins) -> list[str]:
    """Return the names of all types, those of sinks first."""
    return list(dict.fromkeys([*plugins.sinks, *LOOKUPS, *plugins.lookups]))


def _types(plugins: Plugins, sinks: Sequence[str], lookups: Sequence[str]) -> Iterator[TypeOptions]:
    for name in sinks:
        if name in plugins.sinks:
            sink = plugins.sinks[name]
            yield TypeOptions("sink", name, sink.origin, sink.options)
    for name in lookups:
        if name in plugins.lookups:
            lookup = plugins.lookups[name]
            yield TypeOptions("lookup", name, lookup.origin, lookup.options)
        elif name in LOOKUPS:
            yield TypeOptions("lookup", name, "built-in", LOOKUPS[name])


def _options(
    model: type[BaseModel], above: str = "", outer: frozenset[type[BaseModel]] = frozenset()
) -> Iterator[Document]:
    """Yield the options of a model. After an option with a nested model, the options of that model follow.

    The name of a nested option begins with the name of the outer option and a dot.
    """
    for field, info in model.model_fields.items():
        name = f"{above}{info.alias or field}"
        annotation: Any = Annotated[info.annotation, None, *info.metadata]
        yield {
            "name": name,
            "type": "duration" if _is_duration(info) else in_words(annotation),
            "required": info.is_required(),
            "default": _default(info),
            "description": info.description or "",
        }
        for inner in _models(annotation):
            if inner not in outer | {model}:  # a model may contain itself
                yield from _options(inner, f"{name}.", outer | {model})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a value of this type may be."""
    kind, _ = kind_of(annotation)
    if get_origin(kind) in {Union, UnionType}:
        for arm in get_args(kind):
            yield from _models(arm)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind


def in_words(annotation: Any) -> str:
    """Return the name of a type in words that users of a configuration know."""
    kind, marker = kind_of(annotation)
    if marker is not None:
        return next(words for mark, words in _MARKERS.items() if isinstance(marker, mark))
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _either([str(value) if isinstance(value, str) else _shown(value) for value in inner])
    if origin in {Union, UnionType}:
        return _either([in_words(arm) for arm in inner if arm is not NoneType])
    if inner and isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping, its values: {in_words(inner[-1])}"
    if inner and isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return f"list, its items: {in_words(inner[0])}"
    plain = origin or kind
    if isinstance(plain, type) and issubclass(plain, SecretStr):
        return "secret"
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return "mapping"
    return _WORDS.get(plain) or str(getattr(plain, "__name__", plain))


def _either(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _default(info: FieldInfo) -> Any:
    """Return the default of an option as data; None if there is no default, or if it can't be shown."""
    if info.is_required() or info.default_factory_takes_validated_data:
        return None
    default = info.get_default(call_default_factory=True)
    if _is_duration(info) and isinstance(default, float):
        return duration_text(default)
    return to_jsonable_python(default, fallback=str)


def _is_duration(info: FieldInfo) -> bool:
    """Return whether a field is a duration. Users write it with a unit; the plugin gets a number of seconds."""
    return any(isinstance(mark, BeforeValidator) and mark.func is seconds_of for mark in info.metadata)


def default_in_words(option: Mapping[str, Any]) -> str:
    """Return the default of an option as it is written in a configuration."""
    default = option["default"]
    if option["required"]:
        return "required"
    if default in (None, [], "") or isinstance(default, dict):  # the defaults inside a mapping have rows of their own
        return "-"
    return default if isinstance(default, str) else _shown(default)


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()
