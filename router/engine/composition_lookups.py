"""The lookups of a configuration, built for their types; floor 5."""

from __future__ import annotations

from collections.abc import Mapping

from router.broker.lookups.redis_hash import RedisHashes
from router.config.lookups import FileLookupConfig, HttpLookupConfig, RedisHashConfig
from router.engine.calling import accidents
from router.engine.lookups.lookup import Lookup
from router.engine.lookups.lookup_context import LookupTools
from router.engine.lookups.lookup_set import LookupSet
from router.engine.lookups.plugin_records import PluginRecords
from router.engine.lookups.store_call import Store
from router.engine.runtime import Runtime
from router.errors import ConfigError
from router.ops.loading import Loaded
from router.ops.lookups.http_records import HttpRecords
from router.ops.lookups.record_file import RecordFile


def lookups_of(loaded: Loaded, around: Runtime, kept: Mapping[str, Lookup] | None = None) -> LookupSet:
    """Return the lookups of a configuration, without opening a connection. Those that are `kept` go on with their caches.

    Raises `ConfigError` for an invalid URL, and for a plugin's class whose `__init__` raises.
    """
    known = kept or {}
    lookups = {name: known[name] if name in known else _lookup(name, loaded, around) for name in loaded.lookups}
    return LookupSet(loaded.lookups, lookups)


def _lookup(name: str, loaded: Loaded, around: Runtime) -> Lookup:
    definition = loaded.lookups[name]
    keys, clock = definition.config.keys, around.clock
    if isinstance(keys, HttpLookupConfig):
        context = LookupTools(name, clock=clock, proxy=keys.http.proxy, allow_private=keys.allow_private)
        headers = {header: value.get_secret_value() for header, value in keys.headers.items()}
        return Lookup(name, keys, HttpRecords(context.http, headers, clock), context, clock=clock)
    context = LookupTools(name, clock=clock)
    if definition.type is not None:
        try:
            found = PluginRecords(definition.type, definition.config.options, context)
        except (Exception, SystemExit) as error:
            made = f"its plugin ({definition.type.origin}) can't create the lookup"
            raise ConfigError(
                [loaded.placed(f"{made}: {''.join(accidents.described(error))}", "lookups", name)]
            ) from error
        return Lookup(name, keys, found, context, clock=clock)
    if isinstance(keys, FileLookupConfig):
        file = RecordFile(keys.path, keys.by, ttl=keys.ttl, clock=clock, run_blocking=context.run_blocking)
        return Lookup(name, keys, file, context, clock=clock, kept=file)
    assert isinstance(keys, RedisHashConfig)
    store: Store = RedisHashes(around.server(keys.url))
    return Lookup(name, keys, store, context, clock=clock)
