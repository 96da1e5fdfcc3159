"""The opening and the closing of one sink's plugin, once for all its slots; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from router.core.delivery import retry
from router.engine.calling.calls import Caller
from router.engine.calling.slots import GRACE, Slot, Slots, contained
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.sink_health import SinkHealth

log = structlog.stdlib.get_logger(__name__)

REOPEN = retry.RetryPolicy(initial=1.0, max_delay=30.0)
"""How often opening a sink is tried again; for ever, whatever its age."""


class Opening:
    """The state of one sink's plugin: open or not. `timeout` is what `close` may take, in seconds."""

    def __init__(
        self,
        caller: Caller,
        slots: Slots,
        *,
        timeout: float,
        outcomes: Outcomes,
        health: SinkHealth,
        chance: Callable[[], float],
    ) -> None:
        self._caller = caller
        self._slots = slots
        self._timeout = timeout
        self._outcomes = outcomes
        self._health = health
        self._chance = chance
        self._opener: Slot | None = None
        self._open = asyncio.Event()
        self._log = log.bind(sink=outcomes.sink)

    async def opened(self, slot: Slot) -> None:
        """Wait until the sink is open: one slot opens it for all, another one does if that was left behind at it."""
        if self._opener is not None and not self._opener.abandoned:
            await self._open.wait()
            return
        self._opener = slot
        attempt = 0
        while not self._open.is_set():
            try:
                await self._slots.call(slot, self._caller.open())
            except Exception as error:  # noqa: BLE001  # whatever a plugin raises, it is tried again
                attempt += 1
                self._outcomes.trace(error)
                self._health.happened("the sink can't be opened", self._outcomes.told(error))
                await asyncio.sleep(retry.delay(REOPEN, attempt, self._chance()))
            else:
                self._open.set()
                self._health.ended("the sink is open")

    async def close(self) -> None:
        """Close the sink if it is open. A plugin that does not come back is left behind."""
        if not self._open.is_set():
            return
        self._open.clear()
        closing = asyncio.create_task(contained(self._caller.close()))
        for patience in (self._timeout, GRACE):
            done, _ = await asyncio.wait({closing}, timeout=patience)
            if done:
                break
            closing.cancel()
        if not closing.done():
            self._log.error("the sink ignores that it has to close and was left behind", timeout=self._timeout)
        elif closing.cancelled():
            self._log.warning("the sink did not close", error=f"timed out after {self._timeout:g} s")
        elif (error := closing.exception()) is not None:
            self._outcomes.trace(error)
            self._log.warning("the sink did not close", error=self._outcomes.told(error))
