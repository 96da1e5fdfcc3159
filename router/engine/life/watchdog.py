"""The watchdog: sends heartbeats to the service manager while every component makes progress; floor 5.

The watchdog runs on the event loop that it checks. If the loop is blocked, or a component hangs, the watchdog sends no
heartbeat. The service manager then kills the process and starts a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import structlog

from router.broker.server.link import cancelled
from router.contracts import Clock, Sign
from router.core.accounts.liveness import Hang, HangDetector
from router.engine.parts import Parts
from router.events import timestamp
from router.ops import systemd

log = structlog.stdlib.get_logger(__name__)

EVERY = 5.0
"""The maximum number of seconds between two checks."""

SHARE = 3
"""The number of checks within the service manager's timeout. With this number, one late check and one lost datagram do
no harm.
"""


HANGS = "a component of the router hangs"

HANGS_WITHOUT_HEARTBEAT = f"{HANGS}; the service manager gets no heartbeat until the component makes progress"


class Watchdog:
    """The checker of the progress of all components.

    `signs` returns the progress of the components that exist at the time of the call. `timeout` is the watchdog timeout
    of the service manager in seconds. None means that the service manager expects no heartbeats. Then hangs are only
    logged and shown in `warnings`.
    """

    def __init__(self, signs: Callable[[], Iterable[Sign]], clock: Clock, *, timeout: float | None) -> None:
        self._signs = signs
        self._clock = clock
        self._timeout = timeout
        self._every = EVERY if timeout is None else min(timeout / SHARE, EVERY)
        self._detector = HangDetector()
        self._hangs: dict[tuple[str, str], Hang] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning for each component that hung at the last check."""
        return tuple(map(str, self._hangs.values()))

    def start(self) -> None:
        """Start checking."""
        self._task = asyncio.create_task(self._run(), name="watchdog")

    async def stop(self) -> None:
        """Stop checking."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])

    async def _run(self) -> None:
        late = 0.0
        while True:
            now = self._clock.monotonic()
            try:
                self._log(self._detector.check(self._signs(), now, late=late))
            except Exception:
                log.critical("the watchdog can't check the components, which is a fault of the router", exc_info=True)
                raise
            if self._timeout is not None and not self._hangs:
                systemd.alive()
            due = now + self._every
            await asyncio.sleep(due - self._clock.monotonic())
            late = self._clock.monotonic() - due

    def _log(self, hangs: Iterable[Hang]) -> None:
        """Log each hang once, and log its end."""
        found = {(hang.part, hang.doing): hang for hang in hangs}
        for name, hang in found.items():
            if name not in self._hangs:
                since = datetime.fromtimestamp(self._clock.now() - hang.seconds, UTC)
                log.error(
                    HANGS if self._timeout is None else HANGS_WITHOUT_HEARTBEAT,
                    part=hang.part,
                    reason=hang.doing,
                    since=timestamp(since),
                )
        for name, hang in self._hangs.items():
            if name not in found:
                seconds = round(hang.seconds, 1)
                log.warning("a component makes progress again", part=hang.part, after=hang.doing, seconds=seconds)
        self._hangs = found


def signs_of(parts: Parts) -> Iterator[Sign]:
    """Yield the progress of all parts of a router."""
    for part in parts.sources.values():
        yield from part.source.signs()
    if parts.shared.replays is not None:
        yield from parts.shared.replays.source.signs()
    if parts.shared.durable is not None:
        yield from parts.shared.durable.enqueuer.signs()
    for sink in parts.sinks.values():
        yield from sink.worker.signs()
        yield from sink.worker.queue.signs()
