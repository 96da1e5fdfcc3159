"""A router that runs in the process of a test. It accepts events, and records what each sink gets; floor 7."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from router.config.lookups import RedisHashConfig
from router.contracts import Clock
from router.core.accounts.books import SourceBook
from router.core.lookups.finding import Answer
from router.core.rendering.sandbox.lookup_records import Record
from router.core.wiring.readers import pattern_of, reader_of, reads
from router.engine.calling.calls import Batch, SinkCalls
from router.engine.clock import SystemClock
from router.engine.composition import pipeline_of, sink_part
from router.engine.composition_lookups import lookups_of
from router.engine.intake.pipeline import Pipeline
from router.engine.lookups.lookup import Lookup
from router.engine.lookups.lookup_set import LookupSet
from router.engine.parts import SinkPart
from router.events import DeadLetter, Event, RawBatch
from router.ops.loading import Loaded, load
from router.plugin_contracts import Result
from router.testing.configuration import Folders, plugin_paths, written
from router.testing.in_process import KeptLetters, runtime, shared_of
from router.testing.manual_clock import ManualClock
from router.testing.observing import until
from router.testing.sample_events import encoded
from router.wording import counted

PATIENCE = 10.0
"""Seconds within which all deliveries must be settled."""

Records = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The records of lookups, by the lookup's name and by key."""


class Attempt(msgspec.Struct, frozen=True):
    """A delivery as its sink got it: the event, and the options rendered for the event.

    `answer` is the value that the sink returned, and `error` the error that the sink raised. `answer` and `error` are
    None if the sink was not called.
    """

    event: Event
    options: Any
    answer: str | None = None
    error: Exception | None = None


