"""The search for templates in an options model, by a walk through the types and values of its fields; floor 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from router.options import Addresses, Condition, Json, Template

Path = tuple[str | int, ...]
"""The path of a value in the options, as the configuration writes it: `("headers", "X-A")`, `("to", 0)`."""

Marker = Template | Addresses | Condition | Json
"""The marker in a field's type."""

Make = Callable[[Any], Any]
"""A function that makes a value for one delivery. Its argument is the state that the caller passes."""


class Part(NamedTuple):
    """A value of the options: its literal value, and the function that makes it for a delivery (or None)."""

    value: Any
    make: Make | None


Leaf = Callable[[Marker, Any, Path, BaseModel], Part]
"""The callback for a marked value. Its arguments are the marker, the value, the path of the value, and the model that
contains the value.
"""


def follow(options: Any, path: Path) -> Any:
    """Return the value at a path of the options."""
    for step in path:
        options = options[step] if not isinstance(options, BaseModel) else getattr(options, _field(options, step))
    return options


def default_in(options: Any, path: Path) -> Path | None:
    """Return the path of the option whose default value contains the value at `path`.

    Return None if the configuration sets the value.
    """
    for place, step in enumerate(path, 1):
        if isinstance(options, BaseModel) and _field(options, step) not in options.model_fields_set:
            return path[:place]
        options = follow(options, (step,))
    return None


def _field(model: BaseModel, key: str | int) -> str:
    """Return the name of the field for a `key` of the configuration, which is the field's alias or name."""
    return next((name for name, info in type(model).model_fields.items() if info.alias == key), str(key))


def walk(model: BaseModel, leaf: Leaf) -> Part:
    """Walk the fields of a model, call `leaf` for every marked value, and return the model as one part."""
    return _Walk(leaf).model(model, ())


class _Walk:
    """The walk through one model.

    The arguments of `part` are the type of a value, the value, its path, and the model that contains the value.
    """

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf

    def model(self, model: BaseModel, path: Path) -> Part:
        parts = {
            name: self.part(annotation, getattr(model, name), (*path, key), model, kind)
            for name, key, annotation, kind in _fields(type(model))
        }
        changed = {name: part.value for name, part in parts.items() if part.value is not getattr(model, name)}
        makers = [(name, part.make) for name, part in parts.items() if part.make is not None]
        static = _copier(model, changed, [])(None) if changed else model
        return Part(static, _copier(model, changed, makers) if makers else None)

    def part(
        self, annotation: Any, value: Any, path: Path, model: BaseModel, known: tuple[Any, Marker | None] | None = None
    ) -> Part:
        if type(value) in _UNMARKED:
            return Part(value, None)
        kind, marker = known or kind_of(annotation)
        if isinstance(marker, Json):
            return self._json(annotation, marker, value, path, model)
        if marker is not None and _marks(marker, value):
            return self._leaf(marker, value, path, model)
        if get_origin(kind) in _UNIONS:
            return self.part(_arm(kind, value), value, path, model)
        if isinstance(value, BaseModel):
            return self.model(value, path)
        if type(value) in {list, tuple}:
            return self._sequence(kind, value, path, model)
        if type(value) is dict:
            return self._mapping(kind, value, path, model)
        return Part(value, None)

    def _json(self, annotation: Any, marker: Json, value: Any, path: Path, model: BaseModel) -> Part:
        """Walk a JSON value. Each element is a JSON value too, so it has the same annotation."""
        if type(value) is dict:
            return self._mapping(dict[str, annotation], value, path, model)
        if type(value) is list:
            return self._sequence(list[annotation], value, path, model)
        return self._leaf(marker, value, path, model) if isinstance(value, str) else Part(value, None)

    def _sequence(self, kind: Any, values: Sequence[Any], path: Path, model: BaseModel) -> Part:
        items = zip(_items(kind, len(values)), values, strict=True)
        parts = [self.part(item, value, (*path, place), model) for place, (item, value) in enumerate(items)]
        make = list if isinstance(values, list) else tuple
        changed = any(part.value is not value for part, value in zip(parts, values, strict=True))
        static = make(part.value for part in parts) if changed else values
        if all(part.make is None for part in parts):
            return Part(static, None)
        return Part(
            static, lambda delivery: make(part.value if part.make is None else part.make(delivery) for part in parts)
        )

    def _mapping(self, kind: Any, values: dict[Any, Any], path: Path, model: BaseModel) -> Part:
        types = get_args(kind)
        of = types[1] if len(types) == 2 else None
        parts = {key: self.part(of, value, (*path, key), model) for key, value in values.items()}
        changed = any(part.value is not values[key] for key, part in parts.items())
        static = {key: part.value for key, part in parts.items()} if changed else values
        makers = [(key, part.make) for key, part in parts.items() if part.make is not None]
        return Part(static, _making(lambda made: {**static, **made}, makers) if makers else None)


