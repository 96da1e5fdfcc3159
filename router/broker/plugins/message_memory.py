"""The memory of the messages that a sink has sent: a hash in Redis, with limits for size and age; floor 4."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog

from router.errors import DeliveryError, SinkError
from router.plugin_contracts import RedisClient

KEPT = 30 * 24 * 3600
"""The number of seconds for which a stored message is remembered."""

MOST_MESSAGES = 100_000
"""The largest number of remembered messages of one sink."""

LOOKED_AT = 20
"""The number of fields that one call of `keep` checks for their age, if the server can't expire single fields."""

AT_ONCE = 1_000
"""The largest number of fields in one command."""

WARNED_EVERY = 3600.0
"""The minimum number of seconds between two log lines about old messages that can't be removed."""

log = structlog.stdlib.get_logger(__name__)


class RedisMessageMemory:
    """Implements `plugin_contracts.MessageMemory` by a hash. `now` returns seconds since the epoch.

    The name of a field is the SHA-256 of key and address; its value consists of the time and the text. Servers since
    Redis 7.4 and Valkey 9 drop each field 30 days after it was set. On older servers, every call of `keep` checks the
    next few fields, and removes the fields that are too old. So all fields are checked in turn while the hash is in
    use. The whole hash expires 30 days after the last call of `keep`. If the hash grows beyond its limit, the oldest
    fields of a random sample are removed.

    `keep` fails only if the messages can't be stored. If the server refuses to remove old messages, for example for
    lack of a permission, the refusal is only logged. The new messages have been sent already, so their deliveries must
    not fail for this reason.
    """

    def __init__(self, redis: RedisClient, key: str, now: Callable[[], float]) -> None:
        self._redis = redis
        self._key = key
        self._now = now
        self._fields_expire = True  # set to False when the server refuses HPEXPIRE
        self._cursor = 0
        self._warned_at = float("-inf")

    async def find(self, wanted: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the stored text for each pair of key and address; None for a pair without a stored text."""
        found: list[str | None] = []
        for part in _parts([_field(*each) for each in wanted]):
            found += map(self._fresh, await self._redis.call("HMGET", self._key, *part))
        return found

    async def keep(self, messages: Mapping[tuple[str, str], str]) -> None:
        """Store a text for each pair of key and address. Raises a delivery error if the texts can't be stored."""
        begun = int(self._now())
        values = {_field(*each): f"{begun} {text}".encode("utf-8", "surrogatepass") for each, text in messages.items()}
        for part in _parts(list(values)):
            await self._set({field: values[field] for field in part})

    async def _set(self, values: Mapping[str, bytes]) -> None:
        # A copy for this call: while this call waits for its answer, another call may set `_fields_expire` to False.
        by_field = self._fields_expire
        commands: list[tuple[str | bytes | int, ...]] = [
            ("HSET", self._key, *(word for pair in values.items() for word in pair)),
            ("EXPIRE", self._key, KEPT),
            ("HLEN", self._key),
            ("HPEXPIRE", self._key, KEPT * 1000, "FIELDS", len(values), *values)
            if by_field
            else ("HSCAN", self._key, self._cursor, "COUNT", LOOKED_AT),
        ]
        stored, expiry, number, last = await self._redis.pipeline(commands)
        if isinstance(stored, Exception):
            raise stored
        if isinstance(last, SinkError) and by_field:
            self._fields_expire = False  # the command is unknown, or the user has no permission
            last = []
        try:
            for answer in (expiry, number, last):
                if isinstance(answer, Exception):
                    raise answer
            await self._remove_old([] if by_field else last, number)
        except DeliveryError as error:
            self._warn(error)

    def _warn(self, error: DeliveryError) -> None:
        """Log that old messages can't be removed. The error may come with every message, so it is logged once an hour."""
        now = self._now()
        if now - self._warned_at >= WARNED_EVERY:
            self._warned_at = now
            log.warning("old messages of a sink can't be removed from Redis", key=self._key, error=str(error))

    async def _remove_old(self, scanned: Sequence[Any], number: int) -> None:
        """Remove fields that are too old or too many.

        `scanned` is the answer of HSCAN: those of its fields that are too old are removed. `number` is the size of the
        hash: if `number` exceeds the limit, the oldest fields of a sample are removed.
        """
        old: list[bytes] = []
        if scanned:
            self._cursor = int(scanned[0])
            old = [field for field, value in _pairs(scanned[1]) if self._fresh(value) is None]
        too_many = number - len(old) - MOST_MESSAGES
        if too_many > 0:
            old += await self._oldest(too_many)
        for part in _parts(old):
            await self._redis.call("HDEL", self._key, *part)

    async def _oldest(self, number: int) -> list[bytes]:
        """Return the `number` oldest fields of a random sample. The sample has more than twice as many fields."""
        sample = await self._redis.call("HRANDFIELD", self._key, 2 * number + LOOKED_AT, "WITHVALUES")
        by_age = sorted(_pairs(sample), key=lambda pair: _kept_at(pair[1]))
        return [field for field, _ in by_age[:number]]

    def _fresh(self, value: bytes | None) -> str | None:
        """Return the text of a value; None if there is no value, or if the value is too old or unreadable."""
        if value is None or _kept_at(value) < self._now() - KEPT:
            return None
        return value.partition(b" ")[2].decode("utf-8", "surrogatepass")


def _field(key: str, address: str) -> str:
    """Return the name of the field for a key and an address. An address contains no NUL."""
    return hashlib.sha256(f"{key}\0{address}".encode("utf-8", "surrogatepass")).hexdigest()


def _kept_at(value: bytes) -> int:
    """Return the time in a value, in seconds since the epoch; 0 if the value contains no time."""
    began = value.partition(b" ")[0]
    return int(began) if began.isdigit() else 0


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of field and value from an answer in which each field is followed by its value."""
    return zip(flat[::2], flat[1::2], strict=True)


def _parts(fields: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the fields in parts that are small enough for one command."""
    return (fields[start : start + AT_ONCE] for start in range(0, len(fields), AT_ONCE))
