"""The life of one router, from its start to its graceful shutdown; floor 5."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable
from typing import Any

import structlog

from router.broker.server.link import cancelled
from router.core.accounts.beats import until_beat
from router.engine.calling.stall import StallWatch
from router.engine.composition import compose
from router.engine.delivery import delivery_mode
from router.engine.delivery.worker import SinkWorker
from router.engine.life.event_loop import run_to_end
from router.engine.life.running_sources import RunningSources
from router.engine.life.watch import Admin, Watch
from router.engine.life.watchdog import Watchdog, signs_of
from router.engine.parts import Parts
from router.engine.reload.reload_requests import ReloadRequests
from router.engine.reload.reloader import Load, Reloader
from router.engine.runtime import Printer, Runtime
from router.errors import Exit
from router.ops import systemd
from router.ops.loading import Loaded

log = structlog.stdlib.get_logger(__name__)

TICK = 0.1
"""Seconds between two checks whether the drain has finished."""

LOOKUPS_EVERY = 0.5
"""Seconds between two checks whether the file of a lookup has changed."""

STATUS_EVERY = 5.0
"""Seconds between two STATUS lines for the service manager."""

LETTERS_PATIENCE = 5.0
"""Seconds allowed at the end for writing dead letters, even if the drain took all its time."""


def serve(
    loaded: Loaded,
    *,
    instance: str,
    redis_url: str,
    printer: Printer,
    ready: Callable[[], None],
    load: Load,
    admin: Callable[[Watch], Admin] | None = None,
    watch_files: bool = False,
) -> int:
    """Run a router until a signal stops it; return the exit code.

    `redis_url` is the URL of the router's own Redis; it must not be the word `embedded`. `printer` prints one line of
    data. `ready` is called when all sources are connected. `load` reads the configuration again for a reload. If
    `watch_files` is True, a changed file causes a reload. `admin` creates the admin side; None means that the router
    has no admin side. Raises `ConfigError` or `UnavailableError` if the router can't start.
    """
    timeout = None if systemd.managed() else loaded.config.redis.connect_timeout
    patience = Patience()

    def started() -> None:
        patience.over = True
        ready()

    runtime = Runtime(
        instance=instance,
        redis_url=redis_url,
        connect_timeout=timeout,
        printer=printer,
        waiting=patience,
    )
    app = App(compose(loaded, runtime), started, load, admin, watch_files=watch_files)
    return run_to_end(app.run())


class Patience:
    """The extension of the service manager's start timeout, while the router waits for Redis at its start."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, why: str) -> None:
        """Extend the timeout by 30 s, and show the reason in the status line."""
        if not self.over:
            systemd.extend_timeout(30, f"waiting for Redis: {why}")


class Signals:
    """The signal handlers.

    The first SIGTERM or SIGINT starts a graceful shutdown. The second one cuts the shutdown short. SIGHUP calls
    `hang_up`.
    """

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()
        self.code = Exit.OK
        self._hang_up = hang_up

    def install(self) -> None:
        """Install the signal handlers."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, Exit.OK)
        loop.add_signal_handler(signal.SIGINT, self._stop, Exit.INTERRUPTED)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def uninstall(self) -> None:
        """Remove the signal handlers."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)

    def _stop(self, code: int) -> None:
        if self.requested.is_set():
            self.at_once.set()
        else:
            self.code = code
        self.requested.set()


