"""The names of all keys that the router owns in Redis; floor 4, imports nothing.

Each name begins with the prefix in braces. Redis Cluster then stores them in one slot, so that a script may use
several.
"""

from __future__ import annotations


def owned(prefix: str) -> str:
    """Return a glob that matches every key with this prefix. A prefix never holds a glob character."""
    return f"{{{prefix}}}:*"


def dead(prefix: str) -> str:
    """Return the key of the stream of dead letters."""
    return f"{{{prefix}}}:dead"


def dead_batch(prefix: str, appender: str) -> str:
    """Return the key of a dead-letter writer's last batch (`<number>:<evicted>`): a batch sent twice counts once."""
    return f"{{{prefix}}}:dead:batch:{appender}"


def queue(prefix: str, sink: str) -> str:
    """Return the key of the stream of deliveries that wait for a sink."""
    return f"{{{prefix}}}:queue:{sink}"


def later(prefix: str, sink: str) -> str:
    """Return the key of the sorted set of a sink's delayed deliveries.

    The score is the due time: milliseconds since the epoch by the server's clock.
    """
    return f"{{{prefix}}}:later:{sink}"


def books(prefix: str, sink: str) -> str:
    """Return the key of a sink's books: outcomes of its deliveries, counted by the scripts that append and settle."""
    return f"{{{prefix}}}:books:{sink}"


def thread(prefix: str, sink: str) -> str:
    """Return the key of the messages that a sink remembers, so that later messages can answer or replace them."""
    return f"{{{prefix}}}:thread:{sink}"


def enqueued_batch(prefix: str, appender: str) -> str:
    """Return the key of an enqueuer's last batch (`<number>:<answer>`): a batch sent twice is appended once."""
    return f"{{{prefix}}}:hand-over:{appender}"


def handed(prefix: str) -> str:
    """Return the key of the stream entries that are in Redis queues already, but not acknowledged by their source."""
    return f"{{{prefix}}}:handed-over"


def router(prefix: str, name: str) -> str:
    """Return the name of a router's heartbeat: the key holds the process that runs under this name."""
    return f"{{{prefix}}}:router:{name}"


def beside(prefix: str, key: str, what: str, *owner: str) -> str:
    """Return the name of a router key that belongs to a source's list or stream, in the cluster slot of that key.

    `what` is `landing` or `items`, or `router` with its `owner`. The name begins with the hash tag of the key, or with the
    whole key if it has no tag. For a key with a single brace no name of the same slot exists; that matters only in a cluster.
    """
    begin = key.find("{")
    end = key.find("}", begin + 1) if begin >= 0 else -1
    tag = key[begin + 1 : end] if end > begin + 1 else ""
    names = (prefix, what, *owner) if not tag else (prefix, key, what, *owner)
    return ":".join((f"{{{tag or key}}}", *names))


def replay(prefix: str) -> str:
    """Return the key of the stream of dead letters that wait to be replayed by a router."""
    return f"{{{prefix}}}:replay"
