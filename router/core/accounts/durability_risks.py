"""The risks of losing queues in Redis, by the settings in the server's INFO; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.config.models import SourceConfig

_UNSYNCED = {"everysec": "the last second", "no": "about the last 30 seconds"}
"""The writes that may be missing in the append-only file, by the value of `appendfsync`."""


def judge(info: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning for each setting in a server's INFO that endangers its queues."""
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"Redis may evict the queues when its memory is full: set maxmemory-policy to noeviction instead of {policy}"
        )
    if info.get("aof_enabled") == "0":
        found.append("Redis may lose the queues when it restarts: enable its append-only file (appendonly yes)")
    return tuple(found)


def power_cut(info: Mapping[str, str], cure: str = "appendfsync always") -> tuple[str, ...]:
    """Return a warning if a power cut can lose events.

    `info` is the server's INFO, with its setting `appendfsync` added. `cure` is the setting that the warning
    recommends. The result is empty if there is no risk. It is also empty if `appendfsync` is unknown, because the
    server refused CONFIG GET.
    """
    unsynced = _UNSYNCED.get(info.get("appendfsync", ""))
    if info.get("aof_enabled") != "1" or unsynced is None:
        return ()
    lost = f"after a power cut, Redis may lack the writes of {unsynced} (appendfsync {info['appendfsync']})"
    return (f"{lost}: events from pub/sub or from another server are then lost; to keep these events, set {cure}",)


def has_events_from_elsewhere(sources: Iterable[SourceConfig], redis_url: str) -> bool:
    """Return whether any events come from pub/sub, or from a server other than the Redis that holds the queues.

    Streams and lists on the server of the queues share its append-only file with the queues. If a power cut removes the
    enqueueing of an event from the file, it also removes the later acknowledgement. So the router reads the event
    again.
    """
    return any(source.type == "pubsub" or source.url not in {None, redis_url} for source in sources)
