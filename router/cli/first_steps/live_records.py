"""The fetching of lookup records for `explain --live`; floor 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router.cli.common import print_message, redis_url
from router.cli.first_steps.test_entry import Records
from router.config.lookups import RedisHashConfig
from router.core.lookups.given_records import NOT_GIVEN
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.composition_lookups import lookups_of
from router.engine.runtime import Runtime
from router.errors import TransientError, UnavailableError, text_of
from router.ops.loading.reading.nodes import child_path
from router.ops.simulation import Simulation, Simulator

if TYPE_CHECKING:
    from router.core.lookups.finding import Answer
    from router.ops.loading import Loaded

Simulated = Callable[[Simulator], Simulation]
"""A function that simulates one message."""


async def simulated(loaded: Loaded, simulate: Simulated, instance: str) -> tuple[Simulation, Records]:
    """Simulate a message with the records that its deliveries need; return the simulation and the records.

    The function simulates the message and fetches the missing records, until no record is missing. Several rounds may
    be needed, because the key of one lookup may use the record of another lookup. Raises `UnavailableError` if a store
    can't be reached, and `ConfigError` if a secret of a store is missing.
    """
    known: dict[tuple[str, str], Answer] = {}
    lookups = lookups_of(loaded, Runtime(instance, _redis(loaded), None, print_message, print_message))
    try:
        while True:
            simulator = Simulator(loaded, lambda name, key: known.get((name, key), NOT_GIVEN))
            found = simulate(simulator)
            if not simulator.asked:
                return found, _records(known)
            for name, keys in simulator.asked.items():
                loaded.require(child_path("lookups", name))
                for key, answer in (await lookups.lookups[name].fetch(keys)).items():
                    if isinstance(answer, TransientError):
                        raise UnavailableError(f"lookup {name}: {text_of(answer)}")
                    known[name, key] = answer
    finally:
        await lookups.close()


def _redis(loaded: Loaded) -> str:
    """Return the URL of the router's own Redis. If no lookup needs Redis, return a URL that is never used.

    Raises `UnavailableError` or `ConfigError` if a lookup needs the server and the URL of the server is not available.
    """
    keys = [definition.config.keys for definition in loaded.lookups.values()]
    if any(isinstance(each, RedisHashConfig) and each.url is None for each in keys):
        loaded.require("redis")
        return redis_url(loaded)
    return "redis://127.0.0.1"  # no lookup uses it


def _records(known: Mapping[tuple[str, str], Answer]) -> Records:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for (name, key), answer in known.items():
        if isinstance(answer, Record):
            found.setdefault(name, {})[key] = answer
    return found
