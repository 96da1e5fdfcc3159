"""The registration of lookup types by plugins; floor 3."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from router.config.scalars import NAME
from router.core.plugin_signatures import wrong_lookup_parameters
from router.hookspecs import RegisterLookup
from router.plugin_contracts import LookupCallable, LookupOptions, LookupType
from router.plugin_loading.option_models import hidden_attribute, undefined_type
from router.plugin_loading.registering import refuse_unknown


class NoLookupOptions(LookupOptions):
    """The options of a lookup that was registered without options. Every key is refused."""


def lookup_registrar(known: Mapping[str, LookupType], found: dict[str, LookupType], origin: str) -> RegisterLookup:
    """Return the function with which a plugin registers its lookup types. The types are added to `found`."""

    def register(
        name: str, fetch: LookupCallable, *, options: type[LookupOptions] | None = None, **unknown: object
    ) -> None:
        from router.config.lookups import LOOKUPS  # noqa: PLC0415  # few configurations have lookups

        refuse_unknown(register, unknown)
        other = known.get(name) or found.get(name)
        if other or name in LOOKUPS:
            raise ValueError(
                f"lookup type {name!r} is taken: {other.origin if other else 'the router'} registered it; choose another name"
            )
        kind = LookupType(name, fetch, options or NoLookupOptions, origin)
        fault = _fault(kind)
        if fault:
            raise ValueError(f"lookup type {name!r}: {fault}")
        found[name] = kind

    register.__qualname__ = "register"  # the name in Python's error about a missing argument
    return register


def _fault(kind: LookupType) -> str | None:
    """Return the fault of a registration, else None. A plugin can pass any value, in spite of the annotations."""
    from router.config.lookups import PluginLookupConfig  # noqa: PLC0415  # few configurations have lookups

    fetch: Any = kind.fetch
    options: Any = kind.options
    if not isinstance(kind.name, str) or not re.fullmatch(NAME, kind.name):
        return "the name of a type must have 1 to 64 characters: a-z, A-Z, 0-9, `_`, `.` and `-`"
    if not callable(fetch):
        return f"{fetch!r} is neither a function nor a class"
    if inspect.isclass(fetch) and not hasattr(fetch, "fetch_many"):
        return f"class {fetch.__name__} has no method `fetch_many`"
    if not (inspect.isclass(options) and issubclass(options, LookupOptions)):
        return f"`options` must be a subclass of LookupOptions, not {options!r}"
    taken = sorted(
        {field.alias or name for name, field in options.model_fields.items()} & PluginLookupConfig.model_fields.keys()
    )
    if taken:
        return f"the option `{taken[0]}` has the same name as a key of the router, so the option would never be set: rename the option"
    return hidden_attribute(options, LookupOptions) or undefined_type(options) or wrong_lookup_parameters(fetch)
