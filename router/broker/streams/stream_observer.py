"""Looks on at streams: reads what is added from now on, without a group, and acknowledges nothing; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group_stream import START, Stream
from router.broker.server.link import Link


class StreamObserver:
    """What a stream source does under `deliver: print`. One read brings `most` entries at most and waits for `block` seconds."""

    def __init__(
        self, link: Link, streams: Sequence[Stream], batches: EntryBatches, *, most: int, block: float
    ) -> None:
        self.stop = asyncio.Event()
        self._link = link
        self._streams = streams
        self._batches = batches
        self._words = ("XREAD", "COUNT", most, "BLOCK", max(1, int(block * 1000)), "STREAMS")

    async def prepare(self, stream: Stream) -> None:
        """Begin behind the newest entry."""
        newest = await self._link.call("XREVRANGE", stream.key, "+", "-", "COUNT", 1)
        stream.progress.last = newest[0][0] if newest else START

    async def run(self, answered: Callable[[], None]) -> None:
        """Read and hand on; `answered` is called whenever Redis has answered."""
        keys = [stream.key for stream in self._streams]
        by_key = {stream.key: stream for stream in self._streams}
        while not self.stop.is_set():
            reply = await self._link.call(*self._words, *keys, *[each.progress.last for each in self._streams])
            answered()
            for key, entries in reply or ():
                by_key[key].progress.last = entries[-1][0]
                self._batches.hand_on(by_key[key], entries, None)
