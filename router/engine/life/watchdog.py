"""Tells the service manager that all is well, as long as it is: every part of the router gets on; floor 5.

It lives on the event loop that it vouches for. When that stands still, or a part hangs, nothing is told, and the manager
ends the process and starts another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import structlog

from router.broker.server.link import cancelled
from router.contracts import Clock, Sign
from router.core.accounts.liveness import Hang, Judge
from router.engine.parts import Parts
from router.events import timestamp
from router.ops import systemd

log = structlog.stdlib.get_logger(__name__)

EVERY = 5.0
"""Seconds between two looks, at most."""

SHARE = 3
"""Looks within the time that the manager waits: one of them may be late, and one datagram lost."""


HANGS = "a part of the router hangs"

HANGS_AND_TELLS = f"{HANGS}: until it gets on the service manager is not told that all is well"


class Watchdog:
    """Looks at the router's parts; `signs` gives those of the parts there are at that moment.

    `warnings` says what hangs. `asked` is how long the manager waits for a sign of life (seconds), None for one that does
    not: then it is only looked, and said.
    """

    def __init__(self, signs: Callable[[], Iterable[Sign]], clock: Clock, *, asked: float | None) -> None:
        self._signs = signs
        self._clock = clock
        self._asked = asked
        self._every = EVERY if asked is None else min(asked / SHARE, EVERY)
        self._judge = Judge()
        self._hangs: dict[tuple[str, str], Hang] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what hangs, as of the last look."""
        return tuple(map(str, self._hangs.values()))

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="watchdog")

    async def stop(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled([task])

    async def _run(self) -> None:
        late = 0.0
        while True:
            now = self._clock.monotonic()
            try:
                self._take(self._judge.look(self._signs(), now, late=late))
            except Exception:
                log.critical("the watchdog can't look at the parts, which is a fault of the router", exc_info=True)
                raise
            if self._asked is not None and not self._hangs:
                systemd.alive()
            due = now + self._every
            await asyncio.sleep(due - self._clock.monotonic())
            late = self._clock.monotonic() - due

    def _take(self, hangs: Iterable[Hang]) -> None:
        """Say what hangs, once, and what gets on again."""
        found = {(hang.part, hang.doing): hang for hang in hangs}
        for name, hang in found.items():
            if name not in self._hangs:
                since = datetime.fromtimestamp(self._clock.now() - hang.seconds, UTC)
                log.error(
                    HANGS if self._asked is None else HANGS_AND_TELLS,
                    part=hang.part,
                    reason=hang.doing,
                    since=timestamp(since),
                )
        for name, hang in self._hangs.items():
            if name not in found:
                log.warning("it gets on again", part=hang.part, after=hang.doing, seconds=round(hang.seconds, 1))
        self._hangs = found


def signs_of(parts: Parts) -> Iterator[Sign]:
    """Yield what the parts of a router are at."""
    for part in parts.sources.values():
        yield from part.source.signs()
    if parts.shared.replays is not None:
        yield from parts.shared.replays.source.signs()
    if parts.shared.durable is not None:
        yield from parts.shared.durable.enqueuer.signs()
    for sink in parts.sinks.values():
        yield from sink.worker.signs()
        yield from sink.worker.queue.signs()
