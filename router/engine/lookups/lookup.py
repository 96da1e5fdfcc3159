"""One lookup at run time: its cache, the fetches under way, and the health of its store; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, cast

import structlog

from router.config.lookups import LookupKeys
from router.contracts import Clock
from router.core.accounts.snapshot import Fault, LookupStatus
from router.core.delivery.retry import requested_delay
from router.core.lookups.finding import Answer
from router.core.lookups.record_cache import RecordCache
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.delivery.sink_health import SinkHealth
from router.engine.lookups.store_call import Store, StoreCall
from router.errors import TransientError, text_of

log = structlog.stdlib.get_logger(__name__)

BATCH = 500
"""The largest number of keys in one call of a store."""

IN_A_ROW = 3
"""The number of consecutive failed keys after which the store counts as unreachable. One failed key is not enough,
because a key that always fails must not delay deliveries with other keys.
"""

PAUSE = 1.0
"""The minimum number of seconds until an unreachable store is called again. The store may ask for more time. Until
then, fetches fail at once.
"""


UNREACHABLE = "a lookup fails: the deliveries that need its records wait"
OLD_RECORDS = "the file of a lookup can't be used; the router continues with the earlier records"
RESTORED = "the lookup works again"


class Closing(Protocol):
    """An object that must be closed when its lookup is closed."""

    async def close(self) -> None:
        """Close the object."""


class KeptRecords(Protocol):
    """A store with all its records in memory. A lookup with such a store needs no cache."""

    fault: str | None
    """The reason why the current records can't be loaded; None if they are loaded. While there is a fault, earlier
    records are used.
    """

    @property
    def loaded(self) -> bool:
        """True once the records were loaded successfully."""

    def __len__(self) -> int:
        """Return the number of records."""

    def look(self) -> object:
        """Start a check whether the records have changed. Do nothing if the last check was a short time ago."""


class Lookup:
    """A lookup of the configuration.

    All sinks share its cache. Two calls never fetch the same key at the same time. The lookup closes its `store` and
    its `context`. `kept` is the store if the store has all its records in memory, else None.
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
        self._under_way: dict[str, StoreCall] = {}
        self._calls: set[StoreCall] = set()  # the calls whose task has not ended, including abandoned ones
        self._health = SinkHealth(log.bind(lookup=name), clock)
        self._unreachable: TransientError | None = None  # the error with which every fetch fails until `_again_at`
        self._again_at = 0.0
        self._failed_in_a_row = 0
        self._why = ""
        self._closed = False
        self._hits = self._misses = self._fetches = self._errors = 0

    @property
    def status(self) -> LookupStatus:
        """The counts and the health of the lookup, for `status`."""
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
        """Return the result for each key: from the cache, from a fetch under way, or from a new fetch."""
        now = self._clock.monotonic()
        known, unknown = ({}, list(keys)) if self._cache is None else self._cache.get(keys, now)
        self._hits += len(known)
        self._misses += len(unknown)
        if not unknown:
            return {**known}
        fetched = await self._fetched(unknown, now)
        return {**known, **fetched} if known else fetched

    async def _fetched(self, keys: list[str], now: float) -> dict[str, Answer]:
        """Return the results for keys that are not in the cache."""
        found: dict[str, Answer] = {}
        awaited: dict[StoreCall, list[str]] = {}
        under_way, new = self._under_way, keys
        if under_way:
            for key in keys:
                if key in under_way:
                    awaited.setdefault(under_way[key], []).append(key)
            new = [key for key in keys if key not in under_way]
        failure = self._refusal(now)
        if failure is not None:
            found.update(dict.fromkeys(new, failure))
        else:
            for first in range(0, len(new), BATCH):
                part = new[first : first + BATCH]
                awaited[self._start(part)] = part
        if awaited:
            # Do not await the futures directly. If this task is cancelled, asyncio would also cancel the awaited
            # future, but other tasks may wait for it.
            await asyncio.wait([call.answers for call in awaited])
        for call, part in awaited.items():
            answers = call.answers.result()
            found.update(answers if len(part) == len(answers) else {key: answers[key] for key in part})
        return found

    def _refusal(self, now: float) -> TransientError | None:
        """Return the error with which fetches must fail now; None if the store may be called."""
        if self._closed:
            return TransientError("the lookup was replaced by a reload")
        if self._unreachable is None or now >= self._again_at:
            return None
        wait = None if requested_delay(self._unreachable) is None else self._again_at - now
        return TransientError(text_of(self._unreachable), retry_after=wait)

    def _start(self, keys: list[str]) -> StoreCall:
        call = StoreCall(self._store, keys, self._call_ended)
        self._under_way.update(dict.fromkeys(keys, call))
        self._fetches += 1
        self._calls.add(call)
        call.task.add_done_callback(lambda _task: self._calls.discard(call))
        return call

    def _call_ended(
        self, call: StoreCall, answers: Sequence[Answer], failed: bool
    ) -> None:  # `StoreCall` calls this method as `note`
        """Put the results of a call into the cache, count errors, and decide whether the store can be reached."""
        for key in call.keys:
            del self._under_way[key]
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        self._errors += len(failures)
        if self._cache is not None and not failed:
            found: Iterable[tuple[str, Answer]] = zip(call.keys, answers, strict=True)
            if failures:
                found = ((key, answer) for key, answer in found if not isinstance(answer, Exception))
            self._cache.put(cast("Iterable[tuple[str, Record | None]]", found), self._clock.monotonic())
        self._update_reachability(
            [each for each in failures if isinstance(each, TransientError)], len(answers), whole_call=failed
        )

    def _update_reachability(self, failures: Sequence[TransientError], keys: int, *, whole_call: bool) -> None:
        """Decide whether the store can be reached.

        The store counts as unreachable in each of these cases:

        - The store has asked the router to wait.
        - A whole call has failed (`whole_call`).
        - `IN_A_ROW` keys have failed in a row.

        `failures` are the temporary failures of a call, and `keys` is the number of keys of the call.
        """
        now = self._clock.monotonic()
        all_failed = bool(failures) and len(failures) == keys
        self._failed_in_a_row = self._failed_in_a_row + len(failures) if all_failed else 0
        longest = max(failures, key=lambda failure: requested_delay(failure) or 0.0, default=None)
        wait = requested_delay(longest)
        if longest is not None and (
            wait is not None or (all_failed and (whole_call or self._failed_in_a_row >= IN_A_ROW))
        ):
            again_at = now + max(wait or 0.0, PAUSE)
            if self._unreachable is None or again_at >= self._again_at:
                self._unreachable, self._again_at = longest, again_at
            self._record_failure(UNREACHABLE, text_of(longest))
            return
        if all_failed or (requested_delay(self._unreachable) is not None and now < self._again_at):
            return  # fewer keys failed than `IN_A_ROW`, or the store asked the router to wait after this call began
        self._unreachable = None
        if self._kept is None:
            self._health.ended(RESTORED)

    def check(self) -> None:
        """Check whether the file of a lookup has changed, even if no delivery needs a record.

        Call this method twice a second.
        """
        if self._kept is None:
            return
        self._kept.look()
        fault = self._kept.fault
        if fault is None and self._kept.loaded:
            self._unreachable = None
            self._health.ended(RESTORED)
        elif fault is not None and (fault != self._why or not self._health.active):
            self._record_failure(OLD_RECORDS if self._kept.loaded else UNREACHABLE, fault)

    def _record_failure(self, message: str, why: str) -> None:
        """Record that the lookup fails.

        The failure is logged once, even if its reason changes. `status` has the last reason.
        """
        self._why = why
        if self._health.active:
            self._health.count(why)
        else:
            self._health.happened(message, why)

    async def close(self) -> None:
        """Make the fetches under way fail, and close the store and the context."""
        self._closed = True
        for call in list(self._calls):
            call.close()
        self._under_way.clear()
        await self._store.close()
        await self._context.close()
