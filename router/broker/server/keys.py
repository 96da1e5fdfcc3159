"""The names of all keys that the router owns in Redis; floor 4, imports nothing.

Each name begins with the prefix in braces. Therefore Redis Cluster stores all these keys in one slot, and one script may use
several of them.
"""

from __future__ import annotations


def owned(prefix: str) -> str:
    """Return a glob that matches every key with this prefix. A prefix never contains a glob character."""
    return f"{{{prefix}}}:*"


def dead(prefix: str) -> str:
    """Return the key of the stream of dead letters."""
    return f"{{{prefix}}}:dead"


def dead_batch(prefix: str, appender: str) -> str:
    """Return the key of a dead-letter writer's guard. By the guard, a batch that is sent twice takes effect once.

    Its value holds the number and the answer of the last batch (`<number>:<full>:<old>`).
    """
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
    """Return the key of a sink's books, in which the scripts of the queue count the outcomes of the deliveries."""
    return f"{{{prefix}}}:books:{sink}"


def thread(prefix: str, sink: str) -> str:
    """Return the key of the messages that a sink has sent.

    Later messages can reply to these messages or replace them.
    """
    return f"{{{prefix}}}:thread:{sink}"


def enqueued_batch(prefix: str, appender: str) -> str:
    """Return the key of an enqueuer's guard. By the guard, a batch that is sent twice takes effect once.

    Its value holds the number and the answer of the last batch (`<number>:<answer>`).
    """
    return f"{{{prefix}}}:hand-over:{appender}"


def handed(prefix: str) -> str:
    """Return the key of the hash of marks.

    A mark names the deliveries of an entry that are in Redis queues already. The mark is removed when the entry is
    acknowledged.
    """
    return f"{{{prefix}}}:handed-over"


def router(prefix: str, name: str) -> str:
    """Return the key of a router's heartbeat. The value identifies the process that runs under the name `name`."""
    return f"{{{prefix}}}:router:{name}"


def beside(prefix: str, key: str, what: str, *owner: str) -> str:
    """Return the name of a key of the router that belongs to the list or stream `key` of a source.

    Redis Cluster stores both keys in one slot. `what` names the use of the key, such as `landing`. `owner` is the name
    of a router, if the key belongs to this router alone. The name of the key begins with the hash tag of `key`, or with
    the whole `key` if `key` has no tag. If `key` contains a single brace, no name in the same slot exists. This matters
    only in a cluster.
    """
    begin = key.find("{")
    end = key.find("}", begin + 1) if begin >= 0 else -1
    tag = key[begin + 1 : end] if end > begin + 1 else ""
    names = (prefix, what, *owner) if not tag else (prefix, key, what, *owner)
    return ":".join((f"{{{tag or key}}}", *names))


def replay(prefix: str) -> str:
    """Return the key of the stream of dead letters that wait to be replayed by a router."""
    return f"{{{prefix}}}:replay"
