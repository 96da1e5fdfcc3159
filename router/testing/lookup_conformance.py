"""The conformance check of lookups: a test of all properties of a lookup that the router relies on; floor 7."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from router.core.lookups.finding import Answer
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.calling.accidents import described
from router.engine.calling.slots import GRACE
from router.engine.composition_stores import store_of
from router.engine.lookups.lookup import Lookup
from router.engine.lookups.lookup_context import LookupTools
from router.engine.lookups.store_call import Store, matched
from router.errors import DeliveryError, PluginError, TransientError
from router.ops.loading import Loaded
from router.testing.configuration import LOOKUP, Folders, configured
from router.testing.in_process import runtime
from router.testing.manual_clock import ManualClock
from router.testing.observing import RULES_OF_ALL_PLUGINS, judge_left, observed, until
from router.testing.report import Findings, Report
from router.testing.sample_events import HOSTILE, make_event
from router.testing.stand_ins import Service, made_to_fail

RULES = {
    "finds": "a key gives the record that the store has for this key",
    "missing": "a key without a record gives None",
    "mapping": "a record is a mapping",
    "length": "a request for several keys gives one result for each key",
    "order": "the results are in the order of the keys",
    "unicode": "a key may contain any character",
    "away": "the lookup raises TransientError if the store is not available",
    "cancellation": "a fetch that takes too long can be cancelled",
    **RULES_OF_ALL_PLUGINS,
}
"""The rules, by the names of their checks, in the order of the report."""

UNKNOWN = "no-such-key-0f9a"
"""A key that no store has."""

PATIENCE = 0.3
"""Seconds after which a fetch without a result is cancelled."""


async def check_lookup(
    lookup_type: str,
    options: Mapping[str, Any] | None = None,
    *,
    service: Service | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    plugins: Folders = None,
) -> Report:
    """Check that lookups of a type do what the router relies on, and return the report.

    Faults of the lookup are reported, not raised. Raises `ConfigError` if the options or the type can't be used.

    - `options` are the keys of the lookup in the configuration. In `key` (or in `url` of an HTTP lookup),
      `{{ payload.key }}` stands for the requested key. By default, `key` is `{{ payload.key }}`.
    - `records` maps keys that the store has to their records.
    - `service` is the stand-in for the store. Without a stand-in, the check `away` is skipped.
    - `plugins` are folders of drop-ins, by default `plugins/` in the current folder.
    """
    known = dict(records or {})
    written = {"type": lookup_type, **(options or {})}
    if lookup_type != "http":
        written.setdefault("key", "{{ payload.key }}")
    findings = Findings(f"lookup {lookup_type}", RULES)
    with configured(plugins, lookups={LOOKUP: written}) as loaded:
        await _LookupCheck(loaded, known, service, findings).run()
    return findings.report()


_NOTHING = object()
"""Stands for a result that can't be judged, because another check has failed."""


def _alike(found: Any, other: Any) -> bool:
    """Return whether two results for the same key are equal, as far as they can be compared."""
    if isinstance(found, Mapping) and isinstance(other, Mapping):
        return Record(found) == Record(other)
    return found is _NOTHING or other is _NOTHING or (found is None) == (other is None)


