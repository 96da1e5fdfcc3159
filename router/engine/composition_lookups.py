"""The lookups of a configuration, built for their types; floor 5."""

from __future__ import annotations

from router.broker.lookups.redis_hash import RedisHashes
from router.config.lookups import FileLookupConfig, HttpLookupConfig, RedisHashConfig
from router.core.lookups.definitions import LookupDefinition
from router.engine.lookups.lookup import Lookup, Store
from router.engine.lookups.lookup_context import LookupTools
from router.engine.lookups.lookup_set import LookupSet
from router.engine.runtime import Runtime
from router.ops.loading import Loaded
from router.ops.lookups.http_records import HttpRecords
from router.ops.lookups.record_file import RecordFile


def lookups_of(loaded: Loaded, around: Runtime, before: LookupSet | None = None) -> LookupSet:
    """Return the lookups of a configuration, without opening a connection.

    A lookup of `before` whose definition is the same goes on with its cache. Raises `ConfigError` for an invalid URL.
    """
    lookups: dict[str, Lookup] = {}
    for name, definition in loaded.lookups.items():
        earlier = None if before is None else before.lookups.get(name)
        same = earlier is not None and before is not None and before.definitions[name].config == definition.config
        lookups[name] = earlier if earlier is not None and same else _lookup(definition, around)
    return LookupSet(loaded.lookups, lookups)


def _lookup(definition: LookupDefinition, around: Runtime) -> Lookup:
    name, keys, clock = definition.name, definition.config.keys, around.clock
    if isinstance(keys, HttpLookupConfig):
        context = LookupTools(name, clock=clock, proxy=keys.http.proxy, allow_private=keys.allow_private)
        headers = {header: value.get_secret_value() for header, value in keys.headers.items()}
        return Lookup(name, keys, HttpRecords(context.http, headers, clock), context, clock=clock)
    context = LookupTools(name, clock=clock)
    if isinstance(keys, FileLookupConfig):
        file = RecordFile(keys.path, keys.by, ttl=keys.ttl, clock=clock, run_blocking=context.run_blocking)
        return Lookup(name, keys, file, context, clock=clock, kept=file)
    assert isinstance(keys, RedisHashConfig)
    store: Store = RedisHashes(around.server(keys.url))
    return Lookup(name, keys, store, context, clock=clock)
