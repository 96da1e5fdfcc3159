"""The composition of one lookup with its store; floor 5. Only a router with lookups imports this module."""

from __future__ import annotations

from router.broker.lookups.redis_hash import RedisHashes
from router.config.lookups import FileLookupConfig, HttpLookupConfig, RedisHashConfig
from router.engine.calling import accidents
from router.engine.lookups.lookup import Lookup
from router.engine.lookups.lookup_context import LookupTools
from router.engine.lookups.plugin_records import PluginRecords
from router.engine.lookups.store_call import Store
from router.engine.runtime import Runtime
from router.errors import ConfigError
from router.ops.loading import Loaded
from router.ops.lookups.http_records import HttpRecords
from router.ops.lookups.record_file import RecordFile


def lookup_of(name: str, loaded: Loaded, runtime: Runtime) -> Lookup:
    """Return a lookup, without opening a connection. Raises the errors of `lookups_of`."""
    store, context = store_of(name, loaded, runtime)
    kept = store if isinstance(store, RecordFile) else None
    return Lookup(name, loaded.lookups[name].config.keys, store, context, clock=runtime.clock, kept=kept)


def store_of(name: str, loaded: Loaded, runtime: Runtime, *, allow_private: bool = False) -> tuple[Store, LookupTools]:
    """Return the store of a lookup and its context, without opening a connection. Raises the errors of `lookups_of`.

    If `allow_private` is True, the lookup of a plugin may use private addresses, such as the address of a test server.
    """
    definition = loaded.lookups[name]
    keys, clock = definition.config.keys, runtime.clock
    if isinstance(keys, HttpLookupConfig):
        context = LookupTools(name, clock=clock, proxy=keys.http.proxy, allow_private=keys.allow_private)
        headers = {header: value.get_secret_value() for header, value in keys.headers.items()}
        return HttpRecords(context.http, headers, clock), context
    context = LookupTools(name, clock=clock, allow_private=allow_private)
    if definition.type is not None:
        try:
            return PluginRecords(definition.type, definition.config.options, context), context
        except (Exception, SystemExit) as error:
            made = f"its plugin ({definition.type.origin}) can't create the lookup"
            raise ConfigError(
                [loaded.placed(f"{made}: {''.join(accidents.described(error))}", "lookups", name)]
            ) from error
    if isinstance(keys, FileLookupConfig):
        return RecordFile(keys.path, keys.by, ttl=keys.ttl, clock=clock, run_blocking=context.run_blocking), context
    assert isinstance(keys, RedisHashConfig)
    return RedisHashes(runtime.server(keys.url)), context
