"""Validation of nodes by pydantic models, with errors in plain words at their places; floor 4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router.config.scalars import NAME
from router.ops.loading.reading import shapes, yaml_hints
from router.ops.loading.reading.concealing import without_credentials
from router.ops.loading.reading.nodes import (
    Entry,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    child_path,
    describe,
    plain,
    resolve,
    walk,
)
from router.ops.loading.reading.problems import Problems, did_you_mean, faulty_default, unknown

M = TypeVar("M", bound=BaseModel)

_WORDS = {
    "string_type": "a string",
    "string_sub_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "empty",
}
_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
NAME_RULE = "a name has 1 to 64 characters: a-z, A-Z, 0-9, `_`, `.` and `-`"
"""The allowed characters of names, in words."""

_YES_NO = frozenset({"yes", "no", "on", "off", "y", "n"})


class PlacedName(str):
    """The name in `{file: name}`, with its place. The name is relative to the file in which it is written."""

    __slots__ = ("mark",)

    mark: Mark


def data(node: Node) -> Any:
    """Return the values of a node for pydantic. The names of template files are `PlacedName` objects."""
    if isinstance(node, Mapping):
        name = node.get("file")
        if len(node.entries) == 1 and isinstance(name, Scalar) and isinstance(name.value, str):
            placed = PlacedName(name.value)
            placed.mark = name.mark
            return {"file": placed}
        return {key: data(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [data(item) for item in node.items]
    return plain(node)


class _Fault(msgspec.Struct, frozen=True):
    """A pydantic error at its place: the node, the key below it, and the branch of the union."""

    error: ErrorDetails
    node: Node
    entry: Entry | None
    """The entry that has the node as its value."""
    key: str | None
    branch: tuple[int, str] | None
    default: bool = False
    """True if the option `key` is not written, and its default is faulty."""


def check(
    model: type[M],
    node: Mapping,
    problems: Problems,
    *,
    at: Entry | None = None,
    allowed: SequenceType[str] | None = None,
    context: MappingType[str, Any] | None = None,
    concerns: Callable[[Node, str | None], bool] = lambda _node, _key: True,
    plugin: str | None = None,
) -> M | None:
    """Validate a mapping by a model. Faults are reported; if there are any, None is returned.

    - `at`: the entry with the mapping as its value. Faults of the whole mapping are reported at the key of this entry.
    - `allowed`: the keys that the message about an unknown key lists (default: the keys of the model).
    - `context`: the context for pydantic.
    - `concerns`: a function of a node and a key below the node. Only faults for which it returns True are reported.
    - `plugin`: the plugin that has the model. The message about a faulty default names this plugin.
    """
    values = data(node)
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    except RecursionError:
        problems.add("is nested too deeply", node)
        return None
    if _retype(node, errors):
        return check(model, node, problems, at=at, allowed=allowed, context=context, concerns=concerns, plugin=plugin)
    faults = [_in_default(model, node, error, at, context) or _locate(node, error, at) for error in errors]
    faults = [fault for fault in faults if concerns(fault.node, fault.key)]
    for group in _grouped(faults):
        if group[0].default:
            _report_default(group, problems, plugin)
        else:
            _report(group, model, problems, allowed, [fault.key for fault in faults if _is_unknown(fault)])
    return None


def _is_unknown(fault: _Fault) -> bool:
    return fault.error["type"] == "extra_forbidden" and not fault.default


def _retype(node: Node, errors: list[ErrorDetails]) -> bool:
    """Convert each expanded scalar to the type that its text suggests, if the field does not accept the text."""
    changed = False
    for error in errors:
        target = _locate(node, error, None).node
        if isinstance(target, Scalar) and target.expanded and isinstance(target.value, str):
            value = resolve(target.value)
            if isinstance(value, bool | int | float):
                target.value = value
                changed = True
    return changed


def _locate(root: Node, error: ErrorDetails, at: Entry | None) -> _Fault:
    node, entry, branch = root, at, None
    location = error["loc"]
    for index, part in enumerate(location):
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.entries:
            entry = node.entries[part]
            node = entry.node
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node, entry = node.items[part], None
        elif index == len(location) - 1 and error["type"] == "missing":
            return _Fault(error, node, entry, str(part), branch)
        elif part != "[key]":
            branch = (id(node), str(part))
    key = str(location[-1]) if error["type"] == "extra_forbidden" and location else None
    return _Fault(error, node, entry, key, branch)


def _in_default(
    model: type[BaseModel], root: Node, error: ErrorDetails, at: Entry | None, context: MappingType[str, Any] | None
) -> _Fault | None:
    """Return the fault if an option is not written and its default is faulty, else None."""
    node, entry, shape = root, at, model
    for part in error["loc"]:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.entries:
            entry = node.entries[part]
            node = entry.node
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node, entry = node.items[part], None
        elif (
            isinstance(node, Mapping)
            and isinstance(part, str)
            and any(shapes.has_faulty_default(found, part, context) for found in shapes.models(shape))
        ):
            return _Fault(error, node, entry, part, None, default=True)
        shape = shapes.at(shape, [part])
    return None


def _grouped(faults: list[_Fault]) -> list[list[_Fault]]:
    """Return groups of faults, with one message for each group. A group has the faults of a union's branches at one
    value.

    If a branch of a union matches the value best, only the faults of this branch are reported.
    """
    single: list[list[_Fault]] = []
    unions: dict[int, list[_Fault]] = defaultdict(list)
    defaults: dict[tuple[int, str | None], list[_Fault]] = defaultdict(list)
    for fault in faults:
        if fault.default:
            defaults[id(fault.node), fault.key].append(fault)
        elif fault.branch:
            unions[fault.branch[0]].append(fault)
        else:
            single.append([fault])
    for place, group in unions.items():
        deeper = [fault for fault in group if id(fault.node) != place or fault.key]
        if deeper:
            best = deeper[0].branch
            single.extend([fault] for fault in deeper if fault.branch == best)
        else:
            single.append(group)
    return [*single, *defaults.values()]


def _report(
    group: list[_Fault],
    model: type[BaseModel],
    problems: Problems,
    allowed: SequenceType[str] | None,
    unknown_names: list[str | None],
) -> None:
    """Report the fault of a group at its place, with the likely correction."""
    fault = group[0]
    error, node = fault.error, fault.node
    kind = error["type"]
    location = error["loc"]
    if kind == "extra_forbidden" and fault.entry and fault.key:
        known = allowed if allowed is not None and len(location) == 1 else shapes.keys(shapes.at(model, location[:-1]))
        unknown_key(fault.key, fault.entry, known, problems)
    elif kind == "missing" and fault.key:
        if any(each and did_you_mean(each, [fault.key]) for each in unknown_names):
            return
        place = fault.entry.mark if fault.entry else node.mark
        if not node.faulty:
            problems.add(_missing(model, fault), place, path=child_path(node.path, fault.key))
    elif kind in {"value_error", "assertion_error"} and not location and fault.entry:
        if not unknown_names and not any(below.faulty for below in walk(node)):
            problems.add(_sentence(error), fault.entry.mark, path=node.path)
    else:
        if isinstance(node, Mapping) and set(node.entries) == {"file"} and kind == "value_error":
            node = node.entries["file"].node
        problems.add(_wrong(group, node), node)


def _report_default(group: list[_Fault], problems: Problems, plugin: str | None) -> None:
    """Report the faulty default of an option at the key of the mapping that lacks the option."""
    fault = group[0]
    key, value = fault.key or "", fault.error["input"]
    place = fault.entry.mark if fault.entry else fault.node.mark
    shown: Node
    if isinstance(value, dict):
        shown = Mapping(place)
    elif isinstance(value, list | tuple):
        shown = Sequence(place)
    else:  # like a value of `${NAME:-default}`: advice about YAML would not help the author of the plugin
        shown = Scalar(place, value=value, text=str(value), expanded=True, default=True)
    if not fault.node.faulty:
        message = faulty_default(key, plugin, _wrong(group, shown))
        problems.add(message, place, path=child_path(fault.node.path, key))


def unknown_key(key: str, entry: Entry, allowed: SequenceType[str], problems: Problems) -> None:
    """Report an unknown key at its place."""
    if entry.node.faulty:
        return
    entry.node.faulty = True
    problems.add(unknown("key", key, allowed), entry.mark, path=entry.node.path)


def unknown_keys(node: Mapping, allowed: SequenceType[str], problems: Problems) -> list[str]:
    """Report the keys of a mapping that are not allowed, and return them."""
    unknown_names = [key for key in node.entries if key not in allowed]
    for key in unknown_names:
        unknown_key(key, node.entries[key], allowed, problems)
    return unknown_names


def _missing(model: type[BaseModel], fault: _Fault) -> str:
    shape = shapes.at(model, fault.error["loc"][:-1])
    described = ""
    for found in shapes.models(shape):
        field = shapes.fields(found).get(fault.key or "")
        if field is not None and field.description:
            described = f": {field.description}"
    return f"`{fault.key}` is required{described}"


def _sentence(error: ErrorDetails) -> str:
    cause = error.get("ctx", {}).get("error")
    text = str(cause) if cause is not None else error["msg"]
    return " ".join(text.split())


def _wrong(group: list[_Fault], node: Node) -> str:
    """Return the message for an invalid value."""
    kinds = list(dict.fromkeys(fault.error["type"] for fault in group))
    wanted = [_WORDS[kind] for kind in kinds if kind in _WORDS]
    if wanted and len(wanted) == len(kinds):
        return expected(" or ".join(dict.fromkeys(wanted)), node)
    error = group[0].error
    kind, limits = error["type"], error.get("ctx", {})
    if kind in {"literal_error", "enum"}:
        return _literal(error, node)
    if kind in {"value_error", "assertion_error"}:
        return _sentence(error)
    if kind == "string_pattern_mismatch" and limits.get("pattern") == f"^{NAME}$":
        return f"{_shown(node)} is not a valid name; {NAME_RULE}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(node)} does not match the pattern {limits.get('pattern')}"
    if kind in {"too_short", "string_too_short"}:
        least = limits.get("min_length")
        return "must not be empty" if least == 1 else f"is too short; the minimum length is {least}"
    if kind in _BOUNDS:
        bound = next(iter(limits.values()), "")
        return f"must be {_BOUNDS[kind]} {bound:g}, not {_shown(node)}"
    message = error["msg"].removeprefix("Input should ").removeprefix("Value error, ")
    return " ".join(message.split())


def _shown(node: Node) -> str:
    return describe(node).removeprefix("the string ").removeprefix("the number ")


def _literal(error: ErrorDetails, node: Node) -> str:
    listed = error.get("ctx", {}).get("expected", "")
    words = [word.strip("' ") for word in listed.replace(" or ", ", ").split(", ")]
    value = node.value if isinstance(node, Scalar) else None
    close = did_you_mean(value, words) if isinstance(value, str) else ""
    return (
        f"must be {' or '.join(words) if len(words) < 3 else 'one of ' + ', '.join(words)}, not {describe(node)}{close}"
    )


def expected(wanted: str, node: Node) -> str:
    """Return the message for a value of the wrong type, with the likely correction."""
    return f"must be {wanted}, not {describe(node)}{_cure(wanted, node)}"


def _cure(wanted: str, node: Node) -> str:
    if not isinstance(node, Scalar):
        return "; remove the brackets" if isinstance(node, Sequence) and wanted == "a string" else ""
    value = node.value
    if node.cut is not None and value is None:
        return "; ` #` begins a comment in YAML, so quote the value"
    if "a string" in wanted and isinstance(value, bool | int | float) and not node.expanded:
        return f"; quote it: {yaml_hints.quote(node.text)}"
    if wanted == "a list" and value is not None:
        return f"; write [{node.text}]" if len(node.text) < 40 and not node.style else "; write the value in [ ]"
    if not isinstance(value, str) or node.expanded:
        return ""
    if wanted == "a mapping" and not node.style and yaml_hints.space_after_colon(value):
        return f"; {yaml_hints.NO_SPACE}"
    if wanted == "true or false" and (value.lower() in _YES_NO or value.lower() in {"true", "false"}):
        good = "true" if value.lower() in {"yes", "on", "y", "true"} else "false"
        return f"; write {good}" + (" without quotes" if value.lower() in {"true", "false"} else "")
    if "number" in wanted and isinstance(resolve(value.strip().lstrip("0") or "0"), int | float):
        return "; remove the quotes" if node.style else "; remove the leading zeros"
    return ""


def mapping(node: Node | None, problems: Problems) -> Mapping | None:
    """Return the node if it is a mapping; otherwise report this fault and return None."""
    if node is None or isinstance(node, Mapping):
        return node
    message, fixed = expected("a mapping", node), None
    if isinstance(node, Scalar) and isinstance(node.value, str):
        # YAML reads `key:value` without a space as one string. So the value may be a secret that the router does not
        # know.
        message = message.replace(node.value, without_credentials(node.value))
        fixed = yaml_hints.space_after_colon(node.value)
    problems.add(message, node, excerpt=f"write: {without_credentials(fixed)}" if fixed else None)
    return None


def sequence(node: Node | None, problems: Problems) -> Sequence | None:
    """Return the node if it is a list; otherwise report this fault and return None."""
    if node is None or isinstance(node, Sequence):
        return node
    problems.add(expected("a list", node), node)
    return None


def text(node: Node | None, problems: Problems) -> str | None:
    """Return the string of a node. Report a node that is not a string, or is empty, and return None."""
    if node is None:
        return None
    if isinstance(node, Scalar) and isinstance(node.value, str):
        if node.value:
            return node.value
        problems.add("must not be empty", node)
        return None
    problems.add(expected("a string", node), node)
    return None
