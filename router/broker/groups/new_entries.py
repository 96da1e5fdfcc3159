"""Reads what is new in streams, by their consumer groups; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from router.broker.groups.group_stream import Stream
from router.broker.server.link import Link, Word

POLL = 0.05
"""Seconds between two looks into streams that can't all be waited for together."""


class NewEntries:
    """Asks for entries that were delivered to nobody yet, and waits for them for `block` seconds.

    COUNT is for each stream, so with little room only some are read, in turn, and none of them is waited for while others may
    have something.
    """

    def __init__(self, link: Link, streams: Sequence[Stream], block: float) -> None:
        self._link = link
        self._streams = streams
        self._block = max(1, int(block * 1000))
        _, group, consumer, _ = streams[0].names
        self._words = ("XREADGROUP", "GROUP", group, consumer, "COUNT")
        self._turn = 0
        self._fruitless = 0  # streams that were looked into in a row and had nothing

    async def read(self, room: int) -> list[Any]:
        """Return rows of a key and its entries, not more entries than there is room."""
        streams = self._streams
        number = min(len(streams), room)
        blocks: tuple[Word, ...] = ("BLOCK", self._block)
        if number < len(streams):
            self._turn = (self._turn + number) % len(streams)
            streams, blocks = [*streams[self._turn :], *streams[: self._turn]][:number], ()
        keys = [stream.key for stream in streams]
        reply = await self._link.call(*self._words, room // number, *blocks, "STREAMS", *keys, *[">"] * number)
        self._fruitless = 0 if reply else self._fruitless + number
        if not blocks and self._fruitless >= len(self._streams):
            await asyncio.sleep(POLL)
        return reply or []
