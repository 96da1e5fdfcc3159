"""The cache of one lookup: records by key, bounded in number and age; floor 2, with time as an argument."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from router.core.rendering.sandbox.lookup_records import Record

MOST = 10_000
"""Records of one lookup that are kept; the oldest make room."""


class Unknown:
    """The type of `UNKNOWN`."""


UNKNOWN: Final = Unknown()
"""The answer for a key that the cache knows nothing of."""


class RecordCache:
    """The records of one lookup for `ttl` seconds, at most `most` of them. None stands for a record that is not there."""

    def __init__(self, ttl: float, most: int = MOST) -> None:
        self._ttl = ttl
        self._most = most
        # In the order in which they were fetched: all live equally long, so the first expires first.
        self._entries: OrderedDict[str, tuple[float, Record | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> Record | Unknown | None:
        """Return the record of a key, None if the store had none, or `UNKNOWN`. `now` is a monotonic time in seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return UNKNOWN
        if now - entry[0] >= self._ttl:
            del self._entries[key]
            return UNKNOWN
        return entry[1]

    def put(self, key: str, record: Record | None, now: float) -> None:
        """Keep what the store said of a key."""
        if not self._ttl:
            return
        self._entries.pop(key, None)
        self._entries[key] = (now, record)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
