"""The reload of a running router; floor 5.

New parts are built and connected first. If this fails, the router continues unchanged. Otherwise, the new parts take
effect in one turn of the event loop. Unchanged sources keep their connections, and unchanged sinks keep their workers.
Removed parts finish their work in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from router.contracts import Queue, Source, Switchable
from router.core.accounts.snapshot import LoadStatus
from router.engine.calling.threads import DaemonThreads
from router.engine.composition import dead_letter_bounds, pipeline_of, rules_of, sink_part
from router.engine.composition_lookups import lookups_of
from router.engine.composition_queues import is_durable, limits_of
from router.engine.composition_sources import limit_read_ahead, source_part, subscriptions_of
from router.engine.life.running_sources import RunningSources
from router.engine.lookups.lookup_set import NO_LOOKUPS, LookupSet
from router.engine.parts import Parts, SinkPart, SourcePart
from router.engine.reload.changes import Changes, changes
from router.engine.reload.freeing import Freeing
from router.engine.reload.source_connections import UnreachableError, cancel_all, connect
from router.engine.reload.worker_replacement import WorkerReplacement, start
from router.errors import ConfigError, Problem
from router.ops.loading import Loaded
from router.ops.watching import digests, states

log = structlog.stdlib.get_logger(__name__)

DEADLINE = 30.0
"""Seconds allowed for reading the configuration and connecting new parts. The limit is needed because a Redis server or
the import of a plugin may hang.
"""

LOOK = 0.1
"""Seconds between two checks whether a removed source has entries in flight."""

Load = Callable[[], Loaded]
"""A function that reads the configuration again. It raises `ConfigError` if there is a problem."""


class Reloaded(msgspec.Struct, frozen=True):
    """The result of a reload: the changes, or the problems for which the configuration was refused."""

    changed: Mapping[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    unavailable: bool = False
    """True if the reload was refused only because a Redis server could not be reached."""

    @property
    def ok(self) -> bool:
        """True if the new configuration has taken effect."""
        return self.changed is not None


class _Plan(msgspec.Struct):
    """A new configuration with its parts, which do not take effect yet."""

    loaded: Loaded
    changes: Changes
    sinks: dict[str, SinkPart] = msgspec.field(default_factory=dict)
    new_sinks: dict[str, SinkPart] = msgspec.field(default_factory=dict)
    sources: dict[str, SourcePart] = msgspec.field(default_factory=dict)
    new_sources: dict[str, SourcePart] = msgspec.field(default_factory=dict)
    prepared: list[Switchable] = msgspec.field(default_factory=list)
    lookups: LookupSet = NO_LOOKUPS


class Reloader:
    """The reloader of the configuration.

    `load` is called in a thread. `applied` is called with each configuration that takes effect.
    """

    def __init__(
        self,
        parts: Parts,
        running: RunningSources,
        load: Load,
        *,
        applied: Callable[[Loaded], None],
    ) -> None:
        self._parts = parts
        self._running = running
        self._load = load
        self._applied = applied
        self._clock = parts.shared.runtime.clock
        self.status = LoadStatus(self._clock.now())
        """The time of the last successful load, and the error of a later failed load, if there was one."""
        self._digests = digests(parts.loaded.files)
        self._others: frozenset[Path] = frozenset()
        self.seen = states(self.files)
        """The states of the watched files when they were last read."""
        self._lock = asyncio.Lock()
        self._replacements: dict[str, WorkerReplacement] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.freeing = Freeing()

    @property
    def files(self) -> frozenset[Path]:
        """The files and folders to watch: those of the current configuration and those of the last refused
        configuration.
        """
        return frozenset(self._digests) | self._parts.loaded.folders | self._others

    def _look(self, read: frozenset[Path]) -> None:
        """Remember the states of the files of a new configuration.

        The configuration has been read, but may still be refused.
        """
        self._others = read
        self.seen = states(self.files)

    async def reload(self) -> Reloaded:
        """Load the configuration again and put it into effect; return the result.

        A faulty configuration raises no error: it is refused and changes nothing. Concurrent calls are executed one
        after another.
        """
        async with self._lock:
            deadline = asyncio.get_running_loop().time() + DEADLINE
            try:
                loaded, found = await self._read(deadline)
                self._look(frozenset(found) | loaded.folders)
                plan = _Plan(loaded, changes(self._parts.loaded, loaded))
                await self._build(plan, deadline)
            except ConfigError as error:
                if error.files:
                    self._look(error.files)
                return self._refused(error.problems)
            except UnreachableError as error:
                return self._refused(error.problems, unavailable=True)
            except Exception as error:
                log.exception("a reload failed, which is a fault of the router")
                return self._refused([Problem(f"a fault of the router ({type(error).__name__}); see the router's log")])
            names = self._names(found)
            await self._swap(plan)
            self._digests, self._others = found, frozenset()
            self.seen = {file: self.seen[file] for file in self.files}
            self.status = LoadStatus(self._clock.now())
            changed = plan.changes.document(names)
            log.info("the new configuration has taken effect", **plan.changes.log_fields(names))
            return Reloaded(changed, tuple(loaded.problems))

    def _refused(self, problems: Sequence[Problem], *, unavailable: bool = False) -> Reloaded:
        found = tuple(problems)
        for problem in found:
            log.error(
                "the new configuration was refused; the router goes on with the old configuration",
                problem=problem.headline(),
            )
        first = found[0].headline() if found else "unknown"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        self.status = LoadStatus(self.status.succeeded_at, f"{first}{more}")
        return Reloaded(None, found, unavailable)

    # Building, while the old configuration is in effect.

    async def _read(self, deadline: float) -> tuple[Loaded, dict[Path, str]]:
        threads = DaemonThreads("reload", 1)
        try:
            async with asyncio.timeout_at(deadline):
                loaded: Loaded = await threads.run(self._load)
                return loaded, await threads.run(digests, loaded.files)
        except TimeoutError:
            message = f"the configuration could not be read within {DEADLINE:g} s; does a plugin block during import?"
            raise ConfigError([Problem(message, file=str(self._parts.loaded.path))]) from None
        finally:
            threads.close()

    def _names(self, now: Mapping[Path, str]) -> list[str]:
        """Return the names of the changed files, relative to the folder of the configuration where possible."""
        base = self._parts.loaded.path.parent
        files = {file for file in {*now, *self._digests} if now.get(file) != self._digests.get(file)}
        return [str(file.relative_to(base)) if file.is_relative_to(base) else str(file) for file in sorted(files)]

    async def _build(self, plan: _Plan, deadline: float) -> None:
        """Build and connect the new parts. If one of them fails, roll back."""
        try:
            kept = {name: self._parts.lookups.lookups[name] for name in plan.changes.lookups.kept}
            plan.lookups = lookups_of(plan.loaded, self._parts.shared.runtime, kept)
            for name in plan.loaded.config.sinks:
                self._make_sink(plan, name)
            for name in plan.loaded.config.sources:
                self._make_source(plan, name)
            await self._connect(plan, deadline)
        except BaseException:
            await self._roll_back(plan)
            raise

    def _make_sink(self, plan: _Plan, name: str) -> None:
        before = self._parts.sinks.get(name)
        if before is not None and name in plan.changes.sinks.kept:
            plan.sinks[name] = before
            return
        part = sink_part(name, plan.loaded, self._parts.shared, plan.lookups, self._queue_of(name, plan.loaded))
        plan.sinks[name] = plan.new_sinks[name] = part

    def _queue_of(self, name: str, loaded: Loaded) -> Queue | None:
        """Return the existing queue for a new worker of this sink; None if the worker needs a new queue."""
        part = self._parts.every_sink().get(name)
        if part is None:
            return None
        queue = part.worker.queue
        if name in self._parts.leaving_sinks and queue.durable:
            return None  # this queue object is being closed; its deliveries are in Redis
        return queue if queue.durable == is_durable(name, loaded) else None

    def _make_source(self, plan: _Plan, name: str) -> None:
        before = self._parts.sources.get(name)
        if before is not None and (name in plan.changes.sources.kept or name in plan.changes.switched):
            plan.sources[name] = before
            return
        part = source_part(name, plan.loaded, self._parts.shared)
        kept = [self._parts.sources[other].source for other in plan.changes.sources.kept]
        for other in self._parts.every_source():
            if other not in kept:
                part.source.replace(other)
        plan.sources[name] = plan.new_sources[name] = part

    async def _connect(self, plan: _Plan, deadline: float) -> None:
        """Connect new sources, and prepare the sources that change their channels.

        Raises `UnreachableError` or `ConfigError`.
        """
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            name: part.source.start for name, part in plan.new_sources.items()
        }
        before, now = self._parts.loaded.config.sources, plan.loaded.config.sources
        for name in plan.changes.switched:
            switchable, wanted = plan.sources[name].switchable, subscriptions_of(now[name])
            assert switchable is not None
            if wanted != subscriptions_of(before[name]):
                plan.prepared.append(switchable)
                steps[name] = partial(switchable.prepare, *wanted)
        left = deadline - asyncio.get_running_loop().time()
        limit = min(plan.loaded.config.redis.connect_timeout, left)
        await connect(steps, plan.sources, plan.loaded, limit)

    async def _roll_back(self, plan: _Plan) -> None:
        """Close the parts that were built for the rejected configuration, and remove prepared subscriptions."""
        for source in plan.prepared:
            source.give_up()
        for name, part in plan.new_sources.items():
            await part.source.stop(DEADLINE)
            await part.source.close()
            if name not in self._parts.sources:
                self._parts.shared.books.sources.pop(name, None)
        for lookup in plan.lookups.replaced_by(self._parts.lookups):
            await lookup.close()
        for name, sink in plan.new_sinks.items():
            await sink.context.close()
            if name not in self._parts.every_sink():
                self._parts.shared.forget_sink(name)

    # Putting a configuration into effect.

    async def _swap(self, plan: _Plan) -> None:
        """Put a prepared configuration into effect in one turn of the event loop. Then stop the replaced parts."""
        parts, loaded = self._parts, plan.loaded
        pipeline = pipeline_of(loaded, parts.shared, plan.sinks)
        old_sources = [part for name, part in parts.sources.items() if plan.sources.get(name) is not part]
        old_names = {name for name in parts.sources if name in plan.sources}
        sources_left = asyncio.Event()
        # There is no `await` before `self._applied`. So no other task can run while only some parts have the new
        # configuration.
        self._pass_on_sinks(plan, sources_left)
        parts.shared.current.pipeline = pipeline
        for name, part in parts.sources.items():
            if name in old_names and part in old_sources:
                # The last events of a replaced source use the new pipeline. The last events of a removed source use the
                # old pipeline.
                part.intake.open(pipeline)
        for part in plan.sources.values():
            part.intake.open(pipeline)
        for source in plan.prepared:
            source.switch()
        for name in plan.changes.switched:
            limit_read_ahead(plan.sources[name], loaded.config.sources[name])
        parts.leaving_sources += [part.source for part in old_sources]
        parts.loaded, parts.sources, parts.sinks = loaded, plan.sources, plan.sinks
        replaced = parts.lookups.replaced_by(plan.lookups)
        parts.lookups = plan.lookups
        self._configure(loaded)
        self._applied(loaded)
        # From here on, the new configuration is in effect, and other tasks run again.
        patience = loaded.config.shutdown.drain
        await asyncio.gather(*(self._running.stop(part.source, patience) for part in old_sources))
        for lookup in replaced:
            self._in_background(lookup.close())
        sources_left.set()
        for part in plan.new_sources.values():
            self._running.start(part.source)
        for part in old_sources:
            self._in_background(self._close_when_idle(part.source))

    def _pass_on_sinks(self, plan: _Plan, sources_left: asyncio.Event) -> None:
        """Start the replacement of changed and removed workers. Set the new templates of all other workers."""
        parts, loaded = self._parts, plan.loaded
        for name, part in plan.sinks.items():
            before = parts.every_sink().get(name)
            if before is part:
                part.worker.preparing.use(*rules_of(name, loaded, plan.lookups))
                part.worker.queue.configure(limits_of(name, loaded))
                continue
            if before is not None:
                overridden = before.worker.preparing.removed_overrides | before.worker.preparing.overriding
                part.worker.preparing.use(*rules_of(name, loaded, plan.lookups), overridden)
                if part.worker.queue is before.worker.queue:
                    part.worker.queue.configure(limits_of(name, loaded))
            self._replace(name, before, part, sources_left)
        for name in parts.sinks.keys() - plan.sinks.keys():
            parts.leaving_sinks[name] = parts.sinks[name]
            self._replace(name, parts.sinks[name], None, sources_left)

    def _replace(self, name: str, old: SinkPart | None, new: SinkPart | None, sources_left: asyncio.Event) -> None:
        parts, before = self._parts, self._replacements.get(name)
        if new is not None and name in parts.leaving_sinks:
            del parts.leaving_sinks[name]
            if before is not None and not before.done and before.old is old:
                before.name(new)
                return
        if old is None:
            assert new is not None
            start(new)
            return
        patience = parts.loaded.config.shutdown.drain
        running = None if before is None or before.done else before
        replacement = WorkerReplacement(name, old, new, patience=patience, sources_left=sources_left, before=running)
        self._replacements[name] = replacement
        parts.retiring.append(old)
        self._in_background(self._forget(name, replacement))

    async def _forget(self, name: str, replacement: WorkerReplacement) -> None:
        await replacement.wait()
        parts = self._parts
        parts.retiring = [part for part in parts.retiring if part is not replacement.old]
        if parts.leaving_sinks.get(name) is replacement.old:
            del parts.leaving_sinks[name]
        if self._replacements.get(name) is replacement:
            del self._replacements[name]

    def _configure(self, loaded: Loaded) -> None:
        """Apply the new configuration to the parts that are neither sources nor sinks."""
        shared, config = self._parts.shared, loaded.config
        if shared.writer is not None:
            shared.writer.configure(dead_letter_bounds(loaded))
            shared.letters.configure(config.dead_letters.notify)
        if shared.durable is not None:
            shared.durable.enqueuer.buffer.limit = config.redis.outage_buffer

    async def _close_when_idle(self, source: Source) -> None:
        """Close a stopped source as soon as none of its entries is in flight."""
        while source.in_flight:  # noqa: ASYNC110  # this is rare, and no other task waits for it
            await asyncio.sleep(LOOK)
        await source.close()
        self._parts.leaving_sources = [other for other in self._parts.leaving_sources if other is not source]

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        self.freeing.part_ended()

    async def close(self) -> None:
        """Cancel all replacements. Call this method at a shutdown: the router closes the old workers itself."""
        for replacement in self._replacements.values():
            replacement.cancel()
        await cancel_all(list(self._leaving))
