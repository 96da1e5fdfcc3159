"""Dangers to queues that a Redis holds, by what it says of itself; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.config.models import SourceConfig

_UNSYNCED = {"everysec": "the last second", "no": "the last 30 seconds or so"}
"""What the append-only file may lack at any moment, by `appendfsync`."""


def judge(info: Mapping[str, str]) -> tuple[str, ...]:
    """Return what in a server's INFO endangers what its queues hold."""
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"Redis may evict the queues when its memory is full: set maxmemory-policy noeviction, not {policy}"
        )
    if info.get("aof_enabled") == "0":
        found.append("Redis may lose the queues when it restarts: switch its append-only file on (appendonly yes)")
    return tuple(found)


def power_cut(info: Mapping[str, str], cure: str = "appendfsync always") -> tuple[str, ...]:
    """Return what a power cut may take from queues of a server with this INFO and this setting `appendfsync`.

    A server may keep its settings to itself: then nothing is known, and nothing is said.
    """
    unsynced = _UNSYNCED.get(info.get("appendfsync", ""))
    if info.get("aof_enabled") != "1" or unsynced is None:
        return ()
    lost = f"a power cut may take {unsynced} of what Redis was given (appendfsync {info['appendfsync']})"
    return (f"{lost}: events that came by pub/sub or from another server are lost then; to keep them set {cure}",)


def brings_its_own(sources: Iterable[SourceConfig], redis_url: str) -> bool:
    """Return whether events come from elsewhere than streams and lists of the Redis that holds the queues.

    Those stand in the same append-only file as the queues: what it loses of these, it loses of their sources too.
    """
    return any(source.type == "pubsub" or source.url not in {None, redis_url} for source in sources)
