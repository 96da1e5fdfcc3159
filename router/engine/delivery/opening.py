"""The opening and closing of one sink's plugin, shared by all its slots; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from router.core.delivery import retry
from router.engine.calling.calls import SinkCalls
from router.engine.calling.slots import GRACE, Slot, Slots, contained
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.sink_health import SinkHealth

log = structlog.stdlib.get_logger(__name__)

REOPEN = retry.RetryPolicy(initial=1.0, max_delay=30.0)
"""The delays between attempts to open a sink. The number of attempts is not limited."""


class Opening:
    """The state of one sink's plugin: open or not open. `timeout` is the limit for `close` in seconds."""

    def __init__(
        self,
        caller: SinkCalls,
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
        """Wait until the sink is open.

        The first slot that calls this method opens the sink for all slots. If this slot is abandoned, another slot
        opens the sink.
        """
        if self._opener is not None and not self._opener.abandoned:
            await self._open.wait()
            return
        self._opener = slot
        attempt = 0
        while not self._open.is_set():
            try:
                await self._slots.call(slot, self._caller.open())
            except Exception as error:  # noqa: BLE001  # after any error of the plugin, opening is tried again
                attempt += 1
                self._outcomes.trace(error)
                self._health.happened("the sink can't be opened", self._outcomes.error_text(error))
                await asyncio.sleep(retry.delay(REOPEN, attempt, self._chance()))
            else:
                self._open.set()
                self._health.ended("the sink is open")

    async def close(self) -> None:
        """Close the sink if it is open. A plugin that does not return is abandoned."""
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
            self._log.error("the sink did not return from close() and was abandoned", timeout=self._timeout)
        elif closing.cancelled():
            self._log.warning("the sink did not close", error=f"timed out after {self._timeout:g} s")
        elif (error := closing.exception()) is not None:
            self._outcomes.trace(error)
            self._log.warning("the sink did not close", error=self._outcomes.error_text(error))
