"""What endangers queues that a Redis holds."""

import pytest

from router.config.models import ListConfig, PubSubConfig, StreamConfig
from router.core.accounts.durability_risks import has_events_from_elsewhere, judge, power_cut


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"maxmemory_policy": "noeviction", "aof_enabled": "1"}, []),
        ({}, []),
        ({"maxmemory_policy": "allkeys-lru", "aof_enabled": "1"}, ["instead of allkeys-lru"]),
        ({"maxmemory_policy": "noeviction", "aof_enabled": "0"}, ["appendonly yes"]),
        ({"maxmemory_policy": "volatile-ttl", "aof_enabled": "0"}, ["instead of volatile-ttl", "appendonly yes"]),
    ],
)
def test_what_endangers_a_queue(info, said):
    found = judge(info)
    assert len(found) == len(said)
    assert all(part in warning for part, warning in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"aof_enabled": "1", "appendfsync": "everysec"}, ["the last second"]),
        ({"aof_enabled": "1", "appendfsync": "no"}, ["the last 30 seconds"]),
        ({"aof_enabled": "1", "appendfsync": "always"}, []),
        ({"aof_enabled": "1"}, []),  # it does not tell
        ({"aof_enabled": "0", "appendfsync": "everysec"}, []),  # it loses more than that, and `judge` says so
        ({}, []),
    ],
)
def test_what_a_power_cut_takes(info, said):
    found = power_cut(info)
    assert len(found) == len(said)
    assert all(part in text and "appendfsync always" in text for part, text in zip(said, found, strict=True))


def pubsub(**keys):
    return PubSubConfig(type="pubsub", channels=["c"], **keys)


def stream(**keys):
    return StreamConfig(type="stream", streams=["s"], **keys)


@pytest.mark.parametrize(
    ("sources", "matters"),
    [
        ([pubsub()], True),
        ([stream(), pubsub(url="redis://a:6379")], True),
        ([stream(url="redis://b:6379")], True),
        ([ListConfig(type="list", keys=["k"], url="redis://b:6379")], True),
        ([stream(), ListConfig(type="list", keys=["k"])], False),
        ([stream(url="redis://a:6379")], False),
    ],
)
def test_it_matters_for_what_redis_has_from_us_alone(sources, matters):
    assert has_events_from_elsewhere(sources, "redis://a:6379") is matters
