"""How many entries a source may have in hand, over all its streams; floor 4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from router.broker.groups.in_flight import InFlight


class Room:
    """The room for entries that are not read yet: `most` may be in hand.

    What is complete and waits for its acknowledgement may be as many again. Nothing is waited for once `stop` is set.
    """

    def __init__(self, hands: Sequence[InFlight], most: int, stop: asyncio.Event) -> None:
        self._hands = hands
        self._most = most
        self._stop = stop
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Note that something is complete, acknowledged, or counted anew."""
        self._changed.set()

    def left(self) -> int:
        """Return how many entries may be read now."""
        unsettled = sum([hand.unsettled for hand in self._hands])
        waiting = sum([hand.unacknowledged for hand in self._hands])
        return max(0, min(self._most - unsettled, 2 * self._most - unsettled - waiting))

    async def wait(self, most: float) -> None:
        """Wait until something is complete, for `most` seconds at most."""
        self._changed.clear()
        if self.left() or self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(most, 0.0)):
                await self._changed.wait()

    async def emptied(self) -> None:
        """Wait until nothing is in hand, so that what comes next is alone there."""
        while any(hand.unsettled for hand in self._hands):
            self._changed.clear()
            await self._changed.wait()
        await self.known()

    async def known(self) -> None:
        """Wait until Redis knows of every attempt that came back.

        Were the count of such an entry to stand while another one ends the process, again and again, it would be found
        guilty in that one's place.
        """
        while any(hand.unacknowledged or hand.returned for hand in self._hands):
            self._changed.clear()
            await self._changed.wait()