class RecordingRouter:
    """A router without Redis, for `async with`. It decodes, validates, routes and renders as the daemon does.

    All queues are in memory, and secrets need not be set.

    - `config` is the file of a configuration, or its content as a mapping.
    - The sinks in `call` are called. For all other sinks, deliveries are only recorded.
    - `lookups` has records by lookup and rendered key: `{"user": {"42": {…}}}`. Any other lookup uses its real store. A
      `redis-hash` lookup must be in `lookups`.
    - `clock` gives the time of events, templates and `expires`, but not of retries.
    - `plugins` are the folders of drop-ins for a `config` that is a mapping. The default is `plugins/` in the current
      folder.

    `async with` raises `ConfigError` for a configuration that can't be used. It raises `ValueError` for names in `call`
    or `lookups` that the configuration lacks, and for a `redis-hash` lookup without records.
    """

    def __init__(
        self,
        config: Path | str | Mapping[str, Any],
        *,
        call: Collection[str] = (),
        lookups: Records | None = None,
        clock: ManualClock | None = None,
        plugins: Folders = None,
    ) -> None:
        self._config = config
        self._plugins = plugin_paths(plugins)
        self._call = frozenset(call)
        self._given = dict(lookups or {})
        self._runtime = runtime(SystemClock() if clock is None else _EventClock(clock))
        self._attempts: dict[str, list[Attempt]] = {}
        self._letters = KeptLetters()
        self._exit = contextlib.AsyncExitStack()
        self._loaded: Loaded
        self._sinks: dict[str, SinkPart] = {}
        self._books: Mapping[str, SourceBook] = {}
        self._pipeline: Pipeline

    async def __aenter__(self) -> Self:
        """Load the configuration and start the sinks."""
        async with self._exit:
            path = self._config
            if isinstance(path, Mapping):
                own = path.get("plugins", {})
                found = {**own, "paths": [*own.get("paths", []), *self._plugins]}
                path = self._exit.enter_context(written({**path, "plugins": found}))
            self._loaded = load(Path(path), environ=os.environ, placeholders=True, deliver="send")
            _known("sink", self._call, self._loaded.config.sinks)
            _known("lookup", self._given, self._loaded.lookups)
            self._start()
            self._exit = self._exit.pop_all()
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close the sinks. Deliveries that still wait are dropped."""
        await self._exit.aclose()

    def _start(self) -> None:
        loaded = self._loaded
        shared = shared_of(loaded, self._runtime, self._letters)
        lookups = self._lookups()
        self._exit.push_async_callback(lookups.close)
        for name in loaded.config.sinks:
            self._attempts[name] = []
            part = sink_part(name, loaded, shared, lookups, wrap=partial(self._recorded, name))
            self._exit.push_async_callback(part.context.close)
            self._exit.push_async_callback(part.worker.close)
            self._sinks[name] = part
        shared.books.sources.update((name, SourceBook()) for name in loaded.config.sources)
        self._books = shared.books.sources
        self._pipeline = shared.current.pipeline = pipeline_of(loaded, shared, self._sinks)
        for part in self._sinks.values():
            part.worker.start()

    def _lookups(self) -> LookupSet:
        """Return the lookups: those in `lookups` with the given records, the others with their real stores."""
        definitions = self._loaded.lookups
        for name, definition in definitions.items():
            if name not in self._given and isinstance(definition.config.keys, RedisHashConfig):
                raise ValueError(
                    f"the lookup {name} reads from a Redis server, which a test does not have: "
                    f"pass its records with the argument lookups={{{name!r}: {{…}}}}"
                )
        others = {name: definition for name, definition in definitions.items() if name not in self._given}
        real = lookups_of(replace(self._loaded, lookups=others), self._runtime).lookups
        clock = self._runtime.clock
        given = {
            name: Lookup(name, definitions[name].config.keys, store, store, clock=clock)
            for name, store in ((name, _GivenRecords(records)) for name, records in self._given.items())
        }
        return LookupSet(definitions, {**real, **given})

    def _recorded(self, name: str, caller: SinkCalls) -> SinkCalls:
        return _RecordedSink(caller, self._attempts[name], called=name in self._call)

    def publish(
        self, channel: str, payload: Any, *, source: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish one message. Call `settled` to wait until its deliveries are settled.

        `payload` is any JSON value, or the text for a source with `format: text`. Bytes are published unchanged.
        `source` is the name of the source that reads the message, by default the first source that reads the channel.
        Raises `ValueError` if no source reads the channel, or if `source` does not read it.
        """
        name, sources = channel.encode(), self._loaded.config.sources
        reader = source or reader_of(sources, name)
        if reader is None or reader not in sources or not reads(sources[reader], name):
            if source is None:
                raise ValueError(f"no source reads the channel {channel!r}")
            raise ValueError(f"the source {source!r} does not exist or does not read the channel {channel!r}")
        pattern = pattern_of(sources[reader], name)
        came = datetime.fromtimestamp(self._runtime.clock.now(), UTC)
        raw = payload if isinstance(payload, bytes) else encoded(payload, sources[reader].format)
        glob = None if pattern is None else pattern.encode()
        batch = RawBatch(name, glob, [raw], headers=None if headers is None else [dict(headers)], received_at=came)
        self._pipeline.receive(reader, [batch])

    async def settled(self, within: float = PATIENCE) -> None:
        """Wait until all deliveries are settled.

        Raises `TimeoutError` after `within` seconds. The error has the number of deliveries that still wait.
        """
        if not await until(lambda: not self._waiting(), within):
            waiting = ", ".join(
                f"{counted(number, 'delivery', 'deliveries')} of the sink {name}"
                for name, number in self._waiting().items()
            )
            raise TimeoutError(f"these deliveries were not settled within {within:g} s: {waiting}")

    def _waiting(self) -> dict[str, int]:
        return {name: part.worker.queue.events for name, part in self._sinks.items() if part.worker.queue.events}

    def attempts(self, sink: str) -> list[Attempt]:
        """Return the attempts of a sink so far, in order. Raises `KeyError` if there is no such sink."""
        return list(self._attempts[sink])

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters so far: rejected events, and deliveries that were given up."""
        return list(self._letters.letters)

    @property
    def unmatched(self) -> int:
        """The number of events that no route took so far."""
        return sum(book.unmatched for book in self._books.values())

    def suppressed(self, sink: str) -> dict[str, int]:
        """Return the number of suppressed deliveries of a sink so far, by reason.

        Raises `KeyError` if there is no such sink.
        """
        return {str(reason): number for reason, number in self._sinks[sink].worker.book.suppressed.items()}


class _RecordedSink:
    """An implementation of `SinkCalls` that records deliveries.

    If the sink is `called`, it also gets the deliveries.
    """

    def __init__(self, caller: SinkCalls, attempts: list[Attempt], *, called: bool) -> None:
        self._caller = caller
        self._attempts = attempts
        self._called = called
        self.takes_batches = caller.takes_batches

    async def open(self) -> None:
        """Open the sink if it is called."""
        if self._called:
            await self._caller.open()

    async def deliver(self, batch: Batch) -> Sequence[Result] | None:
        """Record deliveries."""
        if not self._called:
            self._attempts += [Attempt(event, options) for event, options in batch]
            return None
        try:
            results = await self._caller.deliver(batch)
        except Exception as error:
            self._attempts += [Attempt(event, options, error=error) for event, options in batch]
            raise
        for (event, options), result in zip(batch, results or [None] * len(batch), strict=True):
            if isinstance(result, Exception):
                self._attempts.append(Attempt(event, options, error=result))
            else:
                self._attempts.append(Attempt(event, options, answer=result))
        return results

    async def close(self) -> None:
        """Close the sink if it is in `call`; other sinks were never opened."""
        if self._called:
            await self._caller.close()


class _GivenRecords:
    """A store with the records that the test has given."""

    def __init__(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        self._records = records

    async def fetch_many(self, keys: Sequence[str]) -> Sequence[Answer]:
        """Return the records of these keys."""
        return [None if key not in self._records else Record(self._records[key]) for key in keys]

    async def close(self) -> None:
        """Do nothing: the store holds no resources."""


class _EventClock:
    """An implementation of `contracts.Clock`.

    Its time of day comes from a manual clock, but intervals pass in real time.

    The timeouts and retries of the router wait by the clock of the event loop, which a test can't set.
    """

    def __init__(self, manual: ManualClock) -> None:
        self._manual = manual
        self._system: Clock = SystemClock()

    def now(self) -> float:
        """Return the seconds since the epoch, UTC."""
        return self._manual.now()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._system.monotonic() + self._manual.monotonic()


def _known(what: str, names: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"the configuration has no {what} {unknown[0]!r}; it has {', '.join(known) or f'no {what}s'}")
