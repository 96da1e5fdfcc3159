"""The names of every key the router owns; floor 4, imports nothing.

All begin with the prefix in braces: Redis Cluster then keeps them in one slot, so that one script may touch several.
"""

from __future__ import annotations


def dead(prefix: str) -> str:
    """The stream of dead letters."""
    return f"{{{prefix}}}:dead"


def dead_batch(prefix: str, appender: str) -> str:
    """What a writer of dead letters last appended (`<batch number>:<evicted>`), so that a batch sent twice counts once."""
    return f"{{{prefix}}}:dead:batch:{appender}"
