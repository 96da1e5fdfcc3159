"""Limits of queues for tests."""

from __future__ import annotations

from router.config.models import QueueConfig
from router.contracts import QueueLimits


def limits(config: QueueConfig | None = None, **options: object) -> QueueLimits:
    """The limits of a queue that is configured so; `options` are those for queues in Redis."""
    config = config or QueueConfig()
    return QueueLimits(config.max_events, config.max_bytes, config.when_full, **options)
