"""The types that a pydantic model expects at a path: its keys, secrets and templates; floor 4."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from router.config.scalars import REDIS_URLS
from router.ops.loading.reading.nodes import Mapping, Node, Scalar, Sequence
from router.options import Addresses, Json, Template

Shape = Any
"""A type annotation of `typing`."""


def leaves(shape: Shape) -> Iterator[Any]:
    """Yield the single types of an annotation, with unions and `Annotated` unpacked.

    Markers are yielded as instances.
    """
    origin: Any = get_origin(shape)
    if origin is Annotated:
        inner, *markers = get_args(shape)
        yield from leaves(inner)
        yield from markers
    elif origin in {Union, types.UnionType}:
        for part in get_args(shape):
            yield from leaves(part)
    else:
        yield shape


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by their keys in the configuration."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def of_field(field: FieldInfo) -> Shape:
    """Return the annotation of a field, including the markers that pydantic stores separately."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def models(shape: Shape) -> list[type[BaseModel]]:
    """Return the models among the types of an annotation."""
    return [leaf for leaf in leaves(shape) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def below(shape: Shape, key: str | int) -> Shape | None:
    """Return the annotation under a key or an index; None if there is no such annotation."""
    found: list[Shape] = []
    for leaf in leaves(shape):
        origin, arguments = get_origin(leaf), get_args(leaf)
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            field = fields(leaf).get(str(key)) or leaf.model_fields.get(str(key))
            if field is not None and isinstance(key, str):
                found.append(of_field(field))
        elif isinstance(leaf, type) and issubclass(leaf, Addresses) and isinstance(key, int):
            found.append(leaf)
        elif _hides(leaf) and isinstance(key, int):
            found.append(Annotated[str, leaf])
        elif isinstance(key, int) and origin in {list, tuple, set, frozenset} and arguments:
            found.append(arguments[0])
        elif isinstance(key, str) and isinstance(origin, type) and issubclass(origin, dict) and len(arguments) == 2:
            found.append(arguments[1])
    if not found:
        return None
    return found[0] if len(found) == 1 else Union[tuple(found)]  # noqa: UP007  # a union built at run time


def at(shape: Shape, location: Iterable[str | int]) -> Shape:
    """Return the annotation at a path of keys and indices below `shape`.

    `location` may be the location of an error of pydantic (`loc`). Parts without an annotation, such as the names of
    union branches that pydantic inserts, are skipped.
    """
    for part in location:
        deeper = below(shape, part)
        shape = shape if deeper is None else deeper
    return shape


def scalars(node: Node, shape: Shape, key: str = "") -> Iterator[tuple[Scalar, Shape, str]]:
    """Yield every scalar of a tree, the annotation of its field, and its key."""
    if isinstance(node, Mapping):
        for name, entry in node.entries.items():
            yield from scalars(entry.node, at(shape, [name]), name)
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from scalars(item, at(shape, [index]), key)
    elif isinstance(node, Scalar):
        yield node, shape, key


def keys(shape: Shape) -> list[str]:
    """Return the keys of the models in an annotation."""
    return [key for model in models(shape) for key in fields(model)]


def is_secret(shape: Shape) -> bool:
    """Return whether the annotation belongs to a secret, or to addresses with credentials."""
    return any((isinstance(leaf, type) and issubclass(leaf, SecretStr)) or _hides(leaf) for leaf in leaves(shape))


def _hides(leaf: Any) -> bool:
    """Return whether a leaf marks addresses with credentials."""
    return isinstance(leaf, Addresses) and callable(leaf.known_by)


def is_redis_url(shape: Shape) -> bool:
    """Return whether the annotation belongs to the URL of a Redis server."""
    return any(leaf in REDIS_URLS for leaf in leaves(shape))


def is_template(shape: Shape) -> bool:
    """Return whether the annotation belongs to a template, to addresses, or to JSON with templates."""
    kinds = (Template, Addresses, Json)
    return any(
        isinstance(leaf, kinds) or (isinstance(leaf, type) and issubclass(leaf, kinds)) for leaf in leaves(shape)
    )


def is_addresses(shape: Shape) -> bool:
    """Return whether the annotation belongs to addresses."""
    return any(
        isinstance(leaf, Addresses) or (isinstance(leaf, type) and issubclass(leaf, Addresses))
        for leaf in leaves(shape)
    )


def is_json(shape: Shape) -> bool:
    """Return whether the annotation belongs to JSON with templates. In such JSON no key has a special meaning."""
    return any(leaf is Json or isinstance(leaf, Json) for leaf in leaves(shape))


def anywhere(shape: Shape, test: Callable[[Shape], bool], depth: int = 8) -> bool:
    """Return whether `test` holds for the annotation or for anything inside it."""
    if test(shape):
        return True
    if depth == 0:
        return False
    inner: list[Shape] = []
    for leaf in leaves(shape):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            inner.extend(of_field(field) for field in fields(leaf).values())
        else:
            inner.extend(part for part in get_args(leaf) if part is not Ellipsis)
    return any(anywhere(part, test, depth - 1) for part in inner)


def has_faulty_default(model: type[BaseModel], key: str, context: MappingType[str, Any] | None) -> bool:
    """Return whether the model refuses the default of an option even if no option is written.

    If the model accepts the default in this case, the default itself is not faulty: a validator of the plugin has
    refused it because of the value of a written option.
    """
    field = fields(model).get(key)
    if field is None or field.is_required():
        return False
    try:
        model.model_validate({}, context=context)
    except ValidationError as error:
        return any(each["loc"][:1] == (key,) for each in error.errors(include_url=False))
    except Exception:  # noqa: BLE001  # a validator of the plugin may need the other options
        return False
    return False
