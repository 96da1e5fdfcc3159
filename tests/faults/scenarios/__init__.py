"""The scenarios, by what goes wrong. Importing this package fills the list in `tests.faults.registry`."""

from tests.faults.scenarios import (
    connections,
    disasters,
    junk,
    kills,
    lookups,
    pressure,
    reloads,
    sinks,
    stops,
    takeovers,
    waits,
)

__all__ = [
    "connections",
    "disasters",
    "junk",
    "kills",
    "lookups",
    "pressure",
    "reloads",
    "sinks",
    "stops",
    "takeovers",
    "waits",
]
