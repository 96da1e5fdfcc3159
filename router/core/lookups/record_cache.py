"""The cache of one lookup: records by key, bounded in number and age; floor 2. The time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from router.core.rendering.sandbox.lookup_records import Record

MOST = 10_000
"""The largest number of records of one lookup in the cache. The oldest records are evicted."""


class RecordCache:
    """A cache of at most `most` records of one lookup, each kept for `ttl` seconds.

    The value None for a key means that the store has no record with this key.
    """

    def __init__(self, ttl: float, most: int = MOST) -> None:
        self._ttl = ttl
        self._most = most
        # The entries are in the order of fetching. All of them expire after the same time, so the first entry expires
        # first.
        self._entries: OrderedDict[str, tuple[float, Record | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, keys: Iterable[str], now: float) -> tuple[dict[str, Record | None], list[str]]:
        """Return the cached records by key, and the keys that are not in the cache.

        The record is None for a key without a record in the store. `now` is a monotonic time in seconds.
        """
        known: dict[str, Record | None] = {}
        unknown: list[str] = []
        entries, ttl = self._entries, self._ttl
        for key in keys:
            entry = entries.get(key)
            if entry is None:
                unknown.append(key)
            elif now - entry[0] >= ttl:
                del entries[key]
                unknown.append(key)
            else:
                known[key] = entry[1]
        return known, unknown

    def put(self, records: Iterable[tuple[str, Record | None]], now: float) -> None:
        """Store the records of some keys. The record is None for a key without a record in the store."""
        if not self._ttl:
            return
        entries = self._entries
        for key, record in records:
            if key in entries:
                entries.move_to_end(key)
            entries[key] = (now, record)
        for _ in range(len(entries) - self._most):
            entries.popitem(last=False)
