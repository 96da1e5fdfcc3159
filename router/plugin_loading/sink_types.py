"""The registration of sink types by plugins; floor 3."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from router.config.models import HostKeys
from router.config.scalars import NAME
from router.core.plugin_signatures import wrong_parameters
from router.hookspecs import RegisterSink
from router.options import SinkOptions
from router.plugin_contracts import Execution, QueueType, SinkCallable, SinkType
from router.plugin_loading.drop_ins import Sources
from router.plugin_loading.option_models import hidden_attribute, undefined_type
from router.plugin_loading.registering import refuse_unknown

ALL = "all"
"""The key of `defaults` for all types of sinks. No type can have this name."""


class NoOptions(SinkOptions):
    """The options of a sink that was registered without options. Every key is refused."""


def sink_registrar(known: Mapping[str, str], found: dict[str, SinkType], origin: str, sources: Sources) -> RegisterSink:
    """Return the function with which a plugin registers its sink types. The types are added to `found`.

    `known` maps each type that is already registered to its plugin. `sources` are the files of a drop-in. Processes
    that run a sink of the drop-in load these files.
    """

    def register(
        name: str,
        sink: SinkCallable,
        *,
        options: type[SinkOptions] | None = None,
        queue: QueueType = "redis",
        concurrency: int = 4,
        batch: int | None = None,
        execution: Execution | None = None,
        **unknown: object,
    ) -> None:
        refuse_unknown(register, unknown)
        other = origin if name in found else known.get(name)
        if other:
            raise ValueError(f"sink type {name!r} is taken: {other} registered it; choose another name")
        kind = SinkType(name, sink, options or NoOptions, queue, concurrency, batch, execution, origin, sources)
        fault = _fault(kind)
        if fault:
            raise ValueError(f"sink type {name!r}: {fault}")
        found[name] = kind

    register.__qualname__ = "register"  # the name in Python's error about a missing argument
    return register


def _fault(kind: SinkType) -> str | None:
    """Return the fault of a registration, else None. A plugin can pass any value, in spite of the annotations."""
    sink: Any = kind.sink
    options: Any = kind.options
    if not isinstance(kind.name, str) or not re.fullmatch(NAME, kind.name) or kind.name == ALL:
        return f"the name of a type must have 1 to 64 characters: a-z, A-Z, 0-9, `_`, `.` and `-`; the name `{ALL}` is not allowed"
    if not callable(sink):
        return f"{sink!r} is neither a function nor a class"
    is_class = inspect.isclass(sink)
    if is_class and not (hasattr(sink, "deliver") or hasattr(sink, "deliver_batch")):
        return f"class {sink.__name__} has neither `deliver` nor `deliver_batch`"
    if not (inspect.isclass(options) and issubclass(options, SinkOptions)):
        return f"`options` must be a subclass of SinkOptions, not {options!r}"
    taken = sorted(_keys(options) & _keys(HostKeys))
    if taken:
        return f"the option `{taken[0]}` has the same name as a key of the router, so the option would never be set: rename the option"
    if kind.queue not in {"memory", "redis"}:
        return f"`queue` must be 'memory' or 'redis', not {kind.queue!r}"
    if not _is_count(kind.concurrency):
        return f"`concurrency` must be a whole number above 0, not {kind.concurrency!r}"
    if kind.batch is not None and not _is_count(kind.batch):
        return f"`batch` must be None or a whole number above 0, not {kind.batch!r}"
    if kind.batch is not None and not (is_class and hasattr(sink, "deliver_batch")):
        return "only classes with the method `deliver_batch` can have `batch`: remove `batch`, or register such a class"
    if kind.execution not in {None, "process"}:
        return f"`execution` must be None or 'process', not {kind.execution!r}"
    if kind.execution == "process" and (is_class or inspect.iscoroutinefunction(sink)):
        return "`execution='process'` can be used only with plain functions"
    return (
        hidden_attribute(options, SinkOptions)
        or undefined_type(options)
        or wrong_parameters(sink, in_process=kind.execution == "process")
    )


def _keys(model: type[BaseModel]) -> set[str]:
    """Return the names of a model's fields in the configuration."""
    return {field.alias or name for name, field in model.model_fields.items()}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
