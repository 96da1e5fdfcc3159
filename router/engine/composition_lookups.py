"""The composition of the lookups from the configuration; floor 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.engine.lookups.lookup_set import LookupSet
from router.engine.runtime import Runtime
from router.ops.loading import Loaded

if TYPE_CHECKING:
    from router.engine.lookups.lookup import Lookup


def lookups_of(loaded: Loaded, runtime: Runtime, kept: Mapping[str, Lookup] | None = None) -> LookupSet:
    """Return the lookups of a configuration, without opening a connection.

    `kept` has, by name, the lookups of the previous configuration that are used again with their caches. Raises
    `ConfigError` for an invalid URL, and if the `__init__` of a plugin's class raises an exception.
    """
    if not loaded.lookups:
        return LookupSet({}, {})
    from router.engine.composition_stores import lookup_of  # noqa: PLC0415  # not needed without lookups

    known = kept or {}
    lookups = {name: known[name] if name in known else lookup_of(name, loaded, runtime) for name in loaded.lookups}
    return LookupSet(loaded.lookups, lookups)