def _making(build: Callable[[dict[Any, Any]], Any], makers: list[tuple[Any, Make]]) -> Make:
    return lambda delivery: build({name: make(delivery) for name, make in makers})


def _copier(model: BaseModel, changed: Mapping[str, Any], makers: list[tuple[str, Make]]) -> Make:
    """Return a function that copies a model and replaces some fields.

    The new values come from `changed` and from the functions in `makers`. Unlike `model_copy`, the function does not
    copy cached properties, which may depend on the replaced fields.
    """
    kind = type(model)
    fields = {**{name: getattr(model, name) for name in kind.model_fields}, **changed}
    was_set, extra, private = model.model_fields_set, model.__pydantic_extra__, model.__pydantic_private__
    set_ = object.__setattr__

    def copy(delivery: Any) -> BaseModel:
        values = fields.copy()
        for name, make in makers:
            values[name] = make(delivery)
        new = kind.__new__(kind)
        set_(new, "__dict__", values)
        set_(new, "__pydantic_fields_set__", was_set)
        set_(new, "__pydantic_extra__", extra)
        set_(new, "__pydantic_private__", private)
        return new

    return copy


_UNIONS = (Union, UnionType)


_UNMARKED = frozenset({bool, int, float, type(None)})
"""The types of values that never have a marker."""


@lru_cache(maxsize=64)
def _fields(model: type[BaseModel]) -> list[tuple[str, str, Any, tuple[Any, Marker | None]]]:
    """Return, for each field of a model, its name, its key in the configuration, its type, and the result of `kind_of`
    for the type.
    """
    whole = {name: Annotated[info.annotation, None, *info.metadata] for name, info in model.model_fields.items()}
    return [(name, model.model_fields[name].alias or name, kind, kind_of(kind)) for name, kind in whole.items()]


def kind_of(annotation: Any) -> tuple[Any, Marker | None]:
    """Return a type without `Annotated` and aliases around it, and its outermost marker, or None."""
    metadata: tuple[Any, ...] = ()
    while get_origin(annotation) is Annotated or hasattr(annotation, "__value__"):
        if get_origin(annotation) is Annotated:
            metadata = (*annotation.__metadata__, *metadata)
            annotation = annotation.__origin__
        else:
            annotation = annotation.__value__
    return annotation, _marker((annotation, *metadata))


def _marker(marks: Sequence[Any]) -> Marker | None:
    for mark in reversed(marks):
        if isinstance(mark, Marker):
            return mark
        if isinstance(mark, type) and issubclass(mark, Marker):
            return mark()
    return None


def _marks(marker: Marker, value: Any) -> bool:
    if isinstance(marker, Json):
        return isinstance(value, dict)
    return isinstance(value, list if isinstance(marker, Addresses) else str)


def _arm(union: Any, value: Any) -> Any:
    """Return the member of a union that is the type of a value, preferably a marked one."""
    fitting = [arm for arm in get_args(union) if _fits(arm, value)]
    marked = [arm for arm in fitting if kind_of(arm)[1] is not None]
    return next(iter(marked or fitting), None)


def _fits(arm: Any, value: Any) -> bool:
    kind, marker = kind_of(arm)
    if marker is not None:
        return _marks(marker, value)
    if get_origin(kind) in _UNIONS:
        return any(_fits(inner, value) for inner in get_args(kind))
    plain = get_origin(kind) or kind
    return isinstance(plain, type) and isinstance(value, plain)


def _items(kind: Any, count: int) -> list[Any]:
    """Return the types of a sequence's values."""
    types = get_args(kind)
    if get_origin(kind) is tuple and not (len(types) == 2 and types[1] is Ellipsis):
        return list(types)
    return [types[0] if types else None] * count
