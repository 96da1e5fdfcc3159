"""A snapshot of a router whose books balance, to be changed where a test needs it otherwise."""

from router.core.accounts.snapshot import LoadStatus, RedisStatus, SinkStatus, Snapshot, SourceStatus

SOURCE = SourceStatus(
    type="pubsub",
    up=True,
    reason=None,
    address="redis://a:6379",
    gaps=0,
    gap_seconds=0.0,
    duplicates=3,
    trimmed=0,
    trimmed_exact=True,
    possibly_repeated=0,
    schema_warnings=1,
    received=20,
    rejected={"schema": 4, "decode": 1},
    unmatched=5,
    routed=10,
)
SINK = SinkStatus(
    type="log",
    queue="memory",
    fault=None,
    breaker_open=False,
    pending=6,
    delayed=2,
    in_hand=1,
    waiting=3,
    accepted=21,
    delivered=5,
    dead_lettered={"permanent": 1, "exhausted": 1},
    dropped={"full": 3},
    suppressed={"no_address": 4},
    handed_over=1,
    degraded=2,
    dropped_by_channel={"orders": 3},
)
SNAPSHOT = Snapshot(
    version="1.2.3",
    instance="default",
    pid=7,
    uptime=61.23456,
    phase="running",
    redis=RedisStatus("redis://a:6379", up=True, reason=None),
    config=LoadStatus(1000.0),
    sources={"web": SOURCE},
    sinks={"audit": SINK},
    routes={"all": 10, "urgent": 0},
)