class _WatchedStore:
    """A wrapper of a store. It records the results of the last call before the lookup converts them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found: Any = None
        self.error: Exception | None = None

    async def fetch_many(self, keys: Sequence[str]) -> Sequence[Any]:
        """Fetch records from the store, and record the result or the error."""
        self.found = self.error = None
        try:
            self.found = await self._store.fetch_many(keys)
        except asyncio.CancelledError:
            self.error = TransientError("the fetch was cancelled")
            raise
        except Exception as error:
            self.error = error
            raise
        found: Sequence[Any] = self.found
        return found

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


class _LookupCheck:
    """The check of a lookup. The router's own `Lookup` makes each fetch, with a clock that prevents caching."""

    def __init__(
        self, loaded: Loaded, known: Mapping[str, Mapping[str, Any]], service: Service | None, findings: Findings
    ) -> None:
        self._loaded = loaded
        self._known = known
        self._service = service
        self._findings = findings
        self._clock = ManualClock()
        self._errors: list[BaseException] = []
        self._store: _WatchedStore
        self._lookup: Lookup

    async def run(self) -> None:
        """Make every check."""
        kind = self._loaded.lookups[LOOKUP].type
        made = None if kind is None else kind.fetch
        async with observed(self._findings, self._loaded, made, self._errors) as seen:
            self._open()
            await self._records()
            await self._missing()
            await self._several()
            await self._hostile()
            await self._away()
            try:
                await self._lookup.close()
            except Exception as error:  # noqa: BLE001  # whatever a plugin raises is a finding
                self._fail("finds", f"close() raised {''.join(described(error))}", error)
            await judge_left(seen, self._findings)
        async with observed(self._findings, self._loaded, made, self._errors):
            await self._cancelled()

    def _open(self) -> LookupTools:
        store, context = store_of(LOOKUP, self._loaded, runtime(self._clock), allow_private=True)
        self._store = _WatchedStore(store)
        keys = self._loaded.lookups[LOOKUP].config.keys
        self._lookup = Lookup(LOOKUP, keys, self._store, context, clock=self._clock)
        return context

    def _key(self, text: str) -> str:
        """Return the key as the router renders it."""
        definition = self._loaded.lookups[LOOKUP]
        return definition.key.render(make_event({"key": text}), self._clock.now(), {})

    async def _fetch(self, *texts: str) -> list[Any] | None:
        """Return the store's result for each key: a mapping, None or an exception.

        Return None if the result is unknown.
        """
        keys = [self._key(text) for text in texts]
        self._clock.advance(1e6)  # so far that every cached result and every remembered failure expires
        answers = await self._lookup.fetch(keys)
        error = self._store.error
        if error is not None:
            self._errors.append(error)
            return [error] * len(keys)
        try:
            found = matched(self._store.found, keys)
        except PluginError as wrong:
            self._findings.fail("length", str(wrong))
            return None
        self._errors += [each for each in found if isinstance(each, Exception)]
        return [self._judged(each, answers[key]) for each, key in zip(found, keys, strict=True)]

    def _judged(self, found: Any, answer: Answer) -> Any:
        if not (found is None or isinstance(found, Mapping | Exception)):
            self._findings.fail("mapping", str(answer))
            return _NOTHING
        return found

    async def _records(self) -> None:
        if not self._known:
            self._findings.skip("pass `records`: keys that the store has, and their records", "finds", "mapping")
        for key, record in self._known.items():
            [found] = await self._fetch(key) or [_NOTHING]
            if found is _NOTHING:
                self._findings.skip(
                    "the result has the wrong type or length (see the checks `mapping` and `length`)", "finds"
                )
            elif isinstance(found, Exception):
                self._fail("finds", f"the key {key!r} gave {''.join(described(found))}", found)
            elif found is None or Record(found) != Record(record):
                shown = "nothing" if found is None else f"{dict(found)}"
                self._findings.fail("finds", f"the key {key!r} gave {shown}, not {dict(record)}")

    async def _missing(self) -> None:
        [found] = await self._fetch(UNKNOWN) or [_NOTHING]
        if found is _NOTHING:
            self._findings.skip(
                "the result has the wrong type or length (see the checks `mapping` and `length`)", "missing"
            )
        elif isinstance(found, Exception):
            self._fail("missing", f"the lookup gave {''.join(described(found))}", found)
        elif found is not None and not found:
            self._findings.fail(
                "missing", "the lookup gave an empty mapping, which is a record without fields; it must give None"
            )

    async def _several(self) -> None:
        keys = list(self._known) or ["1", "2", "3"]
        keys[len(keys) // 2 : len(keys) // 2] = [UNKNOWN]
        alone = {key: (await self._fetch(key) or [_NOTHING])[0] for key in keys}
        for asked in (keys, keys[::-1]):
            found = await self._fetch(*asked)
            for key, each in zip(asked, found or [], strict=False):
                if not _alike(each, alone[key]):
                    self._findings.fail(
                        "order",
                        f"the request for {', '.join(asked)} gave a different record for {key!r} than for this key alone",
                    )
                    return

    async def _hostile(self) -> None:
        for text in HOSTILE:
            [found] = await self._fetch(text) or [_NOTHING]
            if isinstance(found, Exception) and not isinstance(found, DeliveryError):
                self._fail("unicode", f"the key {text!a} gave {''.join(described(found))}", found)

    async def _away(self) -> None:
        key = next(iter(self._known), UNKNOWN)
        if self._service is None or not made_to_fail(self._service, "unavailable"):
            self._findings.skip("pass a `service` that can simulate the failure 'unavailable'", "away")
            return
        answered = self._service.received
        [found] = await self._fetch(key) or [_NOTHING]
        self._service.recover()
        if isinstance(found, Exception):
            if not isinstance(found, TransientError):
                self._fail("away", f"the lookup gave {''.join(described(found))}", found)
        elif found is None:
            self._findings.fail(
                "away",
                "the lookup returned None, so the router treats the record as missing, and the delivery becomes a dead "
                "letter. Raise TransientError instead",
            )
        elif found is not _NOTHING and self._service.received > answered:
            self._findings.fail("away", f"the store was not available, and the lookup gave {dict(found)}")
        elif found is not _NOTHING:
            self._findings.skip("the lookup gave a record without a request to the service", "away")
        [again] = await self._fetch(key) or [_NOTHING]
        if isinstance(again, Exception) and not self._findings.has_failed("finds", "missing"):
            self._fail("away", f"the store was available again, and the lookup gave {''.join(described(again))}", again)

    async def _cancelled(self) -> None:
        """Cancel a fetch that waits for a silent store. Without a stand-in, cancel it as soon as it waits."""
        context = self._open()
        text = next(iter(self._known), UNKNOWN)
        await self._fetch(text)  # opens connections, and starts tasks that run until `close`
        key = self._key(text)
        silent = made_to_fail(self._service, "silent")
        before = asyncio.all_tasks()
        task = asyncio.create_task(self._store.fetch_many([key]), name="the fetch")
        if silent:
            await asyncio.wait({task}, timeout=PATIENCE)
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # a function is called in a task of its own
        if task.done():
            self._findings.skip("the fetch ended before it could be cancelled", "cancellation")
        task.cancel()
        if not await until(lambda: not asyncio.all_tasks() - before, GRACE):
            self._findings.fail("cancellation", f"the fetch did not end within {GRACE:g} s after it was cancelled")
        if self._service is not None:
            self._service.recover()
        if not self._findings.has_failed("cancellation"):
            await self._lookup.close()
        await context.close()

    def _fail(self, check: str, fault: str, error: Exception) -> None:
        self._errors.append(error)
        self._findings.fail(check, fault)
