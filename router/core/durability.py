"""What endangers queues that a Redis holds, by what it says of itself; pure."""

from __future__ import annotations


def judge(info: dict[str, str]) -> tuple[str, ...]:
    """What in a server's INFO endangers what its queues hold."""
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"Redis may evict the queues when its memory is full: set maxmemory-policy noeviction, not {policy}"
        )
    if info.get("aof_enabled") == "0":
        found.append("Redis may lose the queues when it restarts: switch its append-only file on (appendonly yes)")
    return tuple(found)