class App:
    """The life of one router, from start to end."""

    def __init__(
        self,
        parts: Parts,
        ready: Callable[[], None],
        load: Load,
        admin: Callable[[Watch], Admin] | None = None,
        *,
        watch_files: bool = False,
    ) -> None:
        self._parts = parts
        self._ready = ready
        self._stop = Signals(self._hang_up)
        self._stall = StallWatch(parts.loaded.plugins.code)
        self._running = RunningSources()
        reloader = Reloader(parts, self._running, load, applied=self._applied)
        self._reloads = ReloadRequests(reloader, self._status)
        self._watch = Watch(parts, self._reloads)
        self._admin = admin(self._watch) if admin else None
        self._watchdog = Watchdog(lambda: signs_of(self._parts), parts.shared.runtime.clock, timeout=systemd.watchdog())
        self._watch.hanging = lambda: self._watchdog.warnings
        self._watch_files = watch_files

    def _hang_up(self) -> None:
        self._reloads.ask("SIGHUP")

    def _applied(self, loaded: Loaded) -> None:
        """Inform other components that a new configuration has taken effect."""
        self._stall.know(loaded.plugins.code)
        if self._watch.orphans is not None:
            self._watch.orphans.hurry()

    async def run(self) -> int:
        """Start, run and end; return the exit code. Raises `ConfigError` or `UnavailableError` if the start fails."""
        self._stop.install()
        try:
            self._watch.start()
            if self._admin:
                await self._admin.start()
            if not await self._started():
                return await self._end(self._stop.code)
            self._announce()
            return await self._until_stopped()
        finally:
            if self._admin:
                await self._admin.close()
            await self._watch.close()
            await self._watchdog.stop()
            self._stall.stop()
            self._stop.uninstall()

    def _workers(self) -> list[SinkWorker]:
        return [sink.worker for sink in self._parts.every_part()]

    async def _started(self) -> bool:
        """Start every part.

        Return False if a signal arrives first. If a part can't start, roll back and raise the error of the part.
        """
        starting = asyncio.create_task(self._start(), name="start")
        asked = asyncio.create_task(self._stop.requested.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not starting.done():
            await cancelled([starting])
            return False
        error = starting.exception()
        if error is not None:
            await self._roll_back()
            raise error
        return True

    async def _start(self) -> None:
        """Start the workers, the dead-letter writer, the queues, the replays and the sources.

        Return when the sources are connected.
        """
        for worker in self._workers():
            worker.start()
        if self._parts.shared.writer:
            await self._parts.shared.writer.start()
        queues = self._parts.every_queue()
        for queue in queues:
            queue.start()
        if self._parts.shared.replays:
            self._parts.shared.replays.start()
        if self._parts.shared.durable:
            self._parts.shared.durable.start(used=any(queue.durable for queue in queues))
        tasks = [asyncio.create_task(source.start()) for source in self._parts.every_source()]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancelled(tasks)

    async def _stop_sources(self, patience: float) -> None:
        """Stop reading.

        Process the bytes that were read ahead, for at most `patience` seconds or until a second signal arrives.
        """
        sources = self._parts.every_source()
        stops = [self._running.stop(source, patience) for source in sources]
        if self._parts.shared.replays:
            stops.append(self._parts.shared.replays.stop())
        stopped, now = asyncio.gather(*stops), asyncio.create_task(self._stop.at_once.wait())
        ends: set[asyncio.Future[Any]] = {stopped, now}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not stopped.done():
            await asyncio.gather(*(self._running.stop(source, 0) for source in sources if source.read_ahead.size))
        await stopped

    async def _close_sources(self) -> None:
        closes = [source.close() for source in self._parts.every_source()]
        if self._parts.shared.replays:
            closes.append(self._parts.shared.replays.close())
        await asyncio.gather(*closes)

    async def _roll_back(self) -> None:
        await self._stop_sources(0)
        if self._parts.shared.writer:
            await self._parts.shared.writer.drain(0)
        await self._close_sinks()
        await self._close_queues(0.2)
        await self._close_sources()

    def _announce(self) -> None:
        """Announce that the router is ready.

        Exclude all current objects from garbage collection, because they exist until the router ends.
        """
        gc.freeze()  # do not collect first: a collection examines every object and frees only a few hundred
        gc.set_threshold(50_000, 20, 20)
        self._stall.start()
        self._watchdog.start()
        self._watch.phase = "running"
        systemd.ready(self._status())
        addresses = sorted({source.address for source in self._parts.every_source()})
        deliver = delivery_mode.in_short(self._parts.loaded.config.deliver)
        log.info(
            "ready",
            sources=len(self._parts.sources),
            sinks=len(self._parts.sinks),
            redis=", ".join(addresses),
            redis_from=str(self._parts.loaded.redis_origin),
            pid=os.getpid(),
            **({"deliver": deliver} if deliver else {}),
        )
        self._ready()

    async def _until_stopped(self) -> int:
        ends = [asyncio.create_task(end.wait()) for end in (self._stop.requested, self._running.crashed)]
        for source in self._parts.every_source():
            self._running.start(source)
        others = [asyncio.create_task(self._report_status()), asyncio.create_task(self._check_lookups())]
        self._reloads.start()
        if self._watch_files:
            others.append(asyncio.create_task(self._reloads.watch_files()))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (*ends, *others):
            task.cancel()
        return await self._end(Exit.FINDINGS if self._running.crashed.is_set() else self._stop.code)

    async def _check_lookups(self) -> None:
        while True:
            await asyncio.sleep(until_beat(asyncio.get_running_loop().time(), LOOKUPS_EVERY))
            self._parts.lookups.check()

    async def _report_status(self) -> None:
        while systemd.managed():
            await asyncio.sleep(STATUS_EVERY)
            systemd.status(self._status())

    def _status(self) -> str:
        sources = [part.source for part in self._parts.sources.values()]
        up = sum(source.up for source in sources)
        totals = self._parts.shared.books.totals()
        deliver = delivery_mode.in_short(self._parts.loaded.config.deliver)
        printed = f", {totals['printed']} printed (deliver: {deliver})" if deliver else ""
        delivered = f"{totals['delivered']} delivered"
        return f"{up} of {len(sources)} sources up, {totals['received']} received, {delivered}{printed}"

    # Graceful shutdown.

    async def _end(self, code: int) -> int:
        """Stop reading, drain the queues, close everything and log the totals; return `code`."""
        self._watch.phase = "draining"
        systemd.stopping("draining")
        drain_for = self._parts.loaded.config.shutdown.drain
        log.info("draining", at_most_seconds=drain_for)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain_for
        systemd.extend_timeout(drain_for + LETTERS_PATIENCE + 5)
        await self._reloads.stop()
        await self._stop_sources(max(deadline - loop.time(), 0))
        self._parts.shared.letters.flush()
        await self._drained(deadline)
        await self._reloads.close()
        await self._enqueue_the_rest(0.2 if self._stop.at_once.is_set() else max(deadline - loop.time(), 1.0))
        await self._close_sinks()
        patience = 0.2
        if self._parts.shared.writer:
            patience = 0.2 if self._stop.at_once.is_set() else max(deadline - loop.time(), LETTERS_PATIENCE)
            unwritten = await self._parts.shared.writer.drain(patience)
            if unwritten:
                log.error("dead letters could not be written and are lost", number=unwritten)
        await self._close_queues(patience)
        await self._close_sources()
        self._close_the_books()
        return code

    async def _drained(self, deadline: float) -> None:
        """Wait until all deliveries are settled.

        Return earlier if no more deliveries can be settled in time, or if a second signal arrives.
        """
        loop = asyncio.get_running_loop()
        settled = asyncio.gather(*(worker.settled() for worker in self._workers()))
        now = asyncio.create_task(self._stop.at_once.wait())
        while not settled.done() and not now.done() and loop.time() < deadline and self._may_settle(deadline):
            either: set[asyncio.Future[Any]] = {settled, now}
            await asyncio.wait(either, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        while not settled.done():  # redis-py may swallow one cancellation (see `link.cancelled`)
            settled.cancel()
            await asyncio.wait({settled}, timeout=TICK)
        with contextlib.suppress(asyncio.CancelledError):
            await settled

    def _may_settle(self, deadline: float) -> bool:
        """Return whether a delivery may be settled before `deadline`, a time of the event loop's clock."""
        left = deadline - asyncio.get_running_loop().time()
        return any(worker.may_settle_within(left) for worker in self._workers())

    async def _close_sinks(self) -> None:
        sinks = self._parts.every_part()
        left = await asyncio.gather(*(sink.worker.close() for sink in sinks))
        lost: dict[str, int] = {}
        for sink, number in zip(sinks, left, strict=True):
            if number:
                lost[sink.worker.name] = lost.get(sink.worker.name, 0) + number
        if lost:
            log.error("deliveries existed only in memory and are lost", reason="shutdown", by_sink=lost)
        await asyncio.gather(self._parts.lookups.close(), *(sink.context.close() for sink in sinks))

    async def _enqueue_the_rest(self, patience: float) -> None:
        """Enqueue the deliveries that are on their way to Redis queues. Log the number of lost deliveries."""
        if self._parts.shared.durable is None:
            return
        lost = await self._parts.shared.durable.enqueuer.close(patience)
        if lost:
            log.error("deliveries could not be queued in Redis and are lost", reason="shutdown", by_sink=lost)

    async def _close_queues(self, patience: float) -> None:
        await asyncio.gather(*(queue.end(patience) for queue in self._parts.every_queue()))
        if self._parts.shared.durable:
            await self._parts.shared.durable.close()

    def _close_the_books(self) -> None:
        sources = self._parts.every_source()
        log.info(
            "stopped",
            **self._parts.shared.books.totals(),
            gaps=sum(source.gaps for source in sources),
            gap_seconds=round(sum(source.gap_seconds for source in sources), 1),
        )
