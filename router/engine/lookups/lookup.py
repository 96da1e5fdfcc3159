"""One lookup at work: its cache, the fetches under way, and the health of its store; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import structlog

from router.broker.server.link import cancelled
from router.config.lookups import LookupKeys
from router.contracts import Clock
from router.core.accounts.snapshot import Fault, LookupStatus
from router.core.lookups.finding import Answer
from router.core.lookups.record_cache import RecordCache, Unknown
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.calling import accidents
from router.engine.delivery.sink_health import SinkHealth
from router.errors import DeliveryError, PermanentError, PluginError, TransientError, text_of
from router.ops.logs import redacted

log = structlog.stdlib.get_logger(__name__)

BATCH = 500
"""Keys in one call of a store, at most."""

PATIENCE = 10.0
"""Seconds allowed for one call of a store."""

IN_A_ROW = 3
"""Keys that fail one after the other, with no answer in between, before the store counts as away. One key that always fails
is a fault of that key: it must not hold up the others."""

PAUSE = 1.0
"""Seconds for which a store that is away is not asked again: the deliveries that need it fail at once."""


class Store(Protocol):
    """The origin of a lookup's records."""

    async def fetch_many(self, keys: Sequence[str]) -> Sequence[Mapping[str, Any] | Exception | None]:
        """Return the record of each key, None where there is none, or the error of that key.

        Raises `TransientError` while the store is away.
        """

    async def close(self) -> None:
        """Close what the store has open."""


class Closing(Protocol):
    """Anything that has to be closed in the end."""

    async def close(self) -> None:
        """Close it."""


class KeptRecords(Protocol):
    """A store that holds all its records in memory, so that its lookup needs no cache."""

    fault: str | None
    """Why what it should hold now can't be used, so that earlier records are in force; None if all is well."""

    def __len__(self) -> int:
        """Return the number of records."""


