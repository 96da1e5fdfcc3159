"""The names of every key the router owns; floor 4, imports nothing.

All begin with the prefix in braces: Redis Cluster then keeps them in one slot, so that one script may touch several.
"""

from __future__ import annotations


def owned(prefix: str) -> str:
    """A glob that every key of the router's own matches; a prefix has no character that means anything in one."""
    return f"{{{prefix}}}:*"


def dead(prefix: str) -> str:
    """The stream of dead letters."""
    return f"{{{prefix}}}:dead"


def dead_batch(prefix: str, appender: str) -> str:
    """The last batch of a writer of dead letters (`<batch number>:<evicted>`), so that a batch sent twice counts once."""
    return f"{{{prefix}}}:dead:batch:{appender}"


def queue(prefix: str, sink: str) -> str:
    """The stream of what waits for a sink."""
    return f"{{{prefix}}}:queue:{sink}"


def later(prefix: str, sink: str) -> str:
    """The deliveries that are due later for a sink, by their time (milliseconds since the epoch, of the server's clock)."""
    return f"{{{prefix}}}:later:{sink}"


def books(prefix: str, sink: str) -> str:
    """The book of a sink: what became of its deliveries, counted by the scripts that append and settle."""
    return f"{{{prefix}}}:books:{sink}"


def enqueued_batch(prefix: str, appender: str) -> str:
    """The last batch of an enqueuer (`<batch number>:<answer>`), so that a batch sent twice is appended once."""
    return f"{{{prefix}}}:hand-over:{appender}"


def handed(prefix: str) -> str:
    """The entries of streams that stand in their Redis queues, but that their source could not acknowledge yet."""
    return f"{{{prefix}}}:handed-over"


def beside_list(prefix: str, key: str, what: str, *owner: str) -> str:
    """A key of ours that goes with a list a source reads, in the list's own cluster slot.

    `what` is `processing`, `handed`, `settled` and `lease` (of the `owner`, a consumer), `returned`, `returned-handed`,
    `counts` or `consumers`. The list's hash tag stands in front, or the whole key where it has none. (A key with a brace that is no tag has no
    neighbours that can be named; that matters in a cluster only.)
    """
    begin = key.find("{")
    end = key.find("}", begin + 1) if begin >= 0 else -1
    tag = key[begin + 1 : end] if end > begin + 1 else ""
    names = (prefix, what, *owner) if not tag else (prefix, key, what, *owner)
    return ":".join((f"{{{tag or key}}}", *names))


def replay(prefix: str) -> str:
    """The stream of dead letters that are to go again, and wait for a router to take them."""
    return f"{{{prefix}}}:replay"
