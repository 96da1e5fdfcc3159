"""The risks for queues in Redis, judged by the server's INFO; pure."""

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
    """Return a warning about losses by a power cut, from a server's INFO with its `appendfsync`; `cure` is the advice.

    The result is empty if there is no risk, or if `appendfsync` is unknown because the server refused CONFIG GET.
    """
    unsynced = _UNSYNCED.get(info.get("appendfsync", ""))
    if info.get("aof_enabled") != "1" or unsynced is None:
        return ()
    lost = f"after a power cut, Redis may lack the writes of {unsynced} (appendfsync {info['appendfsync']})"
    return (f"{lost}: events from pub/sub or from another server are then lost; to keep these events, set {cure}",)


def has_events_from_elsewhere(sources: Iterable[SourceConfig], redis_url: str) -> bool:
    """Return whether any events come from pub/sub or from another server than the queues' Redis.

    Streams and lists of the queues' Redis are in the same append-only file as the queues. If the file lacks the
    enqueueing of an event, it lacks the acknowledgement too, and the event is read again.
    """
    return any(source.type == "pubsub" or source.url not in {None, redis_url} for source in sources)