class Lookup:
    """One lookup. All sinks share its cache, and one fetch for each key at a time.

    The lookup closes its `store` and the `context`. `kept` is the store itself if it holds all its records in memory.
    """

    def __init__(
        self,
        name: str,
        keys: LookupKeys,
        store: Store,
        context: Closing,
        *,
        clock: Clock,
        kept: KeptRecords | None = None,
    ) -> None:
        self._name = name
        self._type = keys.type
        self._store = store
        self._context = context
        self._clock = clock
        self._kept = kept
        self._cache = None if kept is not None else RecordCache(keys.ttl)
        self._flying: dict[str, asyncio.Future[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Future[Any]] = set()  # cancelled and not ended
        self._health = SinkHealth(log.bind(lookup=name), clock)
        self._away: TransientError | None = None  # until `_again_at`
        self._again_at = 0.0
        self._failed_in_a_row = 0
        self._why = ""
        self._closed = False
        self._hits = self._misses = self._fetches = self._errors = 0

    @property
    def status(self) -> LookupStatus:
        """The lookup in numbers."""
        size = len(self._cache) if self._cache is not None else len(self._kept or ())
        return LookupStatus(
            type=self._type,
            fault=None if self._health.fault is None else Fault(self._health.fault.since, self._why),
            hits=self._hits,
            misses=self._misses,
            fetches=self._fetches,
            errors=self._errors,
            size=size,
        )

    async def fetch(self, keys: Collection[str]) -> dict[str, Answer]:
        """Return the answer for each key, from the cache, from a fetch under way, or from a new one."""
        now = self._clock.monotonic()
        found: dict[str, Answer] = {}
        awaited: dict[str, asyncio.Future[Answer]] = {}
        new: list[str] = []
        for key in keys:
            cached = Unknown() if self._cache is None else self._cache.get(key, now)
            if not isinstance(cached, Unknown):
                self._hits += 1
                found[key] = cached
                continue
            self._misses += 1
            if key in self._flying:
                awaited[key] = self._flying[key]
            elif self._closed:
                found[key] = TransientError("the lookup was replaced by a reload")
            elif self._away is not None and now < self._again_at:
                found[key] = self._away
            else:
                awaited[key] = self._flying[key] = asyncio.get_running_loop().create_future()
                new.append(key)
        for first in range(0, len(new), BATCH):
            self._start(new[first : first + BATCH])
        if awaited:
            await asyncio.wait(awaited.values())  # unlike `await future`, a cancelled wait leaves the future to others
            found.update((key, future.result()) for key, future in awaited.items())
        return found

    def _start(self, keys: list[str]) -> None:
        task = asyncio.create_task(self._run(keys), name=f"lookup {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, keys: list[str]) -> None:
        """Fetch these keys and answer all who wait for them. Ends within `PATIENCE`, whatever the store does."""
        answers: Sequence[Answer] = [TransientError("the lookup was closed")] * len(keys)
        try:
            self._fetches += 1
            try:
                answers = await self._asked(keys)
                self._judge(answers, away=False)
            except _StoreAwayError as error:
                answers = [error.failure] * len(keys)
                self._judge(answers, away=isinstance(error.failure, TransientError))
        finally:
            now = self._clock.monotonic()
            for key, answer in zip(keys, answers, strict=True):
                if isinstance(answer, Exception):
                    self._errors += 1
                elif self._cache is not None:
                    self._cache.put(key, answer, now)
                self._flying.pop(key).set_result(answer)

    async def _asked(self, keys: list[str]) -> list[Answer]:
        """Return the answer for each key. Raises `_StoreAwayError` if the call fails as a whole."""
        call = asyncio.ensure_future(self._store.fetch_many(keys))
        try:
            # Not `asyncio.timeout`: a plugin may swallow its cancellation, and is left behind then.
            await asyncio.wait({call}, timeout=PATIENCE)
            if not call.done():
                raise TransientError(f"no answer within {PATIENCE:g} s")
            found: Any = call.result()
            if isinstance(found, str) or not isinstance(found, Sequence) or len(found) != len(keys):
                raise PluginError(f"fetch_many returned {type(found).__name__}, not one result for each key")
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises is the failure of these keys
            raise _StoreAwayError(_failure(error)) from None
        finally:
            if not call.done():
                self._calls.add(call)
                call.add_done_callback(self._ended)
                call.cancel()
        return [_answer(each) for each in found]

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # marks it as retrieved: nobody waits for this answer any more

    def _judge(self, answers: Sequence[Answer], *, away: bool) -> None:
        """Note whether the store is away: the call failed, or every key of late did."""
        failures = [answer for answer in answers if isinstance(answer, TransientError)]
        if failures and len(failures) == len(answers):
            self._failed_in_a_row += len(failures)
            if away or self._failed_in_a_row >= IN_A_ROW:
                self._away = failures[0]
                self._again_at = self._clock.monotonic() + PAUSE
                self._why = text_of(self._away)
                self._health.happened("a lookup can't be made: the deliveries that need it wait", self._why)
            return
        self._failed_in_a_row = 0
        self._away = None
        fault = None if self._kept is None else self._kept.fault
        if fault is not None:
            message = "the file of a lookup can't be used as it is now: its records as they were stay in force"
            self._why = fault
            self._health.happened(message, fault)
        else:
            self._health.ended("the lookup can be made again")

    async def close(self) -> None:
        """End the fetches under way, which fail, and close the store."""
        self._closed = True
        await cancelled(list(self._tasks))
        await self._store.close()
        await self._context.close()


class _StoreAwayError(Exception):
    """A call of a store that failed as a whole, with the failure of each of its keys."""

    def __init__(self, failure: DeliveryError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _answer(found: object) -> Answer:
    if found is None or isinstance(found, Record):
        return found
    if isinstance(found, Mapping):
        return Record(found)
    if isinstance(found, Exception):
        return _failure(found)
    return PermanentError(f"the record is a {type(found).__name__}, not a mapping")


def _failure(error: Exception) -> DeliveryError:
    """Return a failure as one of ours, without secrets. What no plugin should raise may pass."""
    if isinstance(error, TransientError):
        return TransientError(redacted(text_of(error)) or "the store is away", retry_after=error.retry_after)
    if isinstance(error, PermanentError | PluginError):
        return PermanentError(redacted(text_of(error)))
    if isinstance(error, DeliveryError):
        return TransientError(redacted(text_of(error)))
    return TransientError(redacted("".join(accidents.described(error))))
