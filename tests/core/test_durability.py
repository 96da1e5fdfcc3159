"""What endangers queues that a Redis holds."""

import pytest

from router.core.durability import judge


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"maxmemory_policy": "noeviction", "aof_enabled": "1"}, []),
        ({}, []),
        ({"maxmemory_policy": "allkeys-lru", "aof_enabled": "1"}, ["not allkeys-lru"]),
        ({"maxmemory_policy": "noeviction", "aof_enabled": "0"}, ["appendonly yes"]),
        ({"maxmemory_policy": "volatile-ttl", "aof_enabled": "0"}, ["not volatile-ttl", "appendonly yes"]),
    ],
)
def test_what_endangers_a_queue(info, said):
    found = judge(info)
    assert len(found) == len(said)
    assert all(part in warning for part, warning in zip(said, found, strict=True))
